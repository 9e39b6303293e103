import fc from 'fast-check';
import { expect, test } from 'vitest';
import { median, quantile, spreadOf } from '../../bench/harness/statistics.js';

test('a spread is that of the sorted samples, whatever their order', () => {
  expect(spreadOf([5, 1, 4, 2, 3])).toEqual({
    samples: 5,
    min: 1,
    p25: 2,
    median: 3,
    p75: 4,
    p99: expect.closeTo(4.96),
    max: 5,
    mad: 1,
  });
});

test('one sample is its own spread, and no sample has none', () => {
  expect(spreadOf([7])).toMatchObject({ samples: 1, min: 7, median: 7, p99: 7, max: 7, mad: 0 });
  expect(spreadOf([])).toBeUndefined();
  expect(median([])).toBeNaN();
});

test('between two samples a quantile is interpolated', () => {
  expect(quantile([10, 20], 0.5)).toBe(15);
  expect(quantile([10, 20], 0.25)).toBe(12.5);
});

test('as many samples lie below the median as above it', () => {
  fc.assert(
    fc.property(fc.array(fc.integer(), { minLength: 1 }), (samples) => {
      const middle = median(samples);
      const below = samples.filter((sample) => sample < middle).length;
      const above = samples.filter((sample) => sample > middle).length;
      expect(Math.max(below, above) * 2).toBeLessThanOrEqual(samples.length);
    }),
  );
});
