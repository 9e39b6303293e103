import { KhoError } from '../errors.js';
import {
  alignDown,
  type FolioVisitor,
  hex,
  lowestBit,
  MemoryStretch,
  PAGE_SIZE,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
  type RadixWalkOptions,
} from '../memblock/index.js';
import {
  KHOSER_CHUNK_ELEMENTS,
  KHOSER_COUNT_AT,
  KHOSER_ELEMENT_SIZE,
  KHOSER_ELEMENTS_AT,
  KHOSER_NEXT_AT,
  KHOSER_ORDER_AT,
  KHOSER_ORDER_MAX,
  type KhoserBitmapBits,
  khoserWindow,
  khoserWord,
} from './khoser-mem.js';

/**
 * Visits every preserved folio of the chain that begins at `first`: chunk by chunk, that is ascending orders, and
 * ascending addresses inside one order, if the list is as it should be. Returns the pages of the list, in the order in
 * which they were met.
 *
 * The bytes are trusted in nothing. KHO_ETRACKER, with the address of the entry, for a chunk or bitmap that is not
 * aligned, cannot be read or was met before; for more than 255 elements, an order above 40, a phys_start that is not a
 * multiple of what its bitmap stands for or that an element of this order had before, and for a folio outside of memory.
 * So the work is bounded by the memory map. The visitor has then seen what came before. With `onDamage` what is wrong is
 * left out, and the walk goes on behind it.
 */
export function walkKhoserMem(
  memory: PhysicalMemory,
  first: PhysicalAddress,
  bits: KhoserBitmapBits,
  visit: FolioVisitor,
  options: RadixWalkOptions = {},
): PhysicalAddress[] {
  return new KhoserWalk(memory, bits, visit, options).walk(first);
}

/** One element of a chunk: where it stands, and what it says. */
interface Element {
  readonly at: PhysicalAddress;
  readonly order: number;
  readonly start: number;
  readonly bitmap: number;
}

class KhoserWalk {
  readonly #memory: PhysicalMemory;
  readonly #bits: KhoserBitmapBits;
  readonly #visit: FolioVisitor;
  readonly #onDamage: (error: KhoError) => void;
  readonly #stretch: MemoryStretch;
  /** What a page was met as. */
  readonly #pages = new Map<PhysicalAddress, 'chunk' | 'bitmaps'>();
  readonly #bitmaps = new Set<number>();
  /** By order: the starts of its bitmaps. */
  readonly #starts = new Map<number, Set<number>>();

  constructor(
    memory: PhysicalMemory,
    bits: KhoserBitmapBits,
    visit: FolioVisitor,
    { onDamage = raise }: RadixWalkOptions,
  ) {
    this.#memory = memory;
    this.#bits = bits;
    this.#visit = visit;
    this.#onDamage = onDamage;
    this.#stretch = new MemoryStretch(memory.ranges);
  }

  walk(first: PhysicalAddress): PhysicalAddress[] {
    let where = 'the list';
    let entry = first;
    for (let at: number = first; at !== 0; ) {
      const chunk = this.#chunk(at, where, entry);
      if (chunk === undefined) break;
      this.#elements(chunk, physicalAddress(at));
      where = `next of the chunk at ${hex(at)}`;
      entry = physicalAddress(at);
      at = khoserWord(chunk, KHOSER_NEXT_AT);
    }
    return [...this.#pages.keys()];
  }

  #chunk(at: number, where: string, entry: PhysicalAddress): DataView | undefined {
    const met = this.#pages.get(at as PhysicalAddress);
    if (at >= PHYS_ADDR_MAX || at % PAGE_SIZE !== 0) {
      return this.#damaged(`${where} is ${hex(at)}, which is not the address of a page`, entry);
    }
    if (met !== undefined) {
      const what = met === 'chunk' ? 'a chunk' : 'a page of bitmaps';
      return this.#damaged(`${where} is ${hex(at)}, which was met before, as ${what}`, entry);
    }
    const bytes = this.#read(at, PAGE_SIZE, where, entry);
    if (bytes !== undefined) this.#pages.set(physicalAddress(at), 'chunk');
    return bytes;
  }

  #elements(chunk: DataView, at: PhysicalAddress): void {
    const order = chunk.getUint32(KHOSER_ORDER_AT, true);
    const count = chunk.getUint32(KHOSER_COUNT_AT, true);
    if (order > KHOSER_ORDER_MAX) {
      this.#damaged(`the chunk at ${hex(at)} is of order ${order}, above ${KHOSER_ORDER_MAX}`, at);
      return;
    }
    if (count > KHOSER_CHUNK_ELEMENTS) {
      this.#damaged(`the chunk at ${hex(at)} has ${count} elements, more than ${KHOSER_CHUNK_ELEMENTS}`, at);
      return;
    }
    for (let index = 0; index < count; index++) {
      const offset = KHOSER_ELEMENTS_AT + index * KHOSER_ELEMENT_SIZE;
      const start = khoserWord(chunk, offset);
      this.#element({ at: physicalAddress(at + offset), order, start, bitmap: khoserWord(chunk, offset + 8) });
    }
  }

  #element({ at, order, start, bitmap }: Element): void {
    const where = `the element at ${hex(at)}`;
    if (start >= PHYS_ADDR_MAX || start % khoserWindow(order, this.#bits) !== 0) {
      this.#damaged(`${where} begins at ${hex(start)}, where no bitmap of order ${order} begins`, at);
      return;
    }
    const starts = this.#starts.get(order) ?? new Set();
    this.#starts.set(order, starts);
    if (starts.has(start)) {
      this.#damaged(`${where} is the second one of order ${order} that begins at ${hex(start)}`, at);
      return;
    }
    starts.add(start);
    const size = this.#bits / 8;
    const page = alignDown(bitmap, PAGE_SIZE) as PhysicalAddress;
    if (bitmap === 0 || bitmap >= PHYS_ADDR_MAX || bitmap % size !== 0) {
      this.#damaged(`${where} points to ${hex(bitmap)}, which is not the address of a bitmap`, at);
      return;
    }
    if (this.#bitmaps.has(bitmap) || this.#pages.get(page) === 'chunk') {
      const what = this.#bitmaps.has(bitmap) ? 'a bitmap' : 'a chunk';
      this.#damaged(`${where} points to ${hex(bitmap)}, which was met before, as ${what}`, at);
      return;
    }
    const bytes = this.#read(bitmap, size, where, at);
    if (bytes === undefined) return;
    this.#bitmaps.add(bitmap);
    this.#pages.set(page, 'bitmaps');
    this.#folios(bytes, start, order, bitmap);
  }

  #folios(bitmap: DataView, start: number, order: number, at: number): void {
    const size = PAGE_SIZE * 2 ** order;
    for (let offset = 0; offset < bitmap.byteLength; offset += 4) {
      for (let bits = bitmap.getInt32(offset, true); bits !== 0; bits &= bits - 1) {
        const address = start + (offset * 8 + lowestBit(bits)) * size;
        if (this.#stretch.holds(address, size)) {
          this.#visit(physicalAddress(address), order);
          continue;
        }
        const text = `the bitmap at ${hex(at)} marks the folio of order ${order} at ${hex(address)}, not inside memory`;
        this.#damaged(text, physicalAddress(at + offset));
      }
    }
  }

  #read(at: number, size: number, where: string, entry: PhysicalAddress): DataView | undefined {
    try {
      const bytes = this.#memory.read(physicalAddress(at), size);
      return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    } catch (cause) {
      if (!(cause instanceof KhoError) || cause.code !== 'KHO_EFAULT') throw cause;
      return this.#damaged(`${where} points to ${hex(at)}, which cannot be read: ${cause.message}`, entry, cause);
    }
  }

  #damaged(text: string, address: PhysicalAddress, cause?: KhoError): undefined {
    const options = cause === undefined ? undefined : { cause };
    this.#onDamage(new KhoError('KHO_ETRACKER', text, { address }, options));
  }
}

function raise(error: KhoError): never {
  throw error;
}
