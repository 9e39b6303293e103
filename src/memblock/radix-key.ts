import { KhoError } from '../errors.js';
import { hex, PAGE_SHIFT, PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { Folio } from './page-range.js';

/**
 * The keys of the kho-v4 radix tree (include/linux/kho/abi/kexec_handover.h, Linux 7.2). A key names a folio: its frame
 * number in units of its own size, below one bit whose position tells the order.
 *
 * ```text
 *             52         52-order                             0
 *   order 0    1 | frame number                                |
 *   order k    0 ... 0 | 1 | frame number >> k                 |
 *
 *   a key:    | level 5 | level 4 | level 3 | level 2 | level 1 |      leaf      |
 *     bits     59     51 50     42 41     33 32     24 23     15 14             0
 * ```
 *
 * Ascending keys are descending orders, and ascending addresses inside one order. Keys have 53 bits, as many as a
 * JavaScript number holds exactly: there is no need for BigInt or for pairs of words.
 */

/** Position of the bit that says "order 0"; order k has the bit at this position less k. */
export const ORDER_0_LOG2 = 64 - PAGE_SHIFT;
/** log2 of the entries in a table page: one u64 each. */
export const TABLE_SIZE_LOG2 = PAGE_SHIFT - 3;
export const TABLE_SIZE = 2 ** TABLE_SIZE_LOG2;
/** log2 of the bits in a leaf page. */
export const LEAF_BITS_LOG2 = PAGE_SHIFT + 3;
export const LEAF_BITS = 2 ** LEAF_BITS_LOG2;
/** Levels of pages from the root to the leaf, both included: enough tables for the key above the leaf's bits. */
export const TREE_DEPTH = Math.ceil((ORDER_0_LOG2 - LEAF_BITS_LOG2 + 1) / TABLE_SIZE_LOG2) + 1;
/** The level of the root; tables count down to level 1, the leaf is level 0. */
export const ROOT_LEVEL = TREE_DEPTH - 1;
/** Every key is below 2^53. */
export const KEY_LIMIT = 2 ** (ORDER_0_LOG2 + 1);

/** Size in bytes of a folio, by order. (Typed arrays, because they hold doubles without boxes.) */
export const FOLIO_SIZE = Float64Array.from({ length: ORDER_0_LOG2 + 1 }, (_, order) => PAGE_SIZE * 2 ** order);
/** The inverse of {@link FOLIO_SIZE}: powers of two, too. */
const FOLIOS_PER_BYTE = FOLIO_SIZE.map((size) => 1 / size);
/** The bit of the key that tells the order, by order. */
export const ORDER_BIT = Float64Array.from({ length: ORDER_0_LOG2 + 1 }, (_, order) => 2 ** (ORDER_0_LOG2 - order));

// Not exported: V8 takes a module's own constants into the code, but loads one that is exported anew each time.
const BIT_IN_LEAF = LEAF_BITS - 1;
const NUMBER_LIMIT = ORDER_BIT;
/** The bit of the key that tells the order, where it is one of the leaf's own: of orders above 37. Others have 0. */
const ORDER_BIT_IN_LEAF = Int32Array.from(ORDER_BIT, (bit) => bit % LEAF_BITS);

/**
 * The number of a folio among those of its order: its address in units of its size. KHO_EINVAL unless `order` is in 0 to 52
 * and `address` a multiple of the folio's size.
 */
export function folioNumber(address: PhysicalAddress, order: number): number {
  const number = address * FOLIOS_PER_BYTE[order]; // exact: a power of two
  // One conversion tells whether it is an integer in [0, 2^32), which is up to 16 TiB; NaN is none.
  if (number >>> 0 === number ? number < NUMBER_LIMIT[order] : isFarNumber(number, order)) return number;
  throw notAFolio(address, order);
}

function isFarNumber(number: number, order: number): boolean {
  return number >= 0 && Math.floor(number) === number && number < ORDER_BIT[order];
}

/** The bit of its leaf that marks folio number `number` of its order. */
export function leafBit(number: number, order: number): number {
  return (number & BIT_IN_LEAF) | ORDER_BIT_IN_LEAF[order];
}

/** The key of a folio. KHO_EINVAL unless `order` is in 0 to 52 and `address` a multiple of the folio's size. */
export function radixKey(address: PhysicalAddress, order: number): number {
  return ORDER_BIT[order] + folioNumber(address, order);
}

/** Apart from {@link folioNumber}, which stays small enough to be inlined. */
function notAFolio(address: PhysicalAddress, order: number): KhoError {
  const size = FOLIO_SIZE[order];
  const text =
    size === undefined
      ? `${order} is not the order of a folio (0 to ${ORDER_0_LOG2})`
      : `${hex(address)} is not the address of a folio of order ${order}: it must be a multiple of ${hex(size)}`;
  return new KhoError('KHO_EINVAL', text, { address });
}

/** The same key as the kernel's u64. */
export function radixKeyBigInt(address: PhysicalAddress, order: number): bigint {
  return BigInt(radixKey(address, order));
}

/** The folio that a key names. KHO_EINVAL if the key has no valid order (0, or 2^53 and above). */
export function decodeRadixKey(key: number): Folio {
  if (!Number.isInteger(key) || key <= 0 || key >= KEY_LIMIT) {
    throw new KhoError('KHO_EINVAL', `${key} is not a key of the radix tree (1 to 2^53 - 1)`);
  }
  const order = keyOrder(key);
  return { address: ((key - ORDER_BIT[order]) * FOLIO_SIZE[order]) as PhysicalAddress, order };
}

/** The order that a key in [1, 2^53) tells. */
export function keyOrder(key: number): number {
  const high = Math.floor(key / 2 ** 32);
  const topBit = high > 0 ? 63 - Math.clz32(high) : 31 - Math.clz32(key);
  return ORDER_0_LOG2 - topBit;
}

/** The leaf that holds a key: the key above the leaf's own bits. */
export function leafOfKey(key: number): number {
  return Math.floor(key / LEAF_BITS);
}

/** Index of the entry that leads to leaf `leaf` in the table at `level` (ROOT_LEVEL to 1). */
export function tableIndex(leaf: number, level: number): number {
  return Math.floor(leaf / TABLE_SIZE ** (level - 1)) % TABLE_SIZE;
}
