import { expect, test } from 'vitest';
import type { Comparison } from '../../bench/harness/comparison.js';
import { goalVerdict, medianOf, ratioOf } from '../../bench/harness/goals.js';
import type { LoadReading } from '../../bench/harness/machine-load.js';
import { comparisonLines } from '../../bench/harness/report.js';
import { runRounds, type Variant } from '../../bench/harness/rounds.js';

/** Variants whose n-th measurement gives what `times` says; the last one from there on. */
function comparisonOf(times: Record<string, readonly number[]>, calls: string[] = []): Comparison<Variant> {
  const variants = Object.entries(times).map(([name, list]) => {
    let call = 0;
    return {
      name,
      measure: () => {
        calls.push(name);
        return list[Math.min(call++, list.length - 1)] ?? 0;
      },
    };
  });
  return { title: 'a test', unit: 'ns', reference: Object.keys(times)[0] ?? '', variants, rounds: 4, warmup: 0 };
}

/** Two readings for each round; others work through the rounds whose number is in `busy`. */
function readings(busy: (round: number) => boolean): () => LoadReading {
  let reading = 0;
  let idle = 0;
  return () => {
    const round = Math.floor(reading / 2);
    if (reading % 2 === 1 && !busy(round)) idle += 2000;
    return { wall: Math.ceil(reading++ / 2) * 1000, own: 0, idle, cpus: 2, pressure: undefined };
  };
}
const quiet = () => readings(() => false);

test('every round runs every variant once, in an order that changes and is the same in the next run', async () => {
  const orders = async () => {
    const calls: string[] = [];
    const comparison = { ...comparisonOf({ a: [1], b: [1], c: [1] }, calls), rounds: 12 };
    await runRounds(comparison, { readLoad: quiet() });
    return Array.from({ length: 12 }, (_, round) => calls.slice(round * 3, round * 3 + 3).join(''));
  };
  const first = await orders();
  for (const order of first) expect([...order].sort().join('')).toBe('abc');
  expect(new Set(first).size).toBeGreaterThan(2);
  expect(await orders()).toEqual(first);
});

test('rounds of warming up are measured, and count for nothing', async () => {
  const calls: string[] = [];
  const result = await runRounds({ ...comparisonOf({ a: [900, 900, 1] }, calls), warmup: 2 }, { readLoad: quiet() });
  expect(calls).toHaveLength(6);
  expect(result.variants[0]?.spread).toMatchObject({ samples: 4, max: 1 });
});

test('a ratio is the median of the ratios of each round, not the ratio of the medians', async () => {
  const result = await runRounds(comparisonOf({ a: [1, 10, 100, 100], b: [2, 20, 200, 900] }), { readLoad: quiet() });
  const [a, b] = result.variants;
  expect(a?.ratio).toMatchObject({ median: 1, mad: 0 });
  expect(b?.ratio).toMatchObject({ median: 2, min: 2, max: 9 });
  expect(b?.spread?.median).toBe(110);
  expect(ratioOf(result, 'b', 'a')).toEqual({ value: 2 });
});

test('of several samples in a round, the median stands in the ratio and all stand in the spread', async () => {
  const comparison = comparisonOf({ a: [10] });
  const tail = { name: 'tail', measure: () => [20, 30, 1000] };
  const result = await runRounds({ ...comparison, variants: [...comparison.variants, tail] }, { readLoad: quiet() });
  expect(result.variants[1]?.ratio?.median).toBe(3);
  expect(result.variants[1]?.spread).toMatchObject({ samples: 12, max: 1000 });
});

test('a contaminated round is repeated and left out', async () => {
  const comparison = comparisonOf({ a: [1, 777, 1], b: [2] });
  const result = await runRounds(comparison, { readLoad: readings((round) => round === 1) });
  expect(result.rounds).toHaveLength(5);
  expect(result).toMatchObject({ contaminated: 1, verdict: 'clean' });
  expect(result.variants[0]?.spread).toMatchObject({ samples: 4, max: 1 });
  expect(comparisonLines(result).at(-1)).toBe('4 rounds; 1 left out because others used the machine');
});

test('when most rounds are contaminated, repeating ends, and no number is shown or judged', async () => {
  const comparison = comparisonOf({ a: [111], b: [222] });
  const result = await runRounds(comparison, { readLoad: readings((round) => round !== 2) });
  expect(result.rounds).toHaveLength(8);
  expect(result).toMatchObject({ contaminated: 7, verdict: 'contaminated' });
  const lines = comparisonLines(result);
  expect(lines.join('\n')).not.toMatch(/111|222/);
  expect(lines.at(-1)).toContain('CONTAMINATED');
  for (const measured of [medianOf(result, 'a'), ratioOf(result, 'b', 'a')]) {
    const goal = { name: '', unit: '', better: 'less', pass: 1000, aim: 1000, ...measured } as const;
    expect(goalVerdict(goal)).toBe('not judged: contaminated');
  }
});

test('where the load is not known, every round counts, and the table says so', async () => {
  const readLoad = () => ({ wall: 0, own: 0, idle: undefined, cpus: 0, pressure: undefined });
  const result = await runRounds(comparisonOf({ a: [5] }), { readLoad });
  expect(result).toMatchObject({ contaminated: 0, verdict: 'not measured' });
  expect(comparisonLines(result).at(-1)).toContain('not measured');
  expect(medianOf(result, 'a')).toEqual({ value: 5 });
});

test('without a reference, the variant with the lowest median is the one that the others are divided by', async () => {
  const { reference: _, ...comparison } = comparisonOf({ a: [30], b: [10], c: [20] });
  const result = await runRounds(comparison, { readLoad: quiet() });
  expect(result.reference).toBe('b');
  expect(result.variants.map(({ ratio }) => ratio?.median)).toEqual([3, 1, 2]);
});

test('what a variant has to say after the last round stands below the table', async () => {
  const comparison = comparisonOf({ a: [1] });
  const variants = comparison.variants.map((variant) => ({ ...variant, notes: () => ['chose hash'] }));
  const result = await runRounds({ ...comparison, variants }, { readLoad: quiet() });
  expect(comparisonLines(result)).toContain('a: chose hash');
});

test.each([
  ['less', 8, 'aim reached'],
  ['less', 14, 'reached'],
  ['less', 14.1, 'missed'],
  ['more', 14, 'missed'],
] as const)('a goal of at most 14, or better 8: %s than %d is %s', (better, value, verdict) => {
  const limits = better === 'less' ? { pass: 14, aim: 8 } : { pass: 15, aim: 20 };
  expect(goalVerdict({ name: '', unit: '', better, ...limits, value })).toBe(verdict);
});
