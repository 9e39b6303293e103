import fc from 'fast-check';
import { expect, test } from 'vitest';
import { physicalAddress as at, type Folio, FolioIndex, FolioRuns, folioEnd } from '#dist/memblock/index.js';

const PAGE = 4096;
const PAGES = 256;

const folio: fc.Arbitrary<Folio> = fc
  .tuple(fc.nat(5), fc.nat(PAGES - 1))
  .map(([order, page]) => ({ order, address: at((page - (page % 2 ** order)) * PAGE) }));

/** Neighbours of one order, as a walk hands them over. */
const run = fc.tuple(folio, fc.integer({ min: 1, max: 12 }));

const foliosOf = ([{ address, order }, count]: [Folio, number]): Folio[] =>
  Array.from({ length: count }, (_, index) => ({ address: at(address + index * PAGE * 2 ** order), order }));

/** Every page that a folio has, the plain way. */
const pagesOf = ({ address, order }: Folio) => Array.from({ length: 2 ** order }, (_, page) => address / PAGE + page);

const ascending = (folios: readonly Folio[]) => [...folios].sort((a, b) => a.address - b.address || a.order - b.order);

/** What the index must say of `folios`, by looking at each page of each. */
function expectToKnow(index: FolioIndex, folios: readonly Folio[], address: number, size: number): void {
  const sorted = ascending(folios);
  expect([...index]).toEqual(sorted);
  expect(sorted.map((_, number) => index.folio(number))).toEqual(sorted);
  expect([index.count, index.bytes]).toEqual([
    sorted.length,
    folios.reduce((sum, one) => sum + PAGE * 2 ** one.order, 0),
  ]);
  const inside = sorted.flatMap((one, number) =>
    size > 0 && one.address < address + size && folioEnd(one) > address ? [number] : [],
  );
  expect([...index.overlapping(address, size)]).toEqual(inside);
  const held = new Set(folios.flatMap(pagesOf));
  let covered = true;
  for (let byte = address; byte < address + size; byte = (Math.floor(byte / PAGE) + 1) * PAGE) {
    covered &&= held.has(Math.floor(byte / PAGE));
  }
  expect(index.covers(address, size)).toBe(covered);
  const begins = (address: number) => sorted.findIndex((one) => one.address === address);
  const pages = Array.from({ length: PAGES }, (_, page) => at(page * PAGE));
  expect(pages.map((page) => index.at(page))).toEqual(pages.map(begins));
  expect(index.at(at(address - (address % PAGE) + 1))).toBe(-1);
  // A folio is the later one of a pair exactly if one of its pages was met before.
  const met = new Set<number>();
  const later = sorted.filter((one) => {
    const again = pagesOf(one).some((page) => met.has(page));
    for (const page of pagesOf(one)) met.add(page);
    return again;
  });
  const pairs = [...index.overlaps()];
  expect(pairs.map(([, one]) => one)).toEqual(later);
  const wrong = pairs.filter(
    ([earlier, one]) =>
      earlier.address > one.address || folioEnd(earlier) <= one.address || index.at(earlier.address) < 0,
  );
  expect(wrong).toEqual([]);
}

/** What makes the runs of an index runs, and that they are all. */
function expectRuns(index: FolioIndex): void {
  const folios: Folio[] = [];
  for (let run = 0; run < index.runCount; run++) {
    expect(index.runFirst(run)).toBe(folios.length);
    folios.push(...foliosOf([{ address: index.runStart(run), order: index.runOrder(run) }, index.runLength(run)]));
    expect(index.runEnd(run)).toBe(folioEnd(folios[folios.length - 1]));
  }
  expect(folios).toEqual([...index]);
}

test('what an index says of any folios, overlapping or twice, in any order, a list of pages says too', () => {
  fc.assert(
    fc.property(
      fc.array(folio, { maxLength: 24 }),
      fc.nat(PAGES * PAGE),
      fc.nat(20 * PAGE),
      (folios, address, size) => {
        const index = FolioIndex.of(folios);
        expectToKnow(index, folios, address, size);
        expectRuns(index);
      },
    ),
    { numRuns: 200 },
  );
});

test('runs are worth the same as their folios, however they lie in each other', () => {
  fc.assert(
    fc.property(fc.array(run, { maxLength: 12 }), fc.nat(PAGES * PAGE), fc.nat(40 * PAGE), (runs, address, size) => {
      const collected = new FolioRuns();
      for (const [{ address, order }, count] of runs) collected.add(address, order, count);
      const index = new FolioIndex(collected);
      expectToKnow(index, runs.flatMap(foliosOf), address, size);
      expectRuns(index);
    }),
    { numRuns: 200 },
  );
});

test('neighbours of one order are one run, whatever else lies between the times they are met', () => {
  const index = FolioIndex.of([
    ...foliosOf([{ address: at(64 * PAGE), order: 3 }, 4]),
    ...foliosOf([{ address: at(0), order: 0 }, 64]),
    ...foliosOf([{ address: at(96 * PAGE), order: 0 }, 4]),
  ]);
  expect(Array.from({ length: index.runCount }, (_, run) => index.runLength(run))).toEqual([64, 4, 4]);
  const scattered = Array.from({ length: 1000 }, (_, page) => ({ address: at(((page * 7) % 1000) * PAGE), order: 0 }));
  expect(FolioIndex.of(scattered).runCount).toBe(1);
});

test('parts of any number and size are merged', () => {
  const parts = fc.array(fc.tuple(fc.nat(200), fc.nat(3)), { maxLength: 40 });
  fc.assert(
    fc.property(parts, (sizes) => {
      // Interleaved: part p has the pages p, p + 41, p + 82 and so on, so that nothing of it joins.
      const folios = sizes.flatMap(([size, order], part) =>
        Array.from({ length: size }, (_, index) => ({ address: at((index * 41 + part) * 8 * PAGE), order })),
      );
      expect([...FolioIndex.of(folios)]).toEqual(ascending(folios));
    }),
    { numRuns: 50 },
  );
});

test('the highest addresses and orders are kept exactly', () => {
  const folios = [
    { address: at(2 ** 52 - PAGE), order: 0 },
    { address: at(2 ** 51), order: 38 },
    { address: at(0), order: 39 },
  ];
  const index = FolioIndex.of(folios);
  expect([...index]).toEqual([folios[2], folios[1], folios[0]]);
  expect([index.at(at(2 ** 51)), index.at(at(2 ** 52 - PAGE))]).toEqual([1, 2]);
  expect(index.covers(0, 2 ** 51 + 2 ** 50)).toBe(true);
});

test('an empty index covers nothing, and an empty range is covered', () => {
  const index = FolioIndex.of([]);
  expect([index.covers(0, 1), index.covers(5, 0), index.at(at(0)), index.bytes]).toEqual([false, true, -1, 0]);
  expect([[...index], [...index.overlapping(0, 2 ** 52)], [...index.overlaps()]]).toEqual([[], [], []]);
});
