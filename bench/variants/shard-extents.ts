/** Extents of a shard: pages that are allocated and freed. */
import { ExtentTable, PAGE_SIZE, type PageRange, type PhysicalAddress, physicalAddress } from '#dist/memblock/index.js';
import type { Measured } from '../harness/comparison.js';

export interface ShardExtentsParameters {
  /** `fill`: all are allocated, then freed. `churn`: half are held; of these any one is freed, and one allocated. */
  readonly pattern: 'fill' | 'churn';
  /** Of a folio; undefined for single pages by alloc(). */
  readonly order?: number;
  /** Pages of the shard, in extents of 4 MiB. */
  readonly pages: number;
}

const EXTENT_PAGES = 1024;

export default function shardExtents({ pattern, order, pages }: ShardExtentsParameters): Measured {
  const ranges = Array.from({ length: pages / EXTENT_PAGES }, (_, index) => ({
    // Not neighbours, as extents are that were granted at several times.
    base: physicalAddress(2 ** 30 + index * 2 * EXTENT_PAGES * PAGE_SIZE),
    pages: EXTENT_PAGES,
  }));
  const extents = ExtentTable.create([{ pages, ranges }]).extent(0);
  const size = order === undefined ? 1 : 2 ** order;
  const count = pages / size;
  const take = (): PhysicalAddress =>
    order === undefined ? extents.alloc(1).address : extents.allocFolio(order).address;
  const give = (address: PhysicalAddress): void =>
    extents.free(order === undefined ? { address, pages: 1 } : ({ address, pages: size } satisfies PageRange));
  const held: PhysicalAddress[] = new Array(count).fill(physicalAddress(0));
  const fill = (upTo: number): void => {
    for (let index = 0; index < upTo; index++) held[index] = take();
  };
  const empty = (upTo: number): void => {
    for (let index = 0; index < upTo; index++) give(held[index]);
  };
  return {
    measure() {
      const start = process.hrtime.bigint();
      if (pattern === 'fill') {
        fill(count);
        empty(count);
        return Number(process.hrtime.bigint() - start) / count;
      }
      const half = count / 2;
      fill(half);
      const filled = process.hrtime.bigint();
      let state = 1;
      for (let step = 0; step < count; step++) {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        const index = (state >>> 8) % half;
        give(held[index]);
        held[index] = take();
      }
      const end = process.hrtime.bigint();
      empty(half);
      return Number(end - filled) / count;
    },
  };
}
