/** The buddy allocator: many blocks of one order are taken, then given back. */
import { PageAllocator, type PhysicalAddress, physicalAddress } from '#dist/memblock/index.js';
import type { Measured } from '../harness/comparison.js';

export interface PageAllocatorParameters {
  readonly order: number;
  readonly blocks: number;
  /** Bytes of free memory. */
  readonly size: number;
  readonly call: 'allocate' | 'free';
}

export default function pageAllocator({ order, blocks, size, call }: PageAllocatorParameters): Measured {
  const base = physicalAddress(0);
  const pages = new PageAllocator([{ base, size, nid: 0, backed: true }]);
  pages.addFreeRange(base, size, 0);
  const taken: PhysicalAddress[] = new Array(blocks).fill(base);
  return {
    measure() {
      const start = process.hrtime.bigint();
      for (let block = 0; block < blocks; block++) taken[block] = pages.allocPages(order, 0);
      const middle = process.hrtime.bigint();
      for (const address of taken) pages.free(address, 2 ** order);
      const end = process.hrtime.bigint();
      return Number(call === 'allocate' ? middle - start : end - middle) / blocks;
    },
  };
}
