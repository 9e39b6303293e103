import { PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { PageRange } from './page-range.js';
import { FOLIO_SIZE, leafOfKey, ROOT_LEVEL, radixKey, TABLE_SIZE } from './radix-key.js';

/**
 * How many pages an empty tree has, root included, after `RadixTree.ensureRange` for each of `ranges`: what to
 * reserve before the freeze.
 */
export function countTables(ranges: Iterable<PageRange>, maxOrder: number): number {
  const leaves = new Set<number>();
  for (const range of ranges) {
    for (const [first, last] of leavesOfRange(range, maxOrder)) {
      for (let leaf = first; leaf <= last; leaf++) leaves.add(leaf);
    }
  }
  let count = leaves.size + 1; // the leaves, and the root, which is there even without them
  let level = leaves;
  for (let depth = 1; depth < ROOT_LEVEL; depth++) {
    level = new Set(Array.from(level, (page) => Math.floor(page / TABLE_SIZE)));
    count += level.size;
  }
  return count;
}

/** The first and last leaf for each order that has a whole folio inside the range, order 0 first. */
export function leavesOfRange({ address, pages }: PageRange, maxOrder: number): [first: number, last: number][] {
  const spans: [number, number][] = [];
  const end = address + pages * PAGE_SIZE;
  for (let order = 0; order <= maxOrder; order++) {
    const size = FOLIO_SIZE[order];
    const first = Math.ceil(address / size) * size;
    const last = Math.floor(end / size - 1) * size;
    if (first > last) break; // nor is there one of a higher order
    const leaf = (folio: number) => leafOfKey(radixKey(folio as PhysicalAddress, order));
    spans.push([leaf(first), leaf(last)]);
  }
  return spans;
}
