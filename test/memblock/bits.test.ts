import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fillBits, findBit, testBit } from '#dist/memblock/bits.js';
import { IndexSet } from '#dist/memblock/index-set.js';

const SIZE = 200;

test('fillBits and findBit agree with an array of booleans', () => {
  const fill = fc.tuple(fc.nat(SIZE - 1), fc.nat(SIZE - 1), fc.boolean());
  fc.assert(
    fc.property(
      fc.array(fill, { maxLength: 12 }),
      fc.nat(SIZE),
      fc.nat(SIZE),
      fc.boolean(),
      (fills, from, end, value) => {
        const words = new Int32Array(Math.ceil(SIZE / 32));
        const model = new Array<boolean>(SIZE).fill(false);
        for (const [a, b, to] of fills) {
          const start = Math.min(a, b);
          const count = Math.abs(a - b) + 1;
          fillBits(words, start, count, to);
          model.fill(to, start, start + count);
        }
        expect(model.map((_, bit) => testBit(words, bit))).toEqual(model);
        const found = model.slice(0, Math.max(from, end)).findIndex((bit, index) => index >= from && bit === value);
        expect(findBit(words, from, end, value)).toBe(found < 0 || found >= end ? end : found);
      },
    ),
    { numRuns: 1000 },
  );
});

test.each([1, 31, 32, 33, 1024, 1025, 40_000])('an IndexSet of capacity %i agrees with a Set', (capacity) => {
  const step = fc.tuple(fc.boolean(), fc.nat(capacity - 1));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(capacity), (steps, from) => {
      const set = new IndexSet(capacity);
      const model = new Set<number>();
      for (const [add, index] of steps) {
        if (add) set.add(index);
        else set.delete(index);
        if (add) model.add(index);
        else model.delete(index);
      }
      const sorted = [...model].sort((a, b) => a - b);
      expect(set.size).toBe(sorted.length);
      expect(set.next(from)).toBe(sorted.find((index) => index >= from) ?? -1);
      const walked: number[] = [];
      for (let index = set.next(); index >= 0; index = set.next(index + 1)) walked.push(index);
      expect(walked).toEqual(sorted);
    }),
  );
});
