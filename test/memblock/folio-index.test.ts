import fc from 'fast-check';
import { expect, test } from 'vitest';
import { physicalAddress as at, type Folio, FolioIndex, folioEnd } from '#dist/memblock/index.js';

const PAGE = 4096;
const PAGES = 256;

const folio: fc.Arbitrary<Folio> = fc
  .tuple(fc.nat(5), fc.nat(PAGES - 1))
  .map(([order, page]) => ({ order, address: at((page - (page % 2 ** order)) * PAGE) }));

/** Every page that a folio has, the plain way. */
const pagesOf = ({ address, order }: Folio) => Array.from({ length: 2 ** order }, (_, page) => address / PAGE + page);

test('what an index says of any folios, overlapping or not, a list of pages says too', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(folio, { maxLength: 24, selector: ({ address, order }) => `${address}:${order}` }),
      fc.nat(PAGES * PAGE),
      fc.nat(20 * PAGE),
      (folios, address, size) => {
        const index = new FolioIndex(folios);
        expect(index.folios).toHaveLength(folios.length);
        expect(index.bytes).toBe(folios.reduce((sum, one) => sum + PAGE * 2 ** one.order, 0));
        const inside = folios.filter((one) => size > 0 && one.address < address + size && folioEnd(one) > address);
        const found = [...index.overlapping(address, size)].map((number) => index.folios[number]);
        expect(new Set(found)).toEqual(new Set(inside));
        const held = new Set(folios.flatMap(pagesOf));
        let covered = true;
        for (let byte = address; byte < address + size; byte = (Math.floor(byte / PAGE) + 1) * PAGE) {
          covered &&= held.has(Math.floor(byte / PAGE));
        }
        expect(index.covers(address, size)).toBe(covered);
        const first = index.at(at(address - (address % PAGE)));
        const begins = folios.some((one) => one.address === address - (address % PAGE));
        expect(first >= 0).toBe(begins);
        if (first >= 0) expect(index.folios[first]?.address).toBe(address - (address % PAGE));
        // A folio is the later one of a pair exactly if one of its pages was met before.
        const met = new Set<number>();
        const later = index.folios.filter((one) => {
          const again = pagesOf(one).some((page) => met.has(page));
          for (const page of pagesOf(one)) met.add(page);
          return again;
        });
        expect([...index.overlaps()].map(([, one]) => one)).toEqual(later);
      },
    ),
    { numRuns: 500 },
  );
});

test('an empty index covers nothing, and an empty range is covered', () => {
  const index = new FolioIndex([]);
  expect([index.covers(0, 1), index.covers(5, 0), index.at(at(0)), index.bytes]).toEqual([false, true, -1, 0]);
});
