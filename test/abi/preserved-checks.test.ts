import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type PreservedState, preservedProblems } from '#dist/abi/preserved-checks.js';
import { physicalAddress as at, type Folio, FolioIndex, folioEnd, hex, PAGE_SIZE } from '#dist/memblock/index.js';

const PAGES = 256;
const pages = (first: number, count: number) => ({ address: at(first * PAGE_SIZE), size: count * PAGE_SIZE });

const folio: fc.Arbitrary<Folio> = fc
  .tuple(fc.nat(4), fc.nat(PAGES - 1))
  .map(([order, page]) => ({ order, address: at((page - (page % 2 ** order)) * PAGE_SIZE) }));
const neighbours = fc
  .tuple(folio, fc.integer({ min: 1, max: 40 }))
  .map(([{ address, order }, count]): Folio[] =>
    Array.from({ length: count }, (_, index) => ({ address: at(address + index * PAGE_SIZE * 2 ** order), order })),
  );
const range = fc.tuple(fc.nat(PAGES), fc.nat(8)).map(([first, count]) => pages(first, count));

/** The same, object by object, each with all that it may conflict with. */
function problemsOf(folios: readonly Folio[], state: Omit<PreservedState, 'objects'>): string[] {
  const sorted = [...folios].sort((a, b) => a.address - b.address || a.order - b.order);
  const problems: string[] = [];
  const shares = ({ address, order }: Folio, other: { address: number; size: number }): boolean =>
    other.size > 0 && address < other.address + other.size && folioEnd({ address, order }) > other.address;
  let longest: Folio | undefined;
  for (const one of sorted) {
    if (longest !== undefined && folioEnd(longest) > one.address) {
      const first = `${hex(longest.address)} (order ${longest.order})`;
      problems.push(`the preserved objects at ${first} and ${hex(one.address)} overlap`);
    }
    if (longest === undefined || folioEnd(one) > folioEnd(longest)) longest = one;
  }
  for (const area of state.scratch) {
    for (const one of sorted.filter((candidate) => shares(candidate, area))) {
      problems.push(`the preserved object at ${hex(one.address)} lies in the scratch area at ${hex(area.address)}`);
    }
  }
  for (const one of sorted) {
    if (state.isMemory(one.address, folioEnd(one) - one.address)) continue;
    problems.push(`the preserved object at ${hex(one.address)} (order ${one.order}) is not in memory`);
  }
  for (const page of state.trackerPages) {
    for (const one of sorted.filter((candidate) => shares(candidate, { address: page, size: PAGE_SIZE }))) {
      problems.push(`the preserved object at ${hex(one.address)} holds the tracker's own page at ${hex(page)}`);
    }
  }
  for (const { name, address, size } of state.blobs) {
    const held = Array.from({ length: size / PAGE_SIZE }, (_, page) => address + page * PAGE_SIZE).every((page) =>
      sorted.some((one) => shares(one, { address: page, size: PAGE_SIZE })),
    );
    if (size > 0 && held) continue;
    const why = 'is not preserved: the tracker is damaged, or the root FDT is';
    problems.push(`'${name}' at ${hex(address)} (${size} bytes) ${why}`);
  }
  return problems;
}

test('what is wrong with preserved memory is what looking at each object by itself finds, in the same order', () => {
  const lists = fc.record({
    folios: fc.array(neighbours, { maxLength: 6 }).map((runs) => runs.flat()),
    scratch: fc.array(range, { maxLength: 2 }),
    trackerPages: fc.array(
      fc.nat(PAGES).map((page) => at(page * PAGE_SIZE)),
      { maxLength: 4 },
    ),
    blobs: fc
      .array(range, { maxLength: 3 })
      .map((ranges) => ranges.map((one, index) => ({ name: `b${index}`, ...one }))),
    // Borders of regions: nothing that crosses one is in memory, as with regions of two nodes.
    borders: fc.uniqueArray(fc.nat(2 * PAGES), { maxLength: 4 }),
    holes: fc.array(fc.nat(2 * PAGES), { maxLength: 3 }),
  });
  fc.assert(
    fc.property(lists, ({ folios, borders, holes, ...lists }) => {
      const isMemory = (address: number, size: number): boolean =>
        !borders.some((page) => address < page * PAGE_SIZE && address + size > page * PAGE_SIZE) &&
        !holes.some((page) => address < (page + 1) * PAGE_SIZE && address + size > page * PAGE_SIZE);
      const state = { ...lists, isMemory };
      const found = [...preservedProblems({ objects: FolioIndex.of(folios), ...state })];
      expect(found.map(({ message }) => message)).toEqual(problemsOf(folios, state));
      expect(found.every(({ code }) => code === 'KHO_ETRACKER')).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test('a run of a million objects over the border of two regions is asked for a few times', () => {
  const objects = FolioIndex.of(
    Array.from({ length: 2 ** 20 }, (_, page) => ({ address: at(page * PAGE_SIZE), order: 0 })),
  );
  let asked = 0;
  const border = 123_457 * PAGE_SIZE;
  const isMemory = (address: number, size: number): boolean => {
    asked++;
    return address >= border || address + size <= border;
  };
  const state = { objects, scratch: [], trackerPages: [], blobs: [], isMemory };
  expect([...preservedProblems(state)]).toEqual([]);
  expect(asked).toBeLessThan(100);
});
