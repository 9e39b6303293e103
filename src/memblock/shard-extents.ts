import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, type PhysicalAddress } from './address.js';
import { clearBit, fillBits, findBit, setBit, testBit } from './bits.js';
import {
  CACHE,
  CACHE_FIELDS,
  CACHE_UNITS,
  CACHED,
  DECLARED,
  EXTENT_COUNT,
  EXTENT_FIELDS,
  EXTENT_UNITS,
  EXTENTS,
  FIRST,
  FREE,
  HEADS,
  SEARCH_EXTENT,
  SEARCH_FROM,
  UNIT_ORDER,
  USED,
} from './extent-layout.js';
import type { Folio, PageRange } from './page-range.js';

/** A contiguous run of pages granted to a shard. */
export interface Extent {
  /** First address, page aligned. */
  readonly base: PhysicalAddress;
  readonly pages: number;
}

/** Orders of folios that extents can give, if they are large enough: up to 4 TiB. */
export const MAX_FOLIO_ORDER = 30;

/** One extent with its place in the table. */
interface Place {
  /** Word offset of the extent's fields. */
  readonly fields: number;
  /** Number of the first unit: its address by the size of a unit. */
  readonly first: number;
  readonly units: number;
  readonly used: Int32Array;
  readonly heads: Int32Array;
}

/**
 * What one shard may allocate from. First fit at the lowest address, inside one extent; a unit is the only alignment,
 * except for folios. A unit is a page, or in a grant of a higher order 2^order pages; allocations are whole units.
 *
 * Single units that were freed are kept at hand, up to {@link CACHE_UNITS}, and given out again before any other, the last
 * one first, as the kernel's per-CPU lists do. What needs more than one unit is searched for beside them; where that finds
 * nothing, they go back first.
 *
 * One thread at a time: see ExtentTable for the protocol.
 */
export class ShardExtents {
  /** Number of the shard in its table. */
  readonly shard: number;
  /** The extents in ascending order of address. */
  readonly ranges: readonly Extent[];
  /** Allocations are multiples of 2^order pages. */
  readonly order: number;
  readonly #words: Int32Array;
  readonly #record: number;
  /** Pages of a unit. */
  readonly #unit: number;
  readonly #extents: readonly Place[];

  /** Use {@link ExtentTable.extent}. `record` is the word offset of the shard's record. */
  constructor(words: Int32Array, record: number, shard: number) {
    this.shard = shard;
    this.#words = words;
    this.#record = record;
    this.order = words[record + UNIT_ORDER];
    this.#unit = 2 ** this.order;
    this.#extents = Array.from({ length: words[record + EXTENT_COUNT] }, (_, index) => {
      const fields = record + EXTENTS + index * EXTENT_FIELDS;
      const units = words[fields + EXTENT_UNITS];
      const bitmap = (start: number) => words.subarray(start, start + Math.ceil(units / 32));
      return {
        fields,
        first: words[fields + FIRST + 1] * 2 ** 32 + (words[fields + FIRST] >>> 0),
        units,
        used: bitmap(words[fields + USED]),
        heads: bitmap(words[fields + HEADS]),
      };
    });
    this.ranges = this.#extents.map(({ first, units }) => ({ base: this.#address(first), pages: units * this.#unit }));
  }

  /** Pages that the shard declared. */
  get declaredPages(): number {
    return this.#words[this.#record + DECLARED] * this.#unit;
  }

  get freePages(): number {
    return this.#words[this.#record + FREE] * this.#unit;
  }

  /**
   * `pages` contiguous pages. KHO_ENOMEM, with the shard, the pages asked for and the pages declared, when no extent
   * has as many in a row; KHO_EINVAL unless `pages` is a number of whole units, at least 1.
   */
  alloc(pages: number): PageRange {
    const units = pages / this.#unit;
    if (!Number.isSafeInteger(units) || units <= 0) {
      const form = this.order === 0 ? 'whole, at least 1' : `a multiple of ${this.#unit}, at least that`;
      throw new KhoError('KHO_EINVAL', `${pages} is not a number of pages (${form})`, { shard: this.shard });
    }
    return { address: this.#take(units, 1), pages };
  }

  /** 2^order pages at a multiple of their size. Errors as for {@link alloc}. */
  allocFolio(order: number): Folio {
    if (!Number.isInteger(order) || order < this.order || order > MAX_FOLIO_ORDER) {
      throw new KhoError('KHO_EINVAL', `${order} is not an order of a folio`, { shard: this.shard });
    }
    const units = 2 ** (order - this.order);
    return { address: this.#take(units, units), order };
  }

  /**
   * Gives one allocation back. KHO_EINVAL, with nothing changed, unless `allocation` is exactly one that
   * {@link alloc} or {@link allocFolio} returned and that was not freed since.
   */
  free(allocation: PageRange | Folio): void {
    const { address } = allocation;
    const pages = 'order' in allocation ? 2 ** allocation.order : allocation.pages;
    const number = address / (PAGE_SIZE * this.#unit);
    const index = this.#extentAt(number);
    const extent = this.#extents[index];
    const start = extent === undefined ? -1 : number - extent.first;
    if (extent === undefined || !(start < extent.units) || !Number.isInteger(number) || !testBit(extent.heads, start)) {
      throw this.#invalid(`no allocation starts at ${hex(address)}`, address);
    }
    if (this.#isCached(index, start)) throw this.#invalid(`no allocation starts at ${hex(address)}`, address);
    const units = this.#end(extent, start) - start;
    if (units * this.#unit !== pages) {
      throw this.#invalid(`the allocation at ${hex(address)} has ${units * this.#unit} pages, not ${pages}`, address);
    }
    this.#words[this.#record + FREE] += units;
    if (units > 1 || !this.#keep(index, start)) this.#clear(index, start, units);
  }

  /** Every allocation in ascending order of address. The shard must not allocate or free meanwhile. */
  *allocated(): Generator<PageRange, void> {
    for (const [index, extent] of this.#extents.entries()) {
      let start = findBit(extent.heads, 0, extent.units, true);
      while (start < extent.units) {
        if (!this.#isCached(index, start)) {
          yield {
            address: this.#address(extent.first + start),
            pages: (this.#end(extent, start) - start) * this.#unit,
          };
        }
        start = findBit(extent.heads, start + 1, extent.units, true);
      }
    }
  }

  /** Index of the last extent that begins at or before a unit, -1 if none does. */
  #extentAt(number: number): number {
    let low = 0;
    let high = this.#extents.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#extents[middle].first <= number) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Where the allocation that starts at unit `start` of the extent ends. */
  #end({ used, heads, units }: Place, start: number): number {
    return findBit(used, start, findBit(heads, start + 1, units, true), false);
  }

  #take(units: number, alignment: number): PhysicalAddress {
    const start = units === 1 ? this.#takeCached() : undefined;
    return start ?? this.#search(units, alignment) ?? this.#searchAll(units, alignment);
  }

  /** The unit freed last. */
  #takeCached(): PhysicalAddress | undefined {
    const cached = this.#words[this.#record + CACHED];
    if (cached === 0) return undefined;
    this.#words[this.#record + CACHED] = cached - 1;
    this.#words[this.#record + FREE]--;
    const slot = this.#record + CACHE + (cached - 1) * CACHE_FIELDS;
    return this.#address(this.#extents[this.#words[slot]].first + this.#words[slot + 1]);
  }

  /** Keeps a freed unit at hand; false if there are enough. */
  #keep(index: number, start: number): boolean {
    const cached = this.#words[this.#record + CACHED];
    if (cached === CACHE_UNITS) return false;
    const slot = this.#record + CACHE + cached * CACHE_FIELDS;
    this.#words[slot] = index;
    this.#words[slot + 1] = start;
    this.#words[this.#record + CACHED] = cached + 1;
    return true;
  }

  #isCached(index: number, start: number): boolean {
    const cache = this.#record + CACHE;
    const end = cache + this.#words[this.#record + CACHED] * CACHE_FIELDS;
    for (let slot = cache; slot < end; slot += CACHE_FIELDS) {
      if (this.#words[slot + 1] === start && this.#words[slot] === index) return true;
    }
    return false;
  }

  /** Makes units free to be found. */
  #clear(index: number, start: number, units: number): void {
    const extent = this.#extents[index];
    fillBits(extent.used, start, units, false);
    clearBit(extent.heads, start);
    const searchExtent = this.#record + SEARCH_EXTENT;
    this.#words[searchExtent] = Math.min(this.#words[searchExtent], index);
    const searchFrom = extent.fields + SEARCH_FROM;
    this.#words[searchFrom] = Math.min(this.#words[searchFrom], start);
  }

  /** Searches once more, with what was kept at hand. KHO_ENOMEM if that is not enough. */
  #searchAll(units: number, alignment: number): PhysicalAddress {
    const cache = this.#record + CACHE;
    for (let left = this.#words[this.#record + CACHED]; left > 0; left--) {
      const slot = cache + (left - 1) * CACHE_FIELDS;
      this.#clear(this.#words[slot], this.#words[slot + 1], 1);
    }
    this.#words[this.#record + CACHED] = 0;
    const address = this.#search(units, alignment);
    if (address !== undefined) return address;
    const pages = units * this.#unit;
    const aligned = alignment === 1 ? '' : ' at a multiple of that';
    throw new KhoError(
      'KHO_ENOMEM',
      `shard ${this.shard} asked for ${pages} contiguous pages${aligned}, which its extents do not have: ` +
        `${this.freePages} of the ${this.declaredPages} pages that it declared are free`,
      { shard: this.shard, size: pages * PAGE_SIZE },
    );
  }

  /** First fit. */
  #search(units: number, alignment: number): PhysicalAddress | undefined {
    const searchExtent = this.#record + SEARCH_EXTENT;
    for (let index = this.#words[searchExtent]; index < this.#extents.length; index++) {
      const extent = this.#extents[index];
      const { used, heads, first, fields } = extent;
      const firstFree = findBit(used, this.#words[fields + SEARCH_FROM], extent.units, false);
      // These spare the next search the full words, and the full extents, before the first free unit.
      this.#words[fields + SEARCH_FROM] = firstFree;
      if (firstFree === extent.units && this.#words[searchExtent] === index) this.#words[searchExtent] = index + 1;
      for (let start = firstFree; ; ) {
        const past = (first + start) % alignment;
        if (past !== 0) start += alignment - past;
        if (start + units > extent.units) break;
        const taken = findBit(used, start, start + units, true);
        if (taken === start + units) {
          fillBits(used, start, units, true);
          setBit(heads, start);
          this.#words[this.#record + FREE] -= units;
          return this.#address(first + start);
        }
        start = findBit(used, taken, extent.units, false);
      }
    }
    return undefined;
  }

  #address(number: number): PhysicalAddress {
    return (number * this.#unit * PAGE_SIZE) as PhysicalAddress;
  }

  #invalid(text: string, address: number): KhoError {
    return new KhoError('KHO_EINVAL', `shard ${this.shard}: ${text}`, { shard: this.shard, address });
  }
}
