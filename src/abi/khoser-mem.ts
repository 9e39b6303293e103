import { KhoError } from '../errors.js';
import {
  type Folio,
  PAGE_SHIFT,
  PAGE_SIZE,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  type PhysicalMemory,
  setBit,
} from '../memblock/index.js';

/**
 * Preserved memory as a chain of chunks that point to bitmaps: the patch series v5 of March 2025, and kho-v1 as released
 * (Linux 6.16 to 7.0). All integers are native.
 *
 * ```text
 *   khoser_mem_chunk: a page          bitmap of 512 bytes, or of a page
 *    0 u64 next ──▶ next chunk, 0 = last   bit i: the folio of this order at
 *    8 u32 order                           phys_start + (i << (order + 12))
 *   12 u32 num_elms, at most 255
 *   16 u64 phys_start 0
 *   24 u64 bitmap 0 ──────────────────▶
 *   32 u64 phys_start 1 …
 * ```
 *
 * A chunk has one order; orders ascend along the chain, and addresses inside one order, as xa_for_each() meets them in
 * kho_mem_serialize(). Chunks and bitmaps are not preserved themselves: the next kernel allocates from scratch alone until it
 * has read them. The kernel keeps a bitmap whose bits were all taken back, and lists it; here only those with a bit are.
 */

/**
 * Bits of one bitmap: 4096 in series v5, in Linux 6.16 and up to 6.17.8; 32768, a page of them, since 6.17.9 and 6.18.
 * Nothing in memory tells which.
 */
export type KhoserBitmapBits = 4096 | 32768;

export const KHOSER_NEXT_AT = 0;
export const KHOSER_ORDER_AT = 8;
export const KHOSER_COUNT_AT = 12;
export const KHOSER_ELEMENTS_AT = 16;
export const KHOSER_ELEMENT_SIZE = 16;
/** Bitmaps that one chunk lists. */
export const KHOSER_CHUNK_ELEMENTS = (PAGE_SIZE - KHOSER_ELEMENTS_AT) / KHOSER_ELEMENT_SIZE;

/** A folio of this order would be all of the address space. */
export const KHOSER_ORDER_MAX = Math.log2(PHYS_ADDR_MAX) - PAGE_SHIFT;

/** A native 64-bit word; inexact from 2^53 on, where it is no address whatever its last bits. */
export function khoserWord(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** Bytes of memory that one bitmap stands for. */
export function khoserWindow(order: number, bits: KhoserBitmapBits): number {
  return bits * 2 ** (order + PAGE_SHIFT);
}

/**
 * The bitmaps that some memory may need, counted before it is known what of it will be preserved: so that the pages of
 * the list can be reserved outside of the blackout.
 */
export class KhoserBound {
  readonly #bits: KhoserBitmapBits;
  /** By order: the numbers of the bitmaps. */
  readonly #windows = new Map<number, Set<number>>();

  constructor(bits: KhoserBitmapBits) {
    this.#bits = bits;
  }

  /** Folios of any order from `minOrder` up to `maxOrder` inside of a range of pages. */
  addRange(address: PhysicalAddress, pages: number, maxOrder: number, minOrder = 0): void {
    for (let order = minOrder; order <= maxOrder && 2 ** order <= pages; order++) {
      const size = khoserWindow(order, this.#bits);
      const last = Math.floor((address + pages * PAGE_SIZE - 1) / size);
      for (let window = Math.floor(address / size); window <= last; window++) this.#add(order, window);
    }
  }

  addFolio({ address, order }: Folio): void {
    this.#add(order, Math.floor(address / khoserWindow(order, this.#bits)));
  }

  /** Pages that the list takes at most. */
  get pages(): number {
    return listPages(
      [...this.#windows.values()].map(({ size }) => size),
      this.#bits,
    ).total;
  }

  #add(order: number, window: number): void {
    let windows = this.#windows.get(order);
    if (windows === undefined) {
      windows = new Set();
      this.#windows.set(order, windows);
    }
    windows.add(window);
  }
}

/** A list that was written. */
export interface KhoserList {
  /** The first chunk; undefined if nothing is preserved. */
  readonly first: PhysicalAddress | undefined;
  /** The pages that it took: the first ones of those that were there for it. */
  readonly pages: readonly PhysicalAddress[];
}

/**
 * Writes the list of `folios`, in any order, each once, into `pages`: first the chunks, then the bitmaps. The bytes depend
 * on the folios alone. KHO_ENOMEM if there are too few pages ({@link KhoserBound}); then nothing is written.
 */
export function writeKhoserMem(
  memory: PhysicalMemory,
  folios: Iterable<Folio>,
  pages: readonly PhysicalAddress[],
  bits: KhoserBitmapBits,
): KhoserList {
  const orders = [...bitmapsOf(folios, bits)].sort(([a], [b]) => a - b);
  const needed = listPages(
    orders.map(([, bitmaps]) => bitmaps.size),
    bits,
  );
  if (needed.total > pages.length) {
    const text = `the list of preserved memory takes ${needed.total} pages, and ${pages.length} are there for it`;
    throw new KhoError('KHO_ENOMEM', text, { size: needed.total * PAGE_SIZE });
  }
  const bitmapSize = bits / 8;
  const perPage = PAGE_SIZE / bitmapSize;
  let bitmapCount = 0;
  let chunkCount = 0;
  for (const [order, bitmaps] of orders) {
    const windows = [...bitmaps.keys()].sort((a, b) => a - b);
    for (let from = 0; from < windows.length; from += KHOSER_CHUNK_ELEMENTS) {
      const listed = windows.slice(from, from + KHOSER_CHUNK_ELEMENTS);
      const chunk = new DataView(new ArrayBuffer(PAGE_SIZE));
      const next = chunkCount + 1 < needed.chunks ? pages[chunkCount + 1] : 0;
      chunk.setBigUint64(KHOSER_NEXT_AT, BigInt(next), true);
      chunk.setUint32(KHOSER_ORDER_AT, order, true);
      chunk.setUint32(KHOSER_COUNT_AT, listed.length, true);
      for (const [index, window] of listed.entries()) {
        const page = pages[needed.chunks + Math.floor(bitmapCount / perPage)];
        const address = (page + (bitmapCount % perPage) * bitmapSize) as PhysicalAddress;
        bitmapCount++;
        const words = bitmaps.get(window) ?? new Int32Array(bits / 32);
        memory.write(address, new Uint8Array(words.buffer));
        const at = KHOSER_ELEMENTS_AT + index * KHOSER_ELEMENT_SIZE;
        chunk.setBigUint64(at, BigInt(window * khoserWindow(order, bits)), true);
        chunk.setBigUint64(at + 8, BigInt(address), true);
      }
      memory.write(pages[chunkCount++], new Uint8Array(chunk.buffer));
    }
  }
  return { first: needed.total === 0 ? undefined : pages[0], pages: pages.slice(0, needed.total) };
}

/** By order, and by number of the bitmap: the bits as words, lowest first, as the kernel's bitmaps lie in memory. */
function bitmapsOf(folios: Iterable<Folio>, bits: KhoserBitmapBits): Map<number, Map<number, Int32Array<ArrayBuffer>>> {
  const orders = new Map<number, Map<number, Int32Array<ArrayBuffer>>>();
  for (const { address, order } of folios) {
    const number = address / (PAGE_SIZE * 2 ** order);
    const window = Math.floor(number / bits);
    let bitmaps = orders.get(order);
    if (bitmaps === undefined) {
      bitmaps = new Map();
      orders.set(order, bitmaps);
    }
    let words = bitmaps.get(window);
    if (words === undefined) {
      words = new Int32Array(bits / 32);
      bitmaps.set(window, words);
    }
    setBit(words, number % bits);
  }
  return orders;
}

/** Pages of a list, from the number of bitmaps of each order. */
function listPages(bitmaps: readonly number[], bits: KhoserBitmapBits): { chunks: number; total: number } {
  const chunks = bitmaps.reduce((sum, count) => sum + Math.ceil(count / KHOSER_CHUNK_ELEMENTS), 0);
  const all = bitmaps.reduce((sum, count) => sum + count, 0);
  return { chunks, total: chunks + Math.ceil((all * bits) / 8 / PAGE_SIZE) };
}
