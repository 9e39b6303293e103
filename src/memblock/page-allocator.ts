import { KhoError } from '../errors.js';
import { hex, MAX_ORDER_NR_PAGES, MAX_PAGE_ORDER, PAGE_SIZE, type PhysicalAddress } from './address.js';
import { BuddyArea } from './buddy-area.js';
import { MemoryMap, type MemoryRange } from './memory-map.js';

/** Free memory of one NUMA node. */
export interface NodeStatistics {
  readonly nid: number;
  readonly freePages: number;
  /** Number of free blocks of each order, 0 to {@link MAX_PAGE_ORDER}, as in /proc/buddyinfo. */
  readonly freeBlocks: readonly number[];
}

/** `exact`: fail rather than take pages from another node. */
export interface AllocationOptions {
  readonly exact?: boolean;
}

/**
 * The buddy allocator of a host: orders 0 to {@link MAX_PAGE_ORDER} per NUMA node, over the ranges handed to it.
 *
 * Deterministic: the same calls give the same addresses. A request takes a block of the smallest order that has one
 * free, of these the one at the lowest address, and splits it keeping the lower half. Without `exact`, other nodes
 * follow in the order of their distance, which is the difference of the node numbers, the lower number first.
 *
 * It lives in the memory of one thread and does not know physical memory: it neither reads nor clears pages.
 * Workers allocate from extents instead (see ExtentTable).
 *
 * Errors: KHO_ENOMEM says what was asked of which node and the largest free block; KHO_EINVAL leaves all as it was.
 */
export class PageAllocator {
  readonly #map: MemoryMap<MemoryRange & { readonly area: BuddyArea }>;
  readonly #areas = new Map<number, BuddyArea[]>();

  /**
   * An allocator for the memory map `memory`, with nothing free yet. Blocks never reach over a border of the map.
   * KHO_EINVAL for a malformed map.
   */
  constructor(memory: Iterable<MemoryRange>) {
    const ranges = [...memory].map((range) => ({ ...range, area: new BuddyArea(range) }));
    this.#map = new MemoryMap(ranges);
    for (const { nid, area } of this.#map.ranges) {
      const areas = this.#areas.get(nid);
      if (areas === undefined) this.#areas.set(nid, [area]);
      else areas.push(area);
    }
  }

  /**
   * Hands whole pages over. KHO_EINVAL unless they lie inside one range of the memory map, on node `nid`, and were not
   * handed over before.
   */
  addFreeRange(base: PhysicalAddress, size: number, nid: number): void {
    const area = this.#area(base, size / PAGE_SIZE);
    if (area.nid !== nid) throw invalid(`${hex(base)} is on node ${area.nid}, not on node ${nid}`, base, size);
    if (!area.add(base, size / PAGE_SIZE)) {
      throw invalid(`some of the ${size} bytes at ${hex(base)} were handed over before`, base, size);
    }
  }

  /** 2^order pages, aligned to their size. KHO_EINVAL unless `order` is in 0 to {@link MAX_PAGE_ORDER}. */
  allocPages(order: number, nid: number, { exact = false }: AllocationOptions = {}): PhysicalAddress {
    if (!Number.isInteger(order) || order < 0 || order > MAX_PAGE_ORDER) {
      throw new KhoError('KHO_EINVAL', `${order} is not an order of the buddy allocator (0 to ${MAX_PAGE_ORDER})`);
    }
    for (const areas of this.#zonelist(nid, exact)) {
      for (let from = order; from <= MAX_PAGE_ORDER; from++) {
        for (const area of areas) {
          if (area.hasFree(from)) return area.take(from, order);
        }
      }
    }
    throw this.#noMemory(`a block of order ${order} (${2 ** order} pages)`, 2 ** order, nid, exact);
  }

  /**
   * `pages` contiguous pages, at most {@link MAX_ORDER_NR_PAGES}, aligned to the next power of two; the pages after them
   * stay free (alloc_pages_exact()).
   */
  allocExact(pages: number, nid: number, options: AllocationOptions = {}): PhysicalAddress {
    checkPages(pages);
    if (pages > MAX_ORDER_NR_PAGES) {
      throw new KhoError('KHO_EINVAL', `${pages} pages exceed a block of order ${MAX_PAGE_ORDER}: allocContiguous`);
    }
    const order = Math.ceil(Math.log2(pages));
    const base = this.allocPages(order, nid, options);
    const tail = 2 ** order - pages;
    if (tail > 0) this.free((base + pages * PAGE_SIZE) as PhysicalAddress, tail);
    return base;
  }

  /**
   * `pages` contiguous pages, any number: as {@link allocExact} up to {@link MAX_ORDER_NR_PAGES}; above that the lowest
   * run of free blocks of the largest order that holds them, hence aligned to 4 MiB. The pages after them stay free.
   */
  allocContiguous(pages: number, nid: number, { exact = false }: AllocationOptions = {}): PhysicalAddress {
    checkPages(pages);
    if (pages <= MAX_ORDER_NR_PAGES) return this.allocExact(pages, nid, { exact });
    const blocks = Math.ceil(pages / MAX_ORDER_NR_PAGES);
    for (const areas of this.#zonelist(nid, exact)) {
      for (const area of areas) {
        const base = area.takeRun(blocks);
        if (base === undefined) continue;
        const tail = blocks * MAX_ORDER_NR_PAGES - pages;
        if (tail > 0) this.free((base + pages * PAGE_SIZE) as PhysicalAddress, tail);
        return base;
      }
    }
    throw this.#noMemory(`${pages} contiguous pages`, pages, nid, exact);
  }

  /**
   * Gives allocated pages back, which merge with their free buddies. They may be part of an allocation, or several that
   * touch. KHO_EINVAL, with nothing changed, if any of them is not allocated.
   */
  free(base: PhysicalAddress, pages: number): void {
    const area = this.#area(base, pages);
    const wrong = area.free(base, pages);
    if (wrong !== undefined) {
      throw invalid(
        `the page at ${hex(wrong)} is not allocated: freed twice, or never allocated`,
        wrong,
        pages * PAGE_SIZE,
      );
    }
  }

  /** What is free, per node in ascending order. */
  statistics(): NodeStatistics[] {
    const nids = [...this.#areas.keys()].sort((a, b) => a - b);
    return nids.map((nid) => {
      const freeBlocks = Array.from({ length: MAX_PAGE_ORDER + 1 }, (_, order) => this.#freeBlocks(nid, order));
      return { nid, freeBlocks, freePages: freeBlocks.reduce((sum, blocks, order) => sum + blocks * 2 ** order, 0) };
    });
  }

  /** Free pages, of one node or of all. */
  freePages(nid?: number): number {
    return this.statistics().reduce(
      (sum, node) => sum + (nid === undefined || nid === node.nid ? node.freePages : 0),
      0,
    );
  }

  #freeBlocks(nid: number, order: number): number {
    return (this.#areas.get(nid) ?? []).reduce((sum, area) => sum + area.freeBlocks(order), 0);
  }

  /** The areas of the nodes to try, one list per node, nearest node first. */
  #zonelist(nid: number, exact: boolean): BuddyArea[][] {
    const own = this.#areas.get(nid);
    if (exact) return own === undefined ? [] : [own];
    return [...this.#areas]
      .sort(([a], [b]) => Math.abs(a - nid) - Math.abs(b - nid) || a - b)
      .map(([, areas]) => areas);
  }

  #area(base: PhysicalAddress, pages: number): BuddyArea {
    checkPages(pages);
    if (base % PAGE_SIZE !== 0) throw invalid(`${hex(base)} is not aligned to a page`, base, pages * PAGE_SIZE);
    const range = this.#map.find(base);
    if (range === undefined || base + pages * PAGE_SIZE > range.base + range.size) {
      throw invalid(`${pages} pages at ${hex(base)} are not inside one range of memory`, base, pages * PAGE_SIZE);
    }
    return range.area;
  }

  #noMemory(what: string, pages: number, nid: number, exact: boolean): KhoError {
    const place = exact ? `on node ${nid}` : `for node ${nid}, nor on any other`;
    const nodes = this.statistics().filter((node) => !exact || node.nid === nid);
    const largest = Math.max(-1, ...nodes.map((node) => node.freeBlocks.findLastIndex((blocks) => blocks > 0)));
    const rest = largest < 0 ? 'nothing is free' : `the largest free block has order ${largest}`;
    return new KhoError('KHO_ENOMEM', `${what} cannot be had ${place}: ${rest}`, { size: pages * PAGE_SIZE });
  }
}

function checkPages(pages: number): void {
  if (!Number.isSafeInteger(pages) || pages <= 0) {
    throw new KhoError('KHO_EINVAL', `${pages} is not a number of pages (whole, at least 1)`);
  }
}

function invalid(text: string, address: number, size: number): KhoError {
  return new KhoError('KHO_EINVAL', text, { address, size });
}
