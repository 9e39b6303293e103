import { KhoError } from '../errors.js';
import { after, PHYS_ADDR_MAX, type PhysicalAddress } from './address.js';

/** What memblock knows of a region besides its place (include/linux/memblock.h of 7.2). One bit each. */
export const MemblockFlags = {
  NONE: 0,
  /** Memory that firmware may unplug; left alone by allocations while movable nodes are wanted. */
  HOTPLUG: 0x1,
  /** Memory that the hardware mirrors. */
  MIRROR: 0x2,
  /** Not in the kernel's direct map: never allocated from. */
  NOMAP: 0x4,
  /** Added by a driver: always detected, never in the firmware's map. */
  DRIVER_MANAGED: 0x8,
  /** Reserved, and its struct pages stay uninitialized. KHO marks preserved memory so. */
  RSRV_NOINIT: 0x10,
  /** Reserved by an allocation of the kernel itself (6.16 and later): this is what scratch is scaled by. */
  RSRV_KERN: 0x20,
  /** Memory in which a kernel started by KHO may allocate before it knows what is preserved. */
  KHO_SCRATCH: 0x40,
} as const;

/** "Any node" for a search, "no node known" for a region. */
export const NUMA_NO_NODE = -1;
/**
 * One more than the largest node id (x86-64 and arm64 of the distributions: NODES_SHIFT 10). memblock_add() gives it to
 * memory whose node is not known yet; it compares unequal to {@link NUMA_NO_NODE}, so the two do not merge.
 */
export const MAX_NUMNODES = 1024;

/** Whether `nid` names a node, rather than one of the two values for "none". */
export function isValidNode(nid: number): boolean {
  return nid >= 0 && nid < MAX_NUMNODES;
}

/** A stretch of physical addresses whose bytes have the same flags and the same node. `size` is in bytes and never 0. */
export interface MemblockRegion {
  base: PhysicalAddress;
  size: number;
  /** {@link MemblockFlags}, or-ed. */
  flags: number;
  nid: number;
}

/** The address behind the region's last byte. */
export function regionEnd(region: Readonly<MemblockRegion>): PhysicalAddress {
  return after(region.base, region.size);
}

/** `size` cut so that `base + size` stays in the address space (memblock_cap_size). Infinity means "all there is". */
function capSize(base: PhysicalAddress, size: number): number {
  if (!(size >= 0) || (size <= PHYS_ADDR_MAX && !Number.isInteger(size))) {
    throw new KhoError('KHO_EINVAL', `${size} is not a size in bytes`, { address: base });
  }
  return Math.min(size, PHYS_ADDR_MAX - base);
}

/**
 * A sorted array of regions that never overlap: `memory` and `reserved` are one each.
 *
 * Neighbours of equal flags and node are one region, but only where an operation touched them, as in the kernel: each
 * merges from the region before its first to the one behind its last. An operation costs O(regions).
 *
 * The kernel's arrays hold 128 regions at first and double. The two places where that happens are {@link addRange} and
 * {@link isolateRange}; here the arrays grow by themselves, and no memory is taken for them.
 */
export class MemblockType {
  readonly name: string;
  readonly #regions: MemblockRegion[];
  #totalSize = 0;

  constructor(name: string, regions: readonly Readonly<MemblockRegion>[] = []) {
    this.name = name;
    this.#regions = regions.map((region) => ({ ...region }));
    for (const region of regions) this.#totalSize += region.size;
  }

  get regions(): readonly Readonly<MemblockRegion>[] {
    return this.#regions;
  }

  /** Bytes in all regions. */
  get totalSize(): number {
    return this.#totalSize;
  }

  clone(): MemblockType {
    return new MemblockType(this.name, this.#regions);
  }

  /**
   * Adds [base, base + size). Where it overlaps a region, that region stays as it is: only the gaps are filled, with
   * `flags` and `nid`. The range ends at {@link PHYS_ADDR_MAX} at the latest; an empty one does nothing.
   */
  addRange(base: PhysicalAddress, size: number, nid: number, flags: number): void {
    const end = after(base, capSize(base, size));
    let from = base;
    let first = -1;
    let last = 0;
    let index = 0;
    const fillUpTo = (to: PhysicalAddress): void => {
      if (first < 0) first = index;
      this.#insert(index, { base: from, size: to - from, nid, flags });
      last = ++index;
    };
    for (; index < this.#regions.length; index++) {
      const { base: regionBase } = this.#regions[index];
      const to = regionEnd(this.#regions[index]);
      if (regionBase >= end) break;
      if (to <= from) continue;
      if (regionBase > from) fillUpTo(regionBase);
      from = to < end ? to : end;
    }
    if (from < end) fillUpTo(end);
    if (first >= 0) this.#merge(first, last);
  }

  /** Takes [base, base + size) out; regions that cross its ends are cut. */
  removeRange(base: PhysicalAddress, size: number): void {
    const [first, last] = this.isolateRange(base, size);
    for (const region of this.#regions.splice(first, last - first)) this.#totalSize -= region.size;
  }

  /** Sets or clears `flags` in [base, base + size), where there are regions. */
  changeFlags(base: PhysicalAddress, size: number, flags: number, set: boolean): void {
    const [first, last] = this.isolateRange(base, size);
    for (let index = first; index < last; index++) {
      const region = this.#regions[index];
      region.flags = set ? region.flags | flags : region.flags & ~flags;
    }
    this.#merge(first, last);
  }

  /** Gives what regions there are in [base, base + size) to node `nid`. */
  setNode(base: PhysicalAddress, size: number, nid: number): void {
    const [first, last] = this.isolateRange(base, size);
    for (let index = first; index < last; index++) this.#regions[index].nid = nid;
    this.#merge(first, last);
  }

  /**
   * Cuts regions at `base` and at `base + size`, so that none crosses either, and returns [first, last): the indices of
   * those inside, [0, 0) where there are none. The caller merges, or the cuts stay.
   */
  isolateRange(base: PhysicalAddress, size: number): [first: number, last: number] {
    const end = after(base, capSize(base, size));
    let first = 0;
    let last = 0;
    if (end === base) return [first, last];
    for (let index = 0; index < this.#regions.length; index++) {
      if (this.#regions[index].base >= end) break;
      if (regionEnd(this.#regions[index]) <= base) continue;
      if (this.#regions[index].base < base) {
        this.#split(index, base);
        continue; // the upper half is next
      }
      if (regionEnd(this.#regions[index]) > end) this.#split(index, end);
      if (last === 0) first = index;
      last = index + 1;
    }
    return [first, last];
  }

  /**
   * Whether a region has a byte in common with [base, base + size). An empty range strictly inside a region counts as
   * overlapping it, and one at its border does not, as in memblock_addrs_overlap().
   */
  overlaps(base: PhysicalAddress, size: number): boolean {
    const end = after(base, capSize(base, size));
    return this.#regions.some((region) => base < regionEnd(region) && region.base < end);
  }

  /** The index of the region that holds `address`, or -1. */
  search(address: PhysicalAddress): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (address < this.#regions[middle].base) high = middle;
      else if (address >= regionEnd(this.#regions[middle])) low = middle + 1;
      else return middle;
    }
    return -1;
  }

  #insert(index: number, region: MemblockRegion): void {
    this.#regions.splice(index, 0, region);
    this.#totalSize += region.size;
  }

  #split(index: number, at: PhysicalAddress): void {
    const upper = this.#regions[index];
    const lower = { ...upper, size: at - upper.base };
    upper.base = at;
    upper.size -= lower.size;
    this.#regions.splice(index, 0, lower);
  }

  /** Merges neighbours from the region before `first` up to the one at `last`. */
  #merge(first: number, last: number): void {
    let index = Math.max(first - 1, 0);
    let stop = Math.min(last, this.#regions.length - 1);
    while (index < stop) {
      const region = this.#regions[index];
      const next = this.#regions[index + 1];
      if (regionEnd(region) !== next.base || region.nid !== next.nid || region.flags !== next.flags) {
        index++;
        continue;
      }
      region.size += next.size;
      this.#regions.splice(index + 1, 1);
      stop--;
    }
  }
}
