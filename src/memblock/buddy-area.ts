import { KhoError } from '../errors.js';
import {
  alignDown,
  alignUp,
  frameAddress,
  hex,
  MAX_ORDER_NR_PAGES,
  MAX_PAGE_ORDER,
  PAGE_SIZE,
  type PageFrame,
  type PhysicalAddress,
  pageFrame,
} from './address.js';
import { fillBits, findBit, lowestBit } from './bits.js';
import { IndexSet } from './index-set.js';
import type { MemoryRange } from './memory-map.js';

/** Bit numbers are 32-bit: 2^31 pages, 8 TiB in one range. */
const MAX_AREA_PAGES = 2 ** 31;

/**
 * The buddy system of one range of memory. Pages are numbered from a multiple of the largest block at or below the base
 * of the range, so that a block of order k starts at a multiple of 2^k and its buddy differs in bit k alone.
 *
 * Each page handed over is either allocated or in exactly one free block. The bitmaps are as large as the range, but a
 * machine commits only what is touched: an unused terabyte costs nothing.
 */
export class BuddyArea {
  readonly nid: number;
  /** The frame that has number 0. */
  readonly #firstFrame: number;
  /** Pages that were handed over. */
  readonly #managed: Int32Array;
  readonly #allocated: Int32Array;
  /** Free blocks by order; block n of order k starts at page n * 2^k. */
  readonly #free: IndexSet[] = [];

  constructor({ base, size, nid }: MemoryRange) {
    this.nid = nid;
    this.#firstFrame = alignDown(pageFrame(base), MAX_ORDER_NR_PAGES);
    const pages = alignUp(Math.ceil((base + size) / PAGE_SIZE) - this.#firstFrame, MAX_ORDER_NR_PAGES);
    if (pages > MAX_AREA_PAGES) {
      throw new KhoError('KHO_EINVAL', `the memory range at ${hex(base)} is above 8 TiB`, { address: base, size });
    }
    this.#managed = new Int32Array(pages / 32);
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

  /** Hands pages over as free. False, with nothing changed, if one of them was handed over before. */
  add(base: PhysicalAddress, pages: number): boolean {
    const start = this.#number(base);
    if (findBit(this.#managed, start, start + pages, true) < start + pages) return false;
    fillBits(this.#managed, start, pages, true);
    this.#release(start, pages);
    return true;
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

  /** The lowest run of `count` neighbouring free blocks of the largest order, or undefined. */
  takeRun(count: number): PhysicalAddress | undefined {
    const free = this.#free[MAX_PAGE_ORDER];
    let start = free.next();
    for (let block = start; block >= 0; block = free.next(block + 1)) {
      if (block > start && !free.has(block - 1)) start = block;
      if (block - start + 1 < count) continue;
      for (let taken = start; taken <= block; taken++) free.delete(taken);
      return this.#allocate(start * MAX_ORDER_NR_PAGES, count * MAX_ORDER_NR_PAGES);
    }
    return undefined;
  }

  /** Frees allocated pages. Otherwise nothing changes, and the first page that is not allocated is returned. */
  free(base: PhysicalAddress, pages: number): PhysicalAddress | undefined {
    const start = this.#number(base);
    const wrong = findBit(this.#allocated, start, start + pages, false);
    if (wrong < start + pages) return this.#address(wrong);
    fillBits(this.#allocated, start, pages, false);
    this.#release(start, pages);
    return undefined;
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
