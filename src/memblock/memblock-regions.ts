import { KhoError } from '../errors.js';
import {
  frameAddress,
  hex,
  PAGE_SIZE,
  type PageFrame,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  pageFrame,
  physicalAddress,
} from './address.js';
import { doubleArray } from './double-array.js';
import { memPfnRanges } from './mem-ranges.js';
import { type MemblockLog, rangeText } from './memblock-log.js';
import { MemblockType, type MemblockTypeState, type WarnOf } from './memblock-type.js';
import { capMemoryRange, endOfFirst, enforceMemoryLimit } from './memory-limits.js';
import {
  capSize,
  checkNodeAndFlags,
  isValidNode,
  MAX_NUMNODES,
  MemblockFlags,
  type MemblockRegion,
  NUMA_NO_NODE,
  regionEnd,
} from './region.js';

/** What a Memblock holds, as plain data. */
export interface MemblockSnapshot {
  memory: MemblockRegion[];
  reserved: MemblockRegion[];
}

/**
 * Which memory there is and which of it is reserved: the half of mm/memblock.c that searches for nothing. It is used as a
 * part of Memblock, which knows where there is room for a larger array.
 *
 * All ranges are in bytes and need no alignment. A range that would reach beyond the address space ends there, and
 * `Infinity` is such a size. KHO_EINVAL for what is no size. KHO_ENOMEM where an array must grow and cannot: before
 * {@link allowResize} the kernel panics there, after it the call has failed with -ENOMEM. What was to be changed is as it
 * was then; an array that had to double twice and could do so only once stays doubled, as the kernel's does.
 */
export abstract class MemblockRegions {
  readonly memory: MemblockType;
  readonly reserved: MemblockType;
  /** The end of what MEMBLOCK_ALLOC_ACCESSIBLE reaches (memblock_set_current_limit). */
  currentLimit: PhysicalAddress = physicalAddress(PHYS_ADDR_MAX);
  /** `kernelcore=mirror` on the command line; without it {@link markMirror} does nothing. */
  mirroredKernelcore = false;
  /** Gets the lines that a kernel with `memblock=debug` prints about calls, without the caller's name, and its errors. */
  log: MemblockLog | undefined;
  /**
   * Called where the kernel would warn of what it is asked and go on: no region has changed yet (an array that had to grow
   * for the call may have), and none does if this
   * throws. Without it, a warning is one to {@link log} alone.
   */
  onWarning: WarnOf | undefined;
  #canResize = false;
  #hasMirror = false;

  constructor(snapshot: MemblockSnapshot, initialRegions: number) {
    const type = (name: 'memory' | 'reserved'): MemblockType =>
      new MemblockType(
        name,
        initialState(snapshot[name], initialRegions),
        (full, base, size) => doubleArray(this, full, base, size),
        (message, base, size) => this.#warn(message, base, size),
      );
    this.memory = type('memory');
    this.reserved = type('reserved');
  }

  /** A place for an array of `size` bytes in [start, end), whole pages (memblock_find_in_range). Reserves nothing. */
  abstract findForArray(start: PhysicalAddress, end: PhysicalAddress, size: number): PhysicalAddress | undefined;

  /** Takes everything from another, so that this is a copy of it. */
  protected copyFrom(other: MemblockRegions): void {
    this.memory.restore(other.memory.save());
    this.reserved.restore(other.reserved.save());
    this.currentLimit = other.currentLimit;
    this.mirroredKernelcore = other.mirroredKernelcore;
    this.log = other.log;
    this.onWarning = other.onWarning;
    this.#canResize = other.#canResize;
    this.#hasMirror = other.#hasMirror;
  }

  /** The regions as plain data, to be compared or sent to another thread. Modes and arrays are not part of it. */
  snapshot(): MemblockSnapshot {
    return { memory: [...this.memory.save().regions], reserved: [...this.reserved.save().regions] };
  }

  /**
   * From now on an array that is full may move to a larger place, taken from free memory: a kernel calls it when it has
   * reserved all that must not be overwritten (x86-64: e820__memblock_setup()).
   */
  allowResize(): void {
    this.#canResize = true;
  }

  get canResize(): boolean {
    return this.#canResize;
  }

  get hasMirror(): boolean {
    return this.#hasMirror;
  }

  /** Adds memory of a node not known yet. */
  add(base: PhysicalAddress, size: number): void {
    this.log?.(`memblock_add: ${rangeText(base, size)}`);
    this.memory.addRange(base, size, MAX_NUMNODES, MemblockFlags.NONE);
  }

  addNode(base: PhysicalAddress, size: number, nid: number, flags: number = MemblockFlags.NONE): void {
    this.log?.(`memblock_add_node: ${rangeText(base, size)} nid=${nid} flags=${flags.toString(16)}`);
    this.memory.addRange(base, size, nid, flags);
  }

  remove(base: PhysicalAddress, size: number): void {
    this.log?.(`memblock_remove: ${rangeText(base, size)}`);
    this.memory.removeRange(base, size);
  }

  /** Reserves a range, whether or not there is memory. What is reserved already keeps its flags and node. */
  reserve(base: PhysicalAddress, size: number, { nid = NUMA_NO_NODE, flags = 0 as number } = {}): void {
    this.log?.(`__memblock_reserve: ${rangeText(base, size)} nid=${nid} flags=${flags.toString(16)}`);
    this.reserved.addRange(base, size, nid, flags);
  }

  /** Reserves a range as one that the kernel itself allocated. */
  reserveKern(base: PhysicalAddress, size: number): void {
    this.reserve(base, size, { flags: MemblockFlags.RSRV_KERN });
  }

  /** Takes a range out of what is reserved (memblock_phys_free). */
  free(base: PhysicalAddress, size: number): void {
    this.log?.(`memblock_phys_free: ${rangeText(base, size)}`);
    this.reserved.removeRange(base, size);
  }

  markHotplug(base: PhysicalAddress, size: number): void {
    this.memory.changeFlags(base, size, MemblockFlags.HOTPLUG, true);
  }

  clearHotplug(base: PhysicalAddress, size: number): void {
    this.memory.changeFlags(base, size, MemblockFlags.HOTPLUG, false);
  }

  /** From now on, allocations try mirrored memory first. Nothing happens unless {@link mirroredKernelcore}. */
  markMirror(base: PhysicalAddress, size: number): void {
    capSize(base, size); // what is no range is none in either mode
    if (!this.mirroredKernelcore) return;
    this.#hasMirror = true;
    this.memory.changeFlags(base, size, MemblockFlags.MIRROR, true);
  }

  markNomap(base: PhysicalAddress, size: number): void {
    this.memory.changeFlags(base, size, MemblockFlags.NOMAP, true);
  }

  clearNomap(base: PhysicalAddress, size: number): void {
    this.memory.changeFlags(base, size, MemblockFlags.NOMAP, false);
  }

  markKhoScratch(base: PhysicalAddress, size: number): void {
    this.memory.changeFlags(base, size, MemblockFlags.KHO_SCRATCH, true);
  }

  clearKhoScratch(base: PhysicalAddress, size: number): void {
    this.memory.changeFlags(base, size, MemblockFlags.KHO_SCRATCH, false);
  }

  /** Leaves the struct pages of reserved memory uninitialized (memblock_reserved_mark_noinit). */
  reservedMarkNoinit(base: PhysicalAddress, size: number): void {
    this.reserved.changeFlags(base, size, MemblockFlags.RSRV_NOINIT, true);
  }

  /** Counts reserved memory as the kernel's own from now on (memblock_reserved_mark_kern). */
  reservedMarkKern(base: PhysicalAddress, size: number): void {
    this.reserved.changeFlags(base, size, MemblockFlags.RSRV_KERN, true);
  }

  /** Gives the regions of `type` in a range to a node. */
  setNode(base: PhysicalAddress, size: number, type: MemblockType, nid: number): void {
    type.setNode(base, size, nid);
  }

  /** Rounds the ends of memory regions inwards (memblock_trim_memory); see {@link MemblockType.trim}. KHO_EINVAL for no alignment. */
  trimMemory(align: number): void {
    if (!Number.isInteger(align) || align < 1) {
      const call = 'memblock_trim_memory';
      throw new KhoError('KHO_EINVAL', `${call}: ${align} is no alignment in bytes`, { call });
    }
    this.memory.trim(align);
  }

  /**
   * Takes away all memory and reservations above the first `limit` bytes of memory; 0, or more than there is, takes nothing.
   *
   * KHO_ENOMEM where an array cannot grow for the cut: the kernel tells nobody and leaves that array whole, and so does this.
   */
  enforceMemoryLimit(limit: number): void {
    enforceMemoryLimit(this.memory, this.reserved, limit);
  }

  /**
   * Takes away all memory outside a range except what is NOMAP, and all reservations outside it. An empty range takes
   * nothing; where there is no memory at all, the kernel warns. KHO_ENOMEM as {@link enforceMemoryLimit}.
   */
  capMemoryRange(base: PhysicalAddress, size: number): void {
    capSize(base, size);
    if (size === 0) return;
    if (this.memory.totalSize === 0) {
      this.#warn('memblock_cap_memory_range: No memory registered yet', base, size);
      return;
    }
    capMemoryRange(this.memory, this.reserved, base, size);
  }

  /** {@link capMemoryRange} to the first `limit` bytes of memory; 0, or more than there is, takes nothing. */
  memLimitRemoveMap(limit: number): void {
    const end = endOfFirst(this.memory, limit);
    if (end !== undefined) this.capMemoryRange(physicalAddress(0), end);
  }

  /** Whether memory without a node is at most `threshold` bytes, in whole pages (memblock_validate_numa_coverage). */
  validateNumaCoverage(threshold: number): boolean {
    let pages = 0;
    for (const { start, end, nid } of memPfnRanges(this.memory, NUMA_NO_NODE))
      if (!isValidNode(nid)) pages += end - start;
    if (pages * PAGE_SIZE <= threshold) return true;
    const [lost, all] = [pages * PAGE_SIZE, this.physMemSize()].map((bytes) => Math.floor(bytes / 2 ** 20));
    this.log?.(`NUMA: no nodes coverage for ${lost}MB of ${all}MB RAM`);
    return false;
  }

  overlapsRegion(type: MemblockType, base: PhysicalAddress, size: number): boolean {
    return type.overlaps(base, size);
  }

  isMemory(address: PhysicalAddress): boolean {
    return this.memory.search(address) >= 0;
  }

  /** Whether there is memory that is in the kernel's direct map. */
  isMapMemory(address: PhysicalAddress): boolean {
    const index = this.memory.search(address);
    return index >= 0 && (this.memory.regions[index].flags & MemblockFlags.NOMAP) === 0;
  }

  isKhoScratchMemory(address: PhysicalAddress): boolean {
    const index = this.memory.search(address);
    return index >= 0 && (this.memory.regions[index].flags & MemblockFlags.KHO_SCRATCH) !== 0;
  }

  isReserved(address: PhysicalAddress): boolean {
    return this.reserved.search(address) >= 0;
  }

  /** Whether one memory region holds all of the range; two neighbours do not. */
  isRegionMemory(base: PhysicalAddress, size: number): boolean {
    const end = base + capSize(base, size);
    const index = this.memory.search(base);
    return index >= 0 && regionEnd(this.memory.regions[index]) >= end;
  }

  /** Whether any byte of the range is reserved. */
  isRegionReserved(base: PhysicalAddress, size: number): boolean {
    return this.reserved.overlaps(base, size);
  }

  /** The node of the memory that page `pfn` begins in, and the pages that the region's ends lie in; undefined if there is none. */
  searchPfnNid(pfn: PageFrame): { nid: number; start: PageFrame; end: PageFrame } | undefined {
    const index = this.memory.search(frameAddress(pfn));
    if (index < 0) return undefined;
    const region = this.memory.regions[index];
    return { nid: region.nid, start: pageFrame(region.base), end: pageFrame(regionEnd(region)) };
  }

  /** Bytes of memory; {@link MemblockType.totalSize} has a catch. */
  physMemSize(): number {
    return this.memory.totalSize;
  }

  /** Bytes reserved. */
  reservedSize(): number {
    return this.reserved.totalSize;
  }

  /** Bytes that the kernel allocated itself, below `limit` and, for a valid `nid`, recorded for that node. */
  reservedKernSize(limit: PhysicalAddress = physicalAddress(PHYS_ADDR_MAX), nid = NUMA_NO_NODE): number {
    let total = 0;
    for (const region of this.reserved.regions) {
      if (region.base > limit) break;
      if ((region.flags & MemblockFlags.RSRV_KERN) === 0) continue;
      if (isValidNode(nid) && region.nid !== nid) continue;
      total += Math.min(region.size, limit - region.base);
    }
    return total;
  }

  /** Pages of memory less what the kernel allocated. 0 where that is more than memory (the kernel's number wraps). */
  estimatedNrFreePages(): number {
    return Math.max(0, Math.floor((this.physMemSize() - this.reservedKernSize()) / PAGE_SIZE));
  }

  /** The lowest address of memory; 0 without memory. */
  startOfDram(): PhysicalAddress {
    return this.memory.regions[0]?.base ?? physicalAddress(0);
  }

  /** The address behind the highest byte of memory; 0 without memory. */
  endOfDram(): PhysicalAddress {
    const last = this.memory.regions.at(-1);
    return last === undefined ? physicalAddress(0) : regionEnd(last);
  }

  #warn(message: string, base: PhysicalAddress, size: number): void {
    this.log?.(message);
    this.onWarning?.(message, base, size);
  }
}

/** Regions in the kernel's own arrays, whose room is doubled until it is enough. */
function initialState(regions: readonly MemblockRegion[], initialRegions: number): MemblockTypeState {
  if (!Number.isSafeInteger(initialRegions) || initialRegions < 1) {
    throw new KhoError('KHO_EINVAL', `${initialRegions} is no number of regions that an array has room for`);
  }
  let behind = 0;
  for (const { base, size, nid, flags } of regions) {
    if (!(base >= behind && size > 0 && capSize(base, size) === size)) {
      const text = `the region at ${hex(base)} with ${size} bytes is empty, or not behind the region before it`;
      throw new KhoError('KHO_EINVAL', text, { address: base, size });
    }
    checkNodeAndFlags(nid, flags);
    behind = base + size;
  }
  let max = initialRegions;
  while (max < regions.length) max *= 2;
  return { regions, totalSize: regions.reduce((bytes, { size }) => bytes + size, 0), max, arrayAddress: undefined };
}
