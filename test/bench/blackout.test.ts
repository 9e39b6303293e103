import { expect, test } from 'vitest';
import { sixDrivers } from '../../bench/six-drivers.js';
import { largestHost } from '../../bench/suites/blackout.js';

test.each([6, 10, 12, 100, 330, 1000, 10_000])(
  'of %d instances each driver has its share, and one at least',
  (total) => {
    const counts = sixDrivers(total).map(({ count }) => count);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(total);
    for (const [index, share] of [16, 160, 96, 48, 4, 6].entries()) {
      const exact = (total * share) / 330;
      expect(counts[index]).toBeGreaterThanOrEqual(1);
      // Small hosts give to those that would have none.
      expect(Math.abs((counts[index] ?? 0) - exact)).toBeLessThanOrEqual(total < 100 ? 3 : 1);
    }
  },
);

const measured = [
  { instances: 10, p99: 5 },
  { instances: 1000, p99: 500 },
];

test('the largest host lies on a straight line between two sizes, on logarithmic scales', () => {
  expect(largestHost(50, measured)).toBe('100');
  expect(largestHost(5, measured)).toBe('10');
});

test('beyond the measured sizes nothing is guessed', () => {
  expect(largestHost(4, measured)).toBe('fewer than 10');
  expect(largestHost(500, measured)).toBe('1000 or more');
  expect(largestHost(50, [])).toBe('not judged');
});
