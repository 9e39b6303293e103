import { execFile } from 'node:child_process';
import { createServer } from 'node:net';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { leftovers, takeCensus } from '../../bench/soak/census.js';
import { judgeFlatness, SAMPLES_TO_JUDGE } from '../../bench/soak/flatness.js';
import { ROOT } from '../support/run.js';

const allowance = { bytes: 10, share: 0.1 };

test('memory that comes to rest after the first quarter is flat, however it jumps now and then', () => {
  const samples = Array.from({ length: 80 }, (_, at) => (at < 20 ? at * 50 : 1000) + (at % 9 === 0 ? 5000 : 0));
  expect(judgeFlatness(samples, allowance)).toEqual({ early: 1000, late: 1000, flat: true });
});

test('memory that grows with each handover is not flat, and memory that shrinks is', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 100 }), fc.integer({ min: 0, max: 50 }), (step, base) => {
      const growing = Array.from({ length: 200 }, (_, at) => base + at * step);
      expect(judgeFlatness(growing, allowance)?.flat).toBe(false);
      expect(judgeFlatness([...growing].reverse(), allowance)?.flat).toBe(true);
    }),
  );
});

test('the larger allowance counts, and few samples are not judged', () => {
  const step = (early: number, late: number) => Array.from({ length: 80 }, (_, at) => (at < 40 ? early : late));
  expect(judgeFlatness(step(50, 60), allowance)?.flat).toBe(true);
  expect(judgeFlatness(step(50, 61), allowance)?.flat).toBe(false);
  expect(judgeFlatness(step(1000, 1100), allowance)?.flat).toBe(true);
  expect(judgeFlatness(step(1000, 1101), allowance)?.flat).toBe(false);
  expect(judgeFlatness(new Array(SAMPLES_TO_JUDGE - 1).fill(1), allowance)).toBeUndefined();
});

test('a census finds a listener and a server that were left', async () => {
  const before = await takeCensus();
  const listener = (): void => {};
  process.on('khorus-soak-test', listener);
  const socket = createServer().listen(0);
  try {
    const found = leftovers(before, await takeCensus()).join('\n');
    expect(found).toContain('1 listeners of process left');
    expect(found).toContain('1 handles TCPServerWrap left (0 before, 1 now)');
  } finally {
    await new Promise((resolve) => socket.close(resolve));
    process.off('khorus-soak-test', listener);
  }
  expect(leftovers(before, await takeCensus()).join('\n')).not.toMatch(/listeners|TCPServerWrap/);
});

test('a short soak in a profile with one FDT ends with its verdict', async () => {
  const main = `${ROOT}/.bench-build/soak/main.js`;
  const args = ['--expose-gc', main, '--handovers', '3', '--profile', 'series-v5', '--successor', 'process'];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  expect(stdout).toContain('handover    3  kexec count 0 ');
  expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^soak: 3 handovers: kexec count right, .* memory not judged$/);
});

test('a soak that is told nonsense says so and exits 2', async () => {
  const main = `${ROOT}/.bench-build/soak/main.js`;
  const wrong = promisify(execFile)(process.execPath, ['--expose-gc', main, '--mode', 'subfdt', '--handovers', '0']);
  await expect(wrong).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--handovers') });
});
