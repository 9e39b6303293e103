import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, type PageFrame, type PhysicalAddress } from './address.js';
import { MemoryMap, type MemoryRange } from './memory-map.js';
import type { SameNode } from './page-range.js';

/** Which node the pages of a host are on: pfn_to_nid(). Of one thread: it remembers where it found something last. */
export class NodeMap {
  readonly #map: MemoryMap<MemoryRange>;

  constructor(ranges: Iterable<MemoryRange>) {
    this.#map = new MemoryMap(ranges);
  }

  /** Whether two frames are on one node; those outside of memory are on none, together. */
  readonly sameNode: SameNode = (first, last) => this.#nodeOf(first) === this.#nodeOf(last);

  /** The range of the memory map, and so the node, that all of [address, address + size) lies in; undefined if none does. */
  rangeOf(address: PhysicalAddress, size: number): MemoryRange | undefined {
    const range = this.#map.find(address);
    return range !== undefined && address + size <= range.base + range.size ? range : undefined;
  }

  /** KHO_EFAULT of `call`, with the first address that is none, unless all of [address, address + size) is memory, backed or not. */
  checkMemory(call: string, address: PhysicalAddress, size: number): void {
    for (let at = address; at < address + size; ) {
      const range = this.#map.find(at);
      if (range === undefined) {
        throw new KhoError('KHO_EFAULT', `${call}: ${hex(at)} is outside of memory`, { call, address: at, size });
      }
      at = (range.base + range.size) as PhysicalAddress;
    }
  }

  #nodeOf(frame: PageFrame): number | undefined {
    return this.#map.find(frame * PAGE_SIZE)?.nid;
  }
}
