import { KhoError } from '../errors.js';
import { PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
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
import type { ReadableMemory } from './structure.js';

/**
 * Of which form a list of kho-v1 is, as far as it can be told: nothing in memory says it, and the kernels of either form
 * read the other's list wrongly without a word. 4096 is certain, for a sound list: an element lies where bitmaps of a page
 * never do, because the bitmap is not aligned to a page or its memory not to 128 MiB << order. Any other list is taken for
 * 32768 bits. Were it of 4096 all the same, every bitmap of it would lie at the start of a page and stand for the first part
 * of such a window; read with 32768 bits, nothing of what it marks is lost then, but there may be more.
 *
 * Damage does not throw here: the walk that follows finds it.
 */
export function khoserBitmapBits(memory: ReadableMemory, first: PhysicalAddress): KhoserBitmapBits {
  const met = new Set<number>();
  for (let at: number = first; at !== 0 && at < PHYS_ADDR_MAX && at % PAGE_SIZE === 0 && !met.has(at); ) {
    met.add(at);
    const chunk = chunkAt(memory, physicalAddress(at));
    if (chunk === undefined) break;
    if (hasSmallBitmap(chunk)) return 4096;
    at = khoserWord(chunk, KHOSER_NEXT_AT);
  }
  return 32768;
}

/** Whether an element can be one of a bitmap of 512 bytes, and of no larger one. */
function hasSmallBitmap(chunk: DataView): boolean {
  const order = chunk.getUint32(KHOSER_ORDER_AT, true);
  const count = chunk.getUint32(KHOSER_COUNT_AT, true);
  if (order > KHOSER_ORDER_MAX || count > KHOSER_CHUNK_ELEMENTS) return false;
  for (let index = 0; index < count; index++) {
    const at = KHOSER_ELEMENTS_AT + index * KHOSER_ELEMENT_SIZE;
    const start = khoserWord(chunk, at);
    const bitmap = khoserWord(chunk, at + 8);
    if (start % khoserWindow(order, 4096) !== 0 || bitmap % (4096 / 8) !== 0) continue; // neither: damage
    if (start % khoserWindow(order, 32768) !== 0 || bitmap % (32768 / 8) !== 0) return true;
  }
  return false;
}

function chunkAt(memory: ReadableMemory, at: PhysicalAddress): DataView | undefined {
  try {
    const bytes = memory.read(at, PAGE_SIZE);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (error) {
    if (error instanceof KhoError && error.code === 'KHO_EFAULT') return undefined;
    throw error;
  }
}
