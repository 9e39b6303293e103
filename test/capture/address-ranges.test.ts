import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type AddressRange, difference, intersection, totalOf, union } from '#dist/capture/address-ranges.js';

const ranges = fc.array(
  fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 12 })).map(([base, size]) => ({ base, end: base + size })),
  { maxLength: 8 },
);
const members = (list: readonly AddressRange[]): Set<number> =>
  new Set(list.flatMap(({ base, end }) => Array.from({ length: end - base }, (_, at) => base + at)));

/** In order, apart, and not empty: what the functions promise of their results. */
function isTidy(list: readonly AddressRange[]): boolean {
  return list.every(({ base, end }, index) => base < end && (index === 0 || list[index - 1].end < base));
}

it('union, intersection and difference are those of the sets of addresses', () => {
  fc.assert(
    fc.property(ranges, ranges, (a, b) => {
      const [inA, inB] = [members(a), members(b)];
      const results = [union(a, b), intersection(a, b), difference(a, b)];
      expect(results.map((result) => [...members(result)].sort((x, y) => x - y))).toEqual(
        [
          [...new Set([...inA, ...inB])],
          [...inA].filter((address) => inB.has(address)),
          [...inA].filter((address) => !inB.has(address)),
        ].map((addresses) => addresses.sort((x, y) => x - y)),
      );
      expect(results.every(isTidy)).toBe(true);
      expect(totalOf(results[0])).toBe(new Set([...inA, ...inB]).size);
    }),
  );
});
