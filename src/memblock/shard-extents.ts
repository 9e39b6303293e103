import { KhoError } from '../errors.js';
import { frameAddress, hex, PAGE_SIZE, type PageFrame, type PhysicalAddress } from './address.js';
import { clearBit, fillBits, findBit, setBit, testBit } from './bits.js';
import {
  DECLARED_PAGES,
  EXTENT_COUNT,
  EXTENT_FIELDS,
  EXTENT_PAGES,
  EXTENTS,
  FRAME,
  FREE_PAGES,
  HEADS,
  SEARCH_FROM,
  USED,
} from './extent-layout.js';
import type { Folio, PageRange } from './page-range.js';

/** A contiguous run of pages granted to a shard. */
export interface Extent {
  /** First address, page aligned. */
  readonly base: PhysicalAddress;
  readonly pages: number;
}

/** One extent with its place in the table. */
interface Place {
  /** Word offset of the extent's fields. */
  readonly fields: number;
  readonly firstFrame: number;
  readonly pages: number;
  readonly used: Int32Array;
  readonly heads: Int32Array;
}

/**
 * What one shard may allocate from. First fit at the lowest address, inside one extent; a page is the only alignment,
 * except for folios. One thread at a time: see ExtentTable for the protocol.
 */
export class ShardExtents {
  /** Number of the shard in its table. */
  readonly shard: number;
  /** The extents in ascending order of address. */
  readonly ranges: readonly Extent[];
  readonly #words: Int32Array;
  readonly #record: number;
  readonly #extents: readonly Place[];

  /** Use {@link ExtentTable.extent}. `record` is the word offset of the shard's record. */
  constructor(words: Int32Array, record: number, shard: number) {
    this.shard = shard;
    this.#words = words;
    this.#record = record;
    this.#extents = Array.from({ length: words[record + EXTENT_COUNT] }, (_, index) => {
      const fields = record + EXTENTS + index * EXTENT_FIELDS;
      const pages = words[fields + EXTENT_PAGES];
      const bitmap = (start: number) => words.subarray(start, start + Math.ceil(pages / 32));
      return {
        fields,
        firstFrame: words[fields + FRAME + 1] * 2 ** 32 + (words[fields + FRAME] >>> 0),
        pages,
        used: bitmap(words[fields + USED]),
        heads: bitmap(words[fields + HEADS]),
      };
    });
    this.ranges = this.#extents.map(({ firstFrame, pages }) => ({
      base: frameAddress(firstFrame as PageFrame),
      pages,
    }));
  }

  /** Pages that the shard declared. */
  get declaredPages(): number {
    return this.#words[this.#record + DECLARED_PAGES];
  }

  get freePages(): number {
    return this.#words[this.#record + FREE_PAGES];
  }

  /**
   * `pages` contiguous pages. KHO_ENOMEM, with the shard, the pages asked for and the pages declared, when no extent
   * has as many in a row; KHO_EINVAL unless `pages` is a whole number, at least 1.
   */
  alloc(pages: number): PageRange {
    if (!Number.isSafeInteger(pages) || pages <= 0) {
      throw new KhoError('KHO_EINVAL', `${pages} is not a number of pages (whole, at least 1)`, { shard: this.shard });
    }
    return { address: this.#take(pages, 1), pages };
  }

  /** 2^order pages at a multiple of their size. Errors as for {@link alloc}. */
  allocFolio(order: number): Folio {
    if (!Number.isInteger(order) || order < 0 || order > 30) {
      throw new KhoError('KHO_EINVAL', `${order} is not an order of a folio`, { shard: this.shard });
    }
    return { address: this.#take(2 ** order, 2 ** order), order };
  }

  /**
   * Gives one allocation back. KHO_EINVAL, with nothing changed, unless `allocation` is exactly one that
   * {@link alloc} or {@link allocFolio} returned and that was not freed since.
   */
  free(allocation: PageRange | Folio): void {
    const { address } = allocation;
    const pages = 'order' in allocation ? 2 ** allocation.order : allocation.pages;
    const frame = address / PAGE_SIZE;
    const extent = this.#extents.find(
      ({ firstFrame, pages: size }) => frame >= firstFrame && frame < firstFrame + size,
    );
    const start = extent === undefined ? -1 : frame - extent.firstFrame;
    if (extent === undefined || !Number.isInteger(frame) || !testBit(extent.heads, start)) {
      throw this.#invalid(`no allocation starts at ${hex(address)}`, address);
    }
    const length = this.#end(extent, start) - start;
    if (length !== pages) {
      throw this.#invalid(`the allocation at ${hex(address)} has ${length} pages, not ${pages}`, address);
    }
    fillBits(extent.used, start, pages, false);
    clearBit(extent.heads, start);
    this.#words[this.#record + FREE_PAGES] += pages;
    const searchFrom = extent.fields + SEARCH_FROM;
    this.#words[searchFrom] = Math.min(this.#words[searchFrom], start);
  }

  /** Every allocation in ascending order of address. The shard must not allocate or free meanwhile. */
  *allocated(): Generator<PageRange, void> {
    for (const extent of this.#extents) {
      let start = findBit(extent.heads, 0, extent.pages, true);
      while (start < extent.pages) {
        yield {
          address: frameAddress((extent.firstFrame + start) as PageFrame),
          pages: this.#end(extent, start) - start,
        };
        start = findBit(extent.heads, start + 1, extent.pages, true);
      }
    }
  }

  /** Where the allocation that starts at page `start` of the extent ends. */
  #end({ used, heads, pages }: Place, start: number): number {
    return findBit(used, start, findBit(heads, start + 1, pages, true), false);
  }

  #take(pages: number, alignment: number): PhysicalAddress {
    for (const extent of this.#extents) {
      const { used, heads, firstFrame, fields } = extent;
      const firstFree = findBit(used, this.#words[fields + SEARCH_FROM], extent.pages, false);
      this.#words[fields + SEARCH_FROM] = firstFree; // spares the next search the full words before it
      for (let start = firstFree; ; ) {
        const past = (firstFrame + start) % alignment;
        if (past !== 0) start += alignment - past;
        if (start + pages > extent.pages) break;
        const taken = findBit(used, start, start + pages, true);
        if (taken === start + pages) {
          fillBits(used, start, pages, true);
          setBit(heads, start);
          this.#words[this.#record + FREE_PAGES] -= pages;
          return frameAddress((firstFrame + start) as PageFrame);
        }
        start = findBit(used, taken, extent.pages, false);
      }
    }
    const aligned = alignment === 1 ? '' : ' at a multiple of that';
    throw new KhoError(
      'KHO_ENOMEM',
      `shard ${this.shard} asked for ${pages} contiguous pages${aligned}, which its extents do not have: ` +
        `${this.freePages} of the ${this.declaredPages} pages that it declared are free`,
      { shard: this.shard, size: pages * PAGE_SIZE },
    );
  }

  #invalid(text: string, address: number): KhoError {
    return new KhoError('KHO_EINVAL', `shard ${this.shard}: ${text}`, { shard: this.shard, address });
  }
}
