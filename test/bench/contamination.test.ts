import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { contamination } from '../../bench/harness/contamination.js';
import { type LoadReading, MachineLoad } from '../../bench/harness/machine-load.js';
import { temporaryDirectory } from '../support/run.js';

/** Readings a second apart on two CPUs, of which ours and others' work took so many milliseconds. */
function second(work: { own: number; others: number }): [LoadReading, LoadReading] {
  const before = { wall: 5000, own: 300, idle: 7000, cpus: 2, pressure: 40 };
  const idle = before.idle + 2000 - work.own - work.others;
  return [before, { wall: 6000, own: before.own + work.own, idle, cpus: 2, pressure: 55 }];
}

test('a second in which only we work is clean, however much we do', () => {
  for (const own of [0, 900, 2000]) {
    expect(contamination(...second({ own, others: 0 }))).toMatchObject({ verdict: 'clean', others: 0, pressure: 15 });
  }
});

test('others may use 5 % of a CPU beside what the ticks of /proc/stat can feign', () => {
  // 50 ms of a second, and 1.5 ticks of 10 ms for each of two CPUs.
  expect(contamination(...second({ own: 1000, others: 80 }))).toMatchObject({ verdict: 'clean', limit: 80 });
  expect(contamination(...second({ own: 1000, others: 90 }))).toMatchObject({ verdict: 'contaminated', others: 90 });
});

test('time that the hypervisor stole from us is time of others', () => {
  // Neither idle nor ours: we wanted both CPUs, and got them for 1.5 of 2 seconds.
  expect(contamination(...second({ own: 1500, others: 500 })).verdict).toBe('contaminated');
});

test('idle ticks that were rounded up are not negative work of others', () => {
  expect(contamination(...second({ own: 500, others: -20 }))).toMatchObject({ verdict: 'clean', others: 0 });
});

test('where /proc does not say, nothing is known', () => {
  const [before, after] = second({ own: 0, others: 2000 });
  const unknown = { idle: undefined, cpus: 0, pressure: undefined };
  expect(contamination({ ...before, ...unknown }, { ...after, ...unknown })).toMatchObject({
    verdict: 'unknown',
    others: undefined,
    pressure: undefined,
  });
});

test('a reading takes idle time and pressure from /proc, and counts the CPU time of the variants as ours', () => {
  const proc = temporaryDirectory();
  mkdirSync(join(proc, 'pressure'));
  writeFileSync(
    join(proc, 'stat'),
    'cpu  10 1 20 300 40 0 5 6 0 0\ncpu0 5 1 10 150 20 0 5 6 0 0\ncpu1 5 0 10 150 20\n',
  );
  writeFileSync(
    join(proc, 'pressure/cpu'),
    'some avg10=12.50 avg60=9.76 avg300=5.22 total=45280229\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
  );
  const load = new MachineLoad(proc);
  expect(load.read(0)).toMatchObject({ idle: 3400, cpus: 2, pressure: 45280.229 });
  expect(load.pressure()).toEqual({ avg10: 12.5, total: 45280.229 });
  expect(load.read(7_000_000).own).toBeGreaterThan(7_000_000);
});

test('on a system without /proc a reading still has our own CPU time', () => {
  const reading = new MachineLoad(join(temporaryDirectory(), 'absent')).read(0);
  expect(reading).toMatchObject({ idle: undefined, cpus: 0, pressure: undefined });
  expect(reading.own).toBeGreaterThan(0);
});
