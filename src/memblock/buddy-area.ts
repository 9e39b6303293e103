import {
  alignDown,
  alignUp,
  frameAddress,
  MAX_ORDER_NR_PAGES,
  MAX_PAGE_ORDER,
  PAGE_SIZE,
  type PageFrame,
  type PhysicalAddress,
  pageFrame,
} from './address.js';
import { fillBits, findBit, lowestBit } from './bits.js';
import { IndexSet } from './index-set.js';

/** A stretch of the pages of an area, by their numbers. */
interface Span {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/**
 * The buddy system of one range of memory. Pages are numbered from a multiple of the largest block at or below the base
 * of the range, so that a block of order k starts at a multiple of 2^k and its buddy differs in bit k alone.
 *
 * Each page handed over is either allocated or in exactly one free block. The bitmaps are as large as the range, but a
 * machine commits only what is touched: an unused terabyte costs nothing. Bit numbers are 32-bit, so an area has at most
 * 2^31 pages; the allocator cuts larger ranges.
 */
export class BuddyArea {
  /** The frame that has number 0. */
  readonly #firstFrame: number;
  /** What was handed over, ascending. */
  readonly #managed: Span[] = [];
  readonly #allocated: Int32Array;
  /** Free blocks by order; block n of order k starts at page n * 2^k. */
  readonly #free: IndexSet[] = [];

  constructor(base: PhysicalAddress, size: number) {
    this.#firstFrame = alignDown(pageFrame(base), MAX_ORDER_NR_PAGES);
    const pages = alignUp(Math.ceil((base + size) / PAGE_SIZE) - this.#firstFrame, MAX_ORDER_NR_PAGES);
    this.#allocated = new Int32Array(pages / 32);
    for (let order = 0; order <= MAX_PAGE_ORDER; order++) this.#free.push(new IndexSet(pages / 2 ** order));
  }

  /** Whether a block of exactly this order is free. */
  hasFree(order: number): boolean {
    return this.#free[order].size > 0;
  }

  freeBlocks(order: number): number {
    return this.#free[order].size;
  }

  /** Whether any of the pages was handed over. */
  manages(base: PhysicalAddress, pages: number): boolean {
    const start = this.#number(base);
    return this.#managed.some((span) => span.start < start + pages && start < span.end);
  }

  /** Hands pages over as free, none of which was before: see {@link manages}. */
  add(base: PhysicalAddress, pages: number): void {
    const start = this.#number(base);
    const span = { start, end: start + pages };
    const next = this.#managed.findIndex((other) => other.start > start);
    this.#managed.splice(next < 0 ? this.#managed.length : next, 0, span);
    this.#release(start, pages);
  }

  /** The lowest free block of order `from`, cut down to `order`. {@link hasFree} said that there is one. */
  take(from: number, order: number): PhysicalAddress {
    let block = this.#free[from].next();
    this.#free[from].delete(block);
    for (let upper = from; upper > order; upper--) {
      block *= 2;
      this.#free[upper - 1].add(block + 1);
    }
    return this.#allocate(block * 2 ** order, 2 ** order);
  }

  /**
   * The lowest run of `count` neighbouring free blocks of the largest order that begins at a multiple of `alignment`
   * blocks, or undefined.
   */
  takeRun(count: number, alignment: number): PhysicalAddress | undefined {
    const free = this.#free[MAX_PAGE_ORDER];
    const firstBlock = this.#firstFrame / MAX_ORDER_NR_PAGES;
    for (let block = free.next(); block >= 0; block = free.next(block)) {
      const start = alignUp(firstBlock + block, alignment) - firstBlock;
      let end = start;
      while (end < start + count && free.has(end)) end++;
      if (end === start + count) {
        for (let taken = start; taken < end; taken++) free.delete(taken);
        return this.#allocate(start * MAX_ORDER_NR_PAGES, count * MAX_ORDER_NR_PAGES);
      }
      block = end + 1;
    }
    return undefined;
  }

  /** The first of the pages that is not allocated, if there is one. */
  unallocated(base: PhysicalAddress, pages: number): PhysicalAddress | undefined {
    const start = this.#number(base);
    const wrong = findBit(this.#allocated, start, start + pages, false);
    return wrong < start + pages ? this.#address(wrong) : undefined;
  }

  /** Frees pages, all of which are allocated. */
  free(base: PhysicalAddress, pages: number): void {
    const start = this.#number(base);
    fillBits(this.#allocated, start, pages, false);
    this.#release(start, pages);
  }

  #allocate(start: number, pages: number): PhysicalAddress {
    fillBits(this.#allocated, start, pages, true);
    return this.#address(start);
  }

  /** Cuts pages into the largest aligned blocks and lets each merge with its buddies. */
  #release(start: number, pages: number): void {
    const end = start + pages;
    while (start < end) {
      const aligned = lowestBit(start | MAX_ORDER_NR_PAGES);
      const order = Math.min(aligned, 31 - Math.clz32(end - start)); // ilog2 of what is left
      this.#merge(start / 2 ** order, order);
      start += 2 ** order;
    }
  }

  #merge(block: number, order: number): void {
    while (order < MAX_PAGE_ORDER && this.#free[order].has(block ^ 1)) {
      this.#free[order].delete(block ^ 1);
      block >>>= 1;
      order++;
    }
    this.#free[order].add(block);
  }

  #number(address: PhysicalAddress): number {
    return pageFrame(address) - this.#firstFrame;
  }

  #address(number: number): PhysicalAddress {
    return frameAddress((this.#firstFrame + number) as PageFrame);
  }
}
