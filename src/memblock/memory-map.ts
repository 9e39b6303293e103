import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress } from './address.js';

/** A stretch of the host's memory on one NUMA node. */
export interface MemoryRange {
  /** First address. */
  readonly base: PhysicalAddress;
  /** Length in bytes. */
  readonly size: number;
  /** NUMA node. */
  readonly nid: number;
  /** False for memory that is tracked but has no bytes here, such as the guest RAM of a host far larger than this machine. */
  readonly backed: boolean;
}

/** The part of an access that falls into one range. */
export interface Piece<T> {
  readonly range: T;
  /** Byte offset of the part inside {@link range}. */
  readonly offset: number;
  /** Length of the part in bytes. */
  readonly length: number;
}

/**
 * Finds the range that holds an address: the range of the last hit first, then binary search.
 * The ranges are sorted by address; holes between them are outside of memory.
 */
export class MemoryMap<T extends MemoryRange> {
  /** The ranges in ascending order of address. */
  readonly ranges: readonly T[];
  #last: T | undefined;

  /** KHO_EINVAL, with the address, if a range is empty or malformed or if two overlap. */
  constructor(ranges: Iterable<T>) {
    this.ranges = [...ranges].sort((a, b) => a.base - b.base);
    let end = 0;
    let before = 0;
    for (const { base, size, nid } of this.ranges) {
      if (
        !Number.isSafeInteger(base) ||
        !Number.isSafeInteger(size) ||
        base < 0 ||
        size <= 0 ||
        !Number.isSafeInteger(base + size)
      ) {
        const text = `the memory range at ${hex(base)} with ${size} bytes is malformed`;
        throw new KhoError('KHO_EINVAL', text, { address: base, size });
      }
      if (!Number.isInteger(nid) || nid < 0) {
        throw new KhoError('KHO_EINVAL', `the memory range at ${hex(base)} has no valid NUMA node: ${nid}`, {
          address: base,
        });
      }
      if (base < end) {
        const text = `the memory range at ${hex(base)} overlaps the range before it, ${hex(before)}-${hex(end)}`;
        throw new KhoError('KHO_EINVAL', text, { address: base });
      }
      before = base;
      end = base + size;
    }
  }

  /** The first address after all memory; 0 for an empty map. */
  get end(): number {
    const last = this.ranges.at(-1);
    return last === undefined ? 0 : last.base + last.size;
  }

  /** The range that holds `address`, if there is one. */
  find(address: number): T | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.base && address < last.base + last.size) return last;
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.ranges[middle].base <= address) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    const range = this.ranges[low - 1];
    if (!(address < range.base + range.size)) return undefined;
    this.#last = range;
    return range;
  }

  /**
   * The backed range that holds all of [address, address + length), or undefined when the access crosses ranges.
   * KHO_EFAULT when its first byte is outside of memory or unbacked.
   */
  only(address: number, length: number): T | undefined {
    checkLength(length);
    const range = this.#backed(address, address, length);
    return address + length <= range.base + range.size ? range : undefined;
  }

  /**
   * Cuts [address, address + length) at the borders of ranges. All of it is checked before anything is returned, so
   * that a caller who writes piece by piece writes all or nothing. KHO_EFAULT names the first byte that cannot be
   * accessed, KHO_EINVAL a length that is not a size.
   */
  cut(address: number, length: number): Piece<T>[] {
    checkLength(length);
    const pieces: Piece<T>[] = [];
    const end = address + length;
    for (let at = address; at < end; ) {
      const range = this.#backed(at, address, length);
      const offset = at - range.base;
      const part = Math.min(end - at, range.size - offset);
      pieces.push({ range, offset, length: part });
      at += part;
    }
    return pieces;
  }

  /** The parts of [address, address + length) that lie in ranges, in ascending order; what is outside is left out. */
  *overlapping(address: number, length: number): Generator<Piece<T>, void> {
    const end = address + length;
    for (let index = this.#firstEndingAfter(address); index < this.ranges.length; index++) {
      const range = this.ranges[index];
      if (range.base >= end) return;
      const start = Math.max(address, range.base);
      yield { range, offset: start - range.base, length: Math.min(end, range.base + range.size) - start };
    }
  }

  #firstEndingAfter(address: number): number {
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.ranges[middle].base + this.ranges[middle].size > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #backed(at: number, address: number, length: number): T {
    const range = this.find(at);
    if (range?.backed === true) return range;
    const why = range === undefined ? 'outside of memory' : 'unbacked';
    const access = at === address ? '' : ` (access of ${length} bytes at ${hex(address)})`;
    throw new KhoError('KHO_EFAULT', `${hex(at)} is ${why}${access}`, { address: at, size: length });
  }
}

/** KHO_EINVAL unless the range is made of whole pages below {@link PHYS_ADDR_MAX}. */
export function checkWholePages({ base, size }: Pick<MemoryRange, 'base' | 'size'>): void {
  if (base % PAGE_SIZE === 0 && size % PAGE_SIZE === 0 && base >= 0 && base + size <= PHYS_ADDR_MAX) return;
  const text = `the memory range ${hex(base)}-${hex(base + size)} is not made of whole pages below 2^52`;
  throw new KhoError('KHO_EINVAL', text, { address: base, size });
}

function checkLength(length: number): void {
  if (!Number.isSafeInteger(length) || length < 0) {
    throw new KhoError('KHO_EINVAL', `${length} is not a length in bytes`);
  }
}
