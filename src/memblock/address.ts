import { KhoError } from '../errors.js';

declare const physical: unique symbol;
declare const frame: unique symbol;

/**
 * A physical address of the modelled host, in bytes. A number of its own type, so that a file offset or a size cannot
 * pass for one. Always an integer in [0, {@link PHYS_ADDR_MAX}]; exact, because x86-64 and arm64 have at most 52 bits.
 */
export type PhysicalAddress = number & { readonly [physical]: true };

/** A page frame number: a physical address divided by {@link PAGE_SIZE}. */
export type PageFrame = number & { readonly [frame]: true };

/** log2 of the page size. The modelled architectures use 4 KiB pages. */
export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 2 ** PAGE_SHIFT;
/** The largest order of the buddy allocator: 2^10 pages, 4 MiB (include/linux/mmzone.h). */
export const MAX_PAGE_ORDER = 10;
export const MAX_ORDER_NR_PAGES = 2 ** MAX_PAGE_ORDER;

/** The end of the address space: 2^52, the architectural limit of x86-64 (and of arm64 with LPA). Exclusive as an end. */
export const PHYS_ADDR_MAX = 2 ** 52;

/** Brands a number as a physical address. KHO_EINVAL unless it is an integer in [0, {@link PHYS_ADDR_MAX}]. */
export function physicalAddress(value: number): PhysicalAddress {
  if (!Number.isInteger(value) || value < 0 || value > PHYS_ADDR_MAX) {
    throw new KhoError('KHO_EINVAL', `${value} is not a physical address (0 to 2^52)`);
  }
  return value as PhysicalAddress;
}

/** The address `bytes` after `base`; the caller knows that it stays in range. */
export function after(base: PhysicalAddress, bytes: number): PhysicalAddress {
  return (base + bytes) as PhysicalAddress;
}

/** The page frame that holds `address`. */
export function pageFrame(address: PhysicalAddress): PageFrame {
  return Math.floor(address / PAGE_SIZE) as PageFrame;
}

/** The first address of a page frame. */
export function frameAddress(pfn: PageFrame): PhysicalAddress {
  return (pfn * PAGE_SIZE) as PhysicalAddress;
}

/** `value` rounded down to a multiple of `alignment` (bytes; any positive number up to 2^53). */
export function alignDown(value: number, alignment: number): number {
  return value - (value % alignment);
}

/** `value` rounded up to a multiple of `alignment`. */
export function alignUp(value: number, alignment: number): number {
  const rest = value % alignment;
  return rest === 0 ? value : value + (alignment - rest);
}

/** The smallest order whose 2^order pages hold `bytes`, the kernel's get_order(). */
export function orderOf(bytes: number): number {
  let order = 0;
  for (let room = PAGE_SIZE; room < bytes; room *= 2) order++;
  return order;
}

/** An address as the kernel prints it: `0x` and lower-case hexadecimal. */
export function hex(value: number | bigint): string {
  if (typeof value === 'number' && !(Number.isInteger(value) && value >= 0)) return String(value); // no address at all
  return `0x${value.toString(16)}`;
}
