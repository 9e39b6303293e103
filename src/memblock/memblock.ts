import { PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from './address.js';
import { dumpMemblock } from './dump.js';
import { type FreeRange, freeRanges, freeRangesReverse } from './free-ranges.js';
import {
  isValidNode,
  MAX_NUMNODES,
  MemblockFlags,
  type MemblockRegion,
  MemblockType,
  NUMA_NO_NODE,
  regionEnd,
} from './region.js';
import { roundDown, roundUp } from './round.js';

/** As the end of a search: wherever memory is. */
export const MEMBLOCK_ALLOC_ANYWHERE = physicalAddress(PHYS_ADDR_MAX);
/** As the end of a search: up to {@link Memblock.currentLimit}. */
export const MEMBLOCK_ALLOC_ACCESSIBLE = physicalAddress(0);
/** The same, for allocations that kmemleak shall not see; kept because it is an address that does not mean itself. */
export const MEMBLOCK_ALLOC_NOLEAKTRACE = physicalAddress(1);
/** The last byte that 32-bit DMA reaches (x86-64; arm64 computes its own). An inclusive address used as an exclusive end. */
export const ARCH_LOW_ADDRESS_LIMIT = physicalAddress(0xffffffff);
/** The alignment that an allocation without one gets. */
export const SMP_CACHE_BYTES = 64;

const LOW_LIMIT = physicalAddress(0);

/** What a {@link Memblock} holds, as plain data. */
export interface MemblockSnapshot {
  memory: MemblockRegion[];
  reserved: MemblockRegion[];
}

/**
 * The allocator of a kernel that has no allocator yet (mm/memblock.c of Linux 7.2): which memory there is, which of it
 * is reserved, and a search for what lies between. Sizes and alignments are in bytes; addresses need no alignment.
 *
 * A search begins at the top of memory unless {@link bottomUp} is set, and never takes the first page. Exhausted memory
 * is `undefined`, not an error, as the kernel returns 0: the caller knows what was asked for and can say so.
 * A Memblock belongs to the thread that made it; {@link snapshot} crosses threads.
 */
export class Memblock {
  readonly memory: MemblockType;
  readonly reserved: MemblockType;
  /** Search from the lowest address up. */
  bottomUp = false;
  /** The end of what {@link MEMBLOCK_ALLOC_ACCESSIBLE} reaches. */
  currentLimit: PhysicalAddress = MEMBLOCK_ALLOC_ANYWHERE;
  /** `movable_node` on the command line: keep hotpluggable memory free of allocations. */
  movableNode = false;
  /** `kernelcore=mirror` on the command line; without it {@link markMirror} does nothing. */
  mirroredKernelcore = false;
  #hasMirror = false;
  #khoScratchOnly = false;

  constructor(snapshot: MemblockSnapshot = { memory: [], reserved: [] }) {
    this.memory = new MemblockType('memory', snapshot.memory);
    this.reserved = new MemblockType('reserved', snapshot.reserved);
  }

  /** The regions as plain data, to be compared or sent to another thread. Modes are not part of it. */
  snapshot(): MemblockSnapshot {
    return {
      memory: this.memory.regions.map((region) => ({ ...region })),
      reserved: this.reserved.regions.map((region) => ({ ...region })),
    };
  }

  /** An independent copy, modes included. */
  clone(): Memblock {
    const copy = new Memblock(this.snapshot());
    copy.bottomUp = this.bottomUp;
    copy.currentLimit = this.currentLimit;
    copy.movableNode = this.movableNode;
    copy.mirroredKernelcore = this.mirroredKernelcore;
    copy.#hasMirror = this.#hasMirror;
    copy.#khoScratchOnly = this.#khoScratchOnly;
    return copy;
  }

  /** Adds memory of a node not known yet. */
  add(base: PhysicalAddress, size: number): void {
    this.memory.addRange(base, size, MAX_NUMNODES, MemblockFlags.NONE);
  }

  addNode(base: PhysicalAddress, size: number, nid: number, flags: number = MemblockFlags.NONE): void {
    this.memory.addRange(base, size, nid, flags);
  }

  remove(base: PhysicalAddress, size: number): void {
    this.memory.removeRange(base, size);
  }

  /** Reserves a range, whether or not there is memory. What is reserved already keeps its flags and node. */
  reserve(base: PhysicalAddress, size: number, { nid = NUMA_NO_NODE, flags = 0 as number } = {}): void {
    this.reserved.addRange(base, size, nid, flags);
  }

  /** Reserves a range as one that the kernel itself allocated. */
  reserveKern(base: PhysicalAddress, size: number): void {
    this.reserve(base, size, { flags: MemblockFlags.RSRV_KERN });
  }

  /** Takes a range out of what is reserved (memblock_phys_free). */
  free(base: PhysicalAddress, size: number): void {
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

  /** Gives the regions of `type` in a range to a node. */
  setNode(base: PhysicalAddress, size: number, type: MemblockType, nid: number): void {
    type.setNode(base, size, nid);
  }

  /** Allocate from KHO_SCRATCH memory alone, from now on: a kernel that KHO started, before it has reserved what is preserved. */
  setKhoScratchOnly(): void {
    this.#khoScratchOnly = true;
  }

  clearKhoScratchOnly(): void {
    this.#khoScratchOnly = false;
  }

  get isKhoScratchOnly(): boolean {
    return this.#khoScratchOnly;
  }

  get hasMirror(): boolean {
    return this.#hasMirror;
  }

  overlapsRegion(type: MemblockType, base: PhysicalAddress, size: number): boolean {
    return type.overlaps(base, size);
  }

  isMemory(address: PhysicalAddress): boolean {
    return this.memory.search(address) >= 0;
  }

  isReserved(address: PhysicalAddress): boolean {
    return this.reserved.search(address) >= 0;
  }

  /** Whether one memory region holds all of the range; two neighbours do not. */
  isRegionMemory(base: PhysicalAddress, size: number): boolean {
    const index = this.memory.search(base);
    if (index < 0) return false;
    return regionEnd(this.memory.regions[index]) >= Math.min(base + size, PHYS_ADDR_MAX);
  }

  /** Whether any byte of the range is reserved. */
  isRegionReserved(base: PhysicalAddress, size: number): boolean {
    return this.reserved.overlaps(base, size);
  }

  /** Memory that is not reserved, ascending; which memory regions count, `nid` and `flags` say (see {@link FreeRange}). */
  freeRanges(nid = NUMA_NO_NODE, flags: number = MemblockFlags.NONE): Generator<FreeRange> {
    return freeRanges(this.memory, this.reserved, { nid, flags, movableNode: this.movableNode });
  }

  /** The same ranges, descending. */
  freeRangesReverse(nid = NUMA_NO_NODE, flags: number = MemblockFlags.NONE): Generator<FreeRange> {
    return freeRangesReverse(this.memory, this.reserved, { nid, flags, movableNode: this.movableNode });
  }

  /** A free place of `size` bytes in [start, end), or undefined (memblock_find_in_range_node). Reserves nothing. */
  findInRange(
    size: number,
    align: number,
    start: PhysicalAddress,
    end: PhysicalAddress,
    nid = NUMA_NO_NODE,
    flags: number = this.#allocationFlags(),
  ): PhysicalAddress | undefined {
    const accessible = end === MEMBLOCK_ALLOC_ACCESSIBLE || end === MEMBLOCK_ALLOC_NOLEAKTRACE;
    // The first page is never given away: its address would be the answer for "nothing found".
    const low = Math.max(start, PAGE_SIZE);
    const high = Math.max(low, accessible ? this.currentLimit : end);
    const clamp = (address: number): number => Math.min(Math.max(address, low), high);
    if (this.bottomUp) {
      for (const range of this.freeRanges(nid, flags)) {
        const limit = clamp(range.end);
        const candidate = roundUp(clamp(range.start), align);
        if (candidate < limit && limit - candidate >= size) return physicalAddress(candidate);
      }
    } else {
      for (const range of this.freeRangesReverse(nid, flags)) {
        const limit = clamp(range.end);
        if (limit < size) continue;
        const candidate = roundDown(limit - size, align);
        if (candidate >= clamp(range.start)) return physicalAddress(candidate);
      }
    }
    return undefined;
  }

  /**
   * Finds and reserves `size` bytes, marked RSRV_KERN, or returns undefined (memblock_alloc_range_nid).
   *
   * If node `nid` has no room, any node will do, unless `exactNid`. If there is mirrored memory and it has no room, all
   * memory is tried. The reserved region bears the node that was asked for, and none after a fallback: this decides
   * what each node's scratch is scaled by. A size of 0 finds a place and reserves nothing.
   */
  allocRangeNid(
    size: number,
    align: number,
    start: PhysicalAddress,
    end: PhysicalAddress,
    nid = NUMA_NO_NODE,
    exactNid = false,
  ): PhysicalAddress | undefined {
    const alignment = align === 0 ? SMP_CACHE_BYTES : align;
    let flags = this.#allocationFlags();
    for (;;) {
      let found = this.findInRange(size, alignment, start, end, nid, flags);
      if (found !== undefined) {
        this.reserve(found, size, { nid, flags: MemblockFlags.RSRV_KERN });
        return found;
      }
      if (isValidNode(nid) && !exactNid) {
        found = this.findInRange(size, alignment, start, end, NUMA_NO_NODE, flags);
        if (found !== undefined) {
          this.reserveKern(found, size);
          return found;
        }
      }
      if ((flags & MemblockFlags.MIRROR) === 0) return undefined;
      flags &= ~MemblockFlags.MIRROR;
    }
  }

  /** Anywhere below {@link currentLimit} (memblock_phys_alloc). */
  physAlloc(size: number, align: number): PhysicalAddress | undefined {
    return this.physAllocRange(size, align, LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE);
  }

  physAllocRange(
    size: number,
    align: number,
    start: PhysicalAddress,
    end: PhysicalAddress,
  ): PhysicalAddress | undefined {
    return this.allocRangeNid(size, align, start, end);
  }

  physAllocTryNid(size: number, align: number, nid: number): PhysicalAddress | undefined {
    return this.allocRangeNid(size, align, LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, nid);
  }

  /**
   * The rule behind every memblock_alloc*() that returns a virtual address: at `minimum` or above if possible, else
   * below it, and never above {@link currentLimit}, even if `maximum` is.
   */
  allocTryNid(
    size: number,
    align: number,
    minimum: PhysicalAddress = LOW_LIMIT,
    maximum: PhysicalAddress = MEMBLOCK_ALLOC_ACCESSIBLE,
    nid = NUMA_NO_NODE,
    exactNid = false,
  ): PhysicalAddress | undefined {
    const end = maximum > this.currentLimit ? this.currentLimit : maximum;
    const found = this.allocRangeNid(size, align, minimum, end, nid, exactNid);
    if (found !== undefined || minimum === LOW_LIMIT) return found;
    return this.allocRangeNid(size, align, LOW_LIMIT, end, nid, exactNid);
  }

  /** Bytes of memory. */
  physMemSize(): number {
    return this.memory.totalSize;
  }

  /** Bytes reserved. */
  reservedSize(): number {
    return this.reserved.totalSize;
  }

  /** Bytes that the kernel allocated itself, below `limit` and, for a valid `nid`, recorded for that node. */
  reservedKernSize(limit: PhysicalAddress = MEMBLOCK_ALLOC_ANYWHERE, nid = NUMA_NO_NODE): number {
    let total = 0;
    for (const region of this.reserved.regions) {
      if (region.base > limit) break;
      if ((region.flags & MemblockFlags.RSRV_KERN) === 0) continue;
      if (isValidNode(nid) && region.nid !== nid) continue;
      total += Math.min(region.size, limit - region.base);
    }
    return total;
  }

  /** The lowest address of memory; 0 without memory. */
  startOfDram(): PhysicalAddress {
    return this.memory.regions[0]?.base ?? LOW_LIMIT;
  }

  /** The address behind the highest byte of memory; 0 without memory. */
  endOfDram(): PhysicalAddress {
    const last = this.memory.regions.at(-1);
    return last === undefined ? LOW_LIMIT : regionEnd(last);
  }

  /** What a kernel with `memblock=debug` prints. */
  dump(): string {
    return dumpMemblock(this.memory, this.reserved);
  }

  #allocationFlags(): number {
    if (this.#khoScratchOnly) return MemblockFlags.KHO_SCRATCH;
    return this.#hasMirror ? MemblockFlags.MIRROR : MemblockFlags.NONE;
  }
}
