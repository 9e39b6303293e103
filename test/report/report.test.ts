import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLACKOUT_PHASES, type Timeline } from '#dist/coordinator/timeline.js';
import {
  apportion,
  blackoutLine,
  blackoutReport,
  blame,
  blameLines,
  runSummary,
  runSummaryLines,
  timeLines,
  timeReport,
} from '#dist/report/index.js';
import { handWrittenRecord } from './record.js';

function timelineOf(durations: readonly number[]): Timeline {
  let now = 0;
  const phases = durations.map((duration, index) => {
    const start = now;
    now += duration;
    // Without shutdown, which happens only where it is the trigger.
    return { phase: BLACKOUT_PHASES[index + 1], start, end: now };
  });
  return { threads: [], spans: [], phases };
}

/** The numbers of a line as whole tenths of a millisecond, or whole milliseconds where it is in seconds. */
const unitsIn = (text: string) =>
  [...text.matchAll(/(\d+)\.(\d+)(?:ms|s)/g)].map(([, whole, rest]) => Number(whole + rest));

test('the blackout line names each phase, the sum, and what is left of the budget', () => {
  expect(blackoutLine(handWrittenRecord())).toBe(
    'Blackout: freeze 1.2ms + serialize 8.4ms + finalize 2.1ms + jump 0.1ms + boot 11.0ms + restore 30.2ms = 53.0ms (budget 500.0ms, 447.0ms left)',
  );
});

test('over budget the line says by how much, even where rounding hides it', () => {
  const timeline = timelineOf([10, 20, 5, 1, 7, 10]);
  const budget = (blackout: number) => ({ blackout, onOverrun: 'ignore' as const });
  expect(blackoutLine({ timeline, budget: budget(50) })).toMatch(/= 53\.0ms \(budget 50\.0ms, 3\.0ms over\)$/);
  expect(blackoutLine({ timeline, budget: budget(52.99) })).toMatch(/\(budget 53\.0ms, less than 0\.1ms over\)$/);
  expect(blackoutLine({ timeline, budget: budget(53) })).toMatch(/\(budget 53\.0ms, 0\.0ms left\)$/);
  expect(blackoutLine({ timeline })).toMatch(/= 53\.0ms$/);
});

test('a kernel that was loaded is told of as a part of prepare', () => {
  const record = handWrittenRecord();
  expect(timeReport(record)).not.toHaveProperty('kexecLoad');
  const load = { phase: 'prepare', thread: 0, queued: 0 } as const;
  const spans = [
    ...record.timeline.spans,
    { ...load, step: 'read the kernel', start: 1, end: 13 },
    { ...load, step: 'load the kernel', start: 13, end: 16.5 },
    { ...load, step: 'load the boot record', start: 17, end: 18 },
  ];
  const loaded = { ...record, timeline: { ...record.timeline, spans } };
  expect(timeReport(loaded).kexecLoad).toBeCloseTo(15.5);
  expect(timeLines(loaded)[2]).toBe('Prepare loaded the kernel in 15.5ms; the blackout has no part of it');
  expect(timeReport(loaded).blackout).toEqual(timeReport(record).blackout);
});

test('a line of more than ten seconds is in seconds as a whole', () => {
  const line = blackoutLine({ timeline: timelineOf([1, 12_000]), budget: { blackout: 500, onOverrun: 'ignore' } });
  expect(line).toBe('Blackout: freeze 0.001s + serialize 12.000s = 12.001s (budget 0.500s, 11.501s over)');
});

test('a wide budget does not cost the phases their precision', () => {
  const line = blackoutLine({ timeline: timelineOf([0.4, 3]), budget: { blackout: 20_000, onOverrun: 'ignore' } });
  expect(line).toBe('Blackout: freeze 0.4ms + serialize 3.0ms = 3.4ms (budget 20000.0ms, 19996.6ms left)');
});

test('a phase that did not happen is not in the line', () => {
  expect(blackoutLine({ timeline: timelineOf([]) })).toBe('Blackout: none, the run did not get to the freeze');
  expect(blackoutLine({ timeline: timelineOf([1.5]) })).toBe('Blackout: freeze 1.5ms = 1.5ms');
});

test('the parts of the blackout line add up to its sum exactly, and sum and rest to the budget, as they are printed', () => {
  const duration = fc.oneof(
    fc.double({ min: 0, max: 50, noNaN: true }),
    fc.double({ min: 0, max: 20_000, noNaN: true }),
  );
  fc.assert(
    fc.property(fc.array(duration, { minLength: 1, maxLength: 6 }), duration, (durations, blackout) => {
      const run = { timeline: timelineOf(durations), budget: { blackout, onOverrun: 'ignore' as const } };
      const [sum, budgetText] = blackoutLine(run).split(' (');
      const numbers = unitsIn(sum);
      const total = numbers.pop();
      expect(numbers).toHaveLength(durations.length);
      expect(numbers.reduce((a, b) => a + b, 0)).toBe(total);
      const [budget, rest] = unitsIn(budgetText);
      if (budgetText.includes('less than')) expect(total).toBe(budget);
      else expect((total ?? Number.NaN) + (budgetText.includes('left') ? rest : -rest)).toBe(budget);
      expect(budgetText.endsWith('left)')).toBe((blackoutReport(run).left ?? 0) >= 0);
    }),
    { numRuns: 2000 },
  );
});

test('apportion is off by less than one unit in each part', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { maxLength: 12 }), (values) => {
      const { parts, total } = apportion(values, 0.1);
      expect(parts.reduce((a, b) => a + b, 0)).toBe(total);
      for (const [index, part] of parts.entries()) expect(Math.abs(part - values[index] / 0.1)).toBeLessThan(1);
    }),
  );
});

test('time shows prepare, blackout and finish, and apart from them what is not counted', () => {
  expect(timeLines(handWrittenRecord())).toEqual([
    'Handover finished in 120.3ms (prepare) + 53.0ms (blackout) + 4.0ms (finish) = 177.3ms',
    blackoutLine(handWrittenRecord()),
    'Not counted: snapshot 12.0ms (digests of the states, taken to check the result)',
  ]);
  const report = timeReport(handWrittenRecord());
  expect(report.total).toBeCloseTo(177.3, 9);
  expect(report.blackout.left).toBeCloseTo(447, 9);
  expect(report.notCounted.map(({ phase }) => phase)).toEqual(['snapshot']);
});

test('blame sorts drivers by their own time and keeps waiting apart', () => {
  expect(blame(handWrittenRecord())).toEqual([
    {
      driver: 'iommu',
      own: 10,
      waiting: 3,
      threads: 2,
      phases: [
        { phase: 'freeze', own: 1 },
        { phase: 'serialize', own: 9 },
      ],
    },
    { driver: 'netdevsim', own: 2.5, waiting: 0, threads: 1, phases: [{ phase: 'serialize', own: 2.5 }] },
  ]);
});

test('blame aligns its columns, one for each phase in which a driver ran', () => {
  expect(blameLines(handWrittenRecord())).toEqual([
    '   OWN  WAITING  THREADS  FREEZE  SERIALIZE  DRIVER',
    '10.0ms    3.0ms        2   1.0ms      9.0ms  iommu',
    ' 2.5ms      0us        1       -      2.5ms  netdevsim',
  ]);
});

test('blame of instances names driver and instance', () => {
  const entries = blame(handWrittenRecord(), { instances: true });
  expect(entries.map(({ instance, own, waiting }) => [instance, own, waiting])).toEqual([
    ['iommu0', 5, 0],
    ['iommu1', 5, 3],
    ['netdevsim0', 2.5, 0],
  ]);
  const lines = blameLines(handWrittenRecord(), { instances: true });
  expect(lines[0]).toMatch(/INSTANCE$/);
  expect(lines[2]).toMatch(/iommu\/iommu1$/);
});

test('a run closes with how many drivers were restored, with instances and bytes', () => {
  const lines = runSummaryLines(handWrittenRecord());
  expect(lines.at(-1)).toBe('restored 2 of 2 drivers: 3 instances, 1.0 MiB');
  expect(lines).toContain('revived reserve_mem: trace (1 MiB)');
  expect(runSummary(handWrittenRecord()).restoredBytes).toBe(2 ** 20 + 4096 + 8192);
});

test('a driver with one instance that came back differently is not restored', () => {
  const record = handWrittenRecord();
  const { successor } = record;
  if (successor === undefined) throw new Error('the record has a successor');
  const restored = successor.restored.map((one) => (one.name === 'iommu1' ? { ...one, digest: 'other' } : one));
  const lines = runSummaryLines({
    ...record,
    successor: { ...successor, restored, unclaimed: [{ address: 0x4000, order: 1 }] },
  });
  expect(lines.slice(-2)).toEqual([
    'not restored: iommu (1 of 2 instances)',
    'restored 1 of 2 drivers: 2 instances, 8 KiB',
  ]);
  expect(lines).toContain('nobody claimed 1 preserved object, 8 KiB');
});

test('without a successor nothing is said of restoring', () => {
  const { successor: _, ...record } = handWrittenRecord();
  expect(runSummaryLines(record)).toEqual([blackoutLine(record)]);
});
