import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from './address.js';
import { NoRoomToGrow } from './double-array.js';
import { dumpMemblock } from './dump.js';
import { type FreeRange, freeRanges, freeRangesReverse } from './free-ranges.js';
import { memPfnRanges, memRanges, memRangesReverse, type PageFrameRange, ranges } from './mem-ranges.js';
import { pa } from './memblock-log.js';
import { MemblockRegions, type MemblockSnapshot } from './memblock-regions.js';
import { checkNodeAndFlags, INIT_MEMBLOCK_REGIONS, isValidNode, MemblockFlags, NUMA_NO_NODE } from './region.js';
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

/** How a {@link Memblock} begins. */
export interface MemblockOptions {
  /** Regions that each array has room for at first; some architectures have more than {@link INIT_MEMBLOCK_REGIONS}. */
  initialRegions?: number;
  /** Clears the bytes of an allocation, for whoever has bytes; a raw allocation leaves them as they were. Not part of a clone. */
  clear?: (address: PhysicalAddress, size: number) => void;
}

/**
 * The allocator of a kernel that has no allocator yet (mm/memblock.c of Linux 7.2): which memory there is, which of it
 * is reserved, and a search for what lies between. Sizes and alignments are in bytes; addresses need no alignment.
 *
 * A search begins at the top of memory unless {@link bottomUp} is set, and never takes the first page. Exhausted memory
 * is `undefined`, not an error, as the kernel returns 0: the caller knows what was asked for and can say so. An allocation
 * that is found but cannot be reserved, because the array has no room to grow, is not made either.
 * A Memblock belongs to the thread that made it; {@link snapshot} crosses threads.
 *
 * docs/memblock.md says what is modelled and where this differs from the kernel.
 */
export class Memblock extends MemblockRegions {
  /** Search from the lowest address up (memblock_set_bottom_up). */
  bottomUp = false;
  /** `movable_node` on the command line: keep hotpluggable memory free of allocations. */
  movableNode = false;
  readonly #initialRegions: number;
  readonly #clear: ((address: PhysicalAddress, size: number) => void) | undefined;
  #khoScratchOnly = false;

  constructor(
    snapshot: MemblockSnapshot = { memory: [], reserved: [] },
    { initialRegions = INIT_MEMBLOCK_REGIONS, clear }: MemblockOptions = {},
  ) {
    super(snapshot, initialRegions);
    this.#initialRegions = initialRegions;
    this.#clear = clear;
  }

  /** An independent copy, modes and arrays included. */
  clone(): Memblock {
    const copy = new Memblock(undefined, { initialRegions: this.#initialRegions });
    copy.copyFrom(this);
    copy.bottomUp = this.bottomUp;
    copy.movableNode = this.movableNode;
    copy.#khoScratchOnly = this.#khoScratchOnly;
    return copy;
  }

  /** Allocate from KHO_SCRATCH memory alone, from now on: a kernel that KHO started, before it has reserved what is preserved. */
  setKhoScratchOnly(): void {
    this.#khoScratchOnly = true;
  }

  /** Whether {@link setKhoScratchOnly} holds. */
  get khoScratchOnly(): boolean {
    return this.#khoScratchOnly;
  }

  clearKhoScratchOnly(): void {
    this.#khoScratchOnly = false;
  }

  /**
   * Memory that is not reserved, ascending; which memory regions count, `nid` and `flags` say (see {@link FreeRange}).
   * KHO_EINVAL unless they are whole numbers.
   */
  freeRanges(nid = NUMA_NO_NODE, flags: number = MemblockFlags.NONE): Generator<FreeRange> {
    checkNodeAndFlags(nid, flags);
    return freeRanges(this.memory, this.reserved, { nid, flags, movableNode: this.movableNode });
  }

  /** The same ranges, descending. */
  freeRangesReverse(nid = NUMA_NO_NODE, flags: number = MemblockFlags.NONE): Generator<FreeRange> {
    checkNodeAndFlags(nid, flags);
    return freeRangesReverse(this.memory, this.reserved, { nid, flags, movableNode: this.movableNode });
  }

  /** Memory in the kernel's direct map, reserved or not, ascending (for_each_mem_range). */
  memRanges(): Generator<FreeRange> {
    return memRanges(this.memory);
  }

  /** The same, descending (for_each_mem_range_rev). */
  memRangesReverse(): Generator<FreeRange> {
    return memRangesReverse(this.memory);
  }

  /** What is reserved, ascending (for_each_reserved_mem_range). */
  reservedRanges(): Generator<FreeRange> {
    return ranges(this.reserved);
  }

  /** Whole pages of memory of a node, or of all, ascending (for_each_mem_pfn_range). */
  memPfnRanges(nid = NUMA_NO_NODE): Generator<PageFrameRange> {
    checkNodeAndFlags(nid);
    return memPfnRanges(this.memory, nid);
  }

  /**
   * A free place of `size` bytes in [start, end), or undefined (memblock_find_in_range_node). Reserves nothing.
   * KHO_EINVAL unless all are whole numbers.
   */
  findInRange(
    size: number,
    align: number,
    start: PhysicalAddress,
    end: PhysicalAddress,
    nid = NUMA_NO_NODE,
    flags: number = this.#allocationFlags(),
  ): PhysicalAddress | undefined {
    const call = 'memblock_find_in_range_node';
    for (const [what, value] of Object.entries({ size, alignment: align, start, end })) {
      if (Number.isInteger(value) && value >= 0) continue;
      throw new KhoError('KHO_EINVAL', `${call}: ${value} is no ${what} in bytes`, { call });
    }
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
      const found = this.findInRange(size, alignment, start, end, nid, flags);
      if (found !== undefined && this.#reserved(found, size, nid)) return found;
      if (isValidNode(nid) && !exactNid) {
        const other = this.findInRange(size, alignment, start, end, NUMA_NO_NODE, flags);
        if (other !== undefined && this.#reserved(other, size, NUMA_NO_NODE)) return other;
      }
      if ((flags & MemblockFlags.MIRROR) === 0) return undefined;
      this.#logNoMirror(size);
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
    this.log?.(`memblock_phys_alloc_range: ${size} bytes align=${hex(align)} from=${pa(start)} max_addr=${pa(end)}`);
    return this.allocRangeNid(size, align, start, end);
  }

  physAllocTryNid(size: number, align: number, nid: number): PhysicalAddress | undefined {
    return this.allocRangeNid(size, align, LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, nid);
  }

  /**
   * The rule behind every memblock_alloc*() that returns a virtual address: at `minimum` or above if possible, else
   * below it, and never above {@link currentLimit}, even if `maximum` is. On node `nid` if possible. The bytes are cleared
   * ({@link MemblockOptions.clear}).
   */
  allocTryNid(
    size: number,
    align: number,
    minimum: PhysicalAddress = LOW_LIMIT,
    maximum: PhysicalAddress = MEMBLOCK_ALLOC_ACCESSIBLE,
    nid = NUMA_NO_NODE,
  ): PhysicalAddress | undefined {
    const address = this.#allocUncleared('memblock_alloc_try_nid', size, align, minimum, maximum, nid);
    if (address !== undefined) this.#clear?.(address, size);
    return address;
  }

  /** {@link allocTryNid} that leaves the bytes as they were (memblock_alloc_try_nid_raw). */
  allocTryNidRaw(
    size: number,
    align: number,
    minimum: PhysicalAddress = LOW_LIMIT,
    maximum: PhysicalAddress = MEMBLOCK_ALLOC_ACCESSIBLE,
    nid = NUMA_NO_NODE,
  ): PhysicalAddress | undefined {
    return this.#allocUncleared('memblock_alloc_try_nid_raw', size, align, minimum, maximum, nid);
  }

  /** {@link allocTryNid} without any wish (memblock_alloc). */
  alloc(size: number, align: number): PhysicalAddress | undefined {
    return this.allocTryNid(size, align);
  }

  /** {@link alloc} that leaves the bytes as they were (memblock_alloc_raw). */
  allocRaw(size: number, align: number): PhysicalAddress | undefined {
    return this.allocTryNidRaw(size, align);
  }

  /** memblock_alloc_or_panic(): KHO_ENOMEM instead of undefined. */
  allocOrPanic(size: number, align: number): PhysicalAddress {
    const address = this.alloc(size, align);
    if (address === undefined) throw new KhoError('KHO_ENOMEM', `Failed to allocate ${size} bytes`, { size });
    return address;
  }

  /** At `minimum` or above if possible (memblock_alloc_from). */
  allocFrom(size: number, align: number, minimum: PhysicalAddress): PhysicalAddress | undefined {
    return this.allocTryNid(size, align, minimum);
  }

  /** Below {@link ARCH_LOW_ADDRESS_LIMIT} (memblock_alloc_low). */
  allocLow(size: number, align: number): PhysicalAddress | undefined {
    return this.allocTryNid(size, align, LOW_LIMIT, ARCH_LOW_ADDRESS_LIMIT);
  }

  /** On a node if possible (memblock_alloc_node). */
  allocNode(size: number, align: number, nid: number): PhysicalAddress | undefined {
    return this.allocTryNid(size, align, LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, nid);
  }

  /** {@link allocTryNidRaw} on that node or not at all (memblock_alloc_exact_nid_raw; there is no form that clears). */
  allocExactNidRaw(
    size: number,
    align: number,
    minimum: PhysicalAddress,
    maximum: PhysicalAddress,
    nid: number,
  ): PhysicalAddress | undefined {
    return this.#allocUncleared('memblock_alloc_exact_nid_raw', size, align, minimum, maximum, nid, true);
  }

  /** What a kernel with `memblock=debug` prints. */
  dump(): string {
    return dumpMemblock(this.memory, this.reserved);
  }

  override findForArray(start: PhysicalAddress, end: PhysicalAddress, size: number): PhysicalAddress | undefined {
    const flags = this.#allocationFlags();
    const found = this.findInRange(size, PAGE_SIZE, start, end, NUMA_NO_NODE, flags);
    if (found !== undefined || (flags & MemblockFlags.MIRROR) === 0) return found;
    this.#logNoMirror(size);
    return this.findInRange(size, PAGE_SIZE, start, end, NUMA_NO_NODE, flags & ~MemblockFlags.MIRROR);
  }

  /** `name` is for the log. */
  #allocUncleared(
    name: string,
    size: number,
    align: number,
    minimum: PhysicalAddress,
    maximum: PhysicalAddress,
    nid: number,
    exactNid = false,
  ): PhysicalAddress | undefined {
    this.log?.(`${name}: ${size} bytes align=${hex(align)} nid=${nid} from=${pa(minimum)} max_addr=${pa(maximum)}`);
    const end = maximum > this.currentLimit ? this.currentLimit : maximum;
    const found = this.allocRangeNid(size, align, minimum, end, nid, exactNid);
    if (found !== undefined || minimum === LOW_LIMIT) return found;
    return this.allocRangeNid(size, align, LOW_LIMIT, end, nid, exactNid);
  }

  /** Reserves what was found; false if the array has no room to grow. */
  #reserved(base: PhysicalAddress, size: number, nid: number): boolean {
    try {
      this.reserve(base, size, { nid, flags: MemblockFlags.RSRV_KERN });
      return true;
    } catch (error) {
      if (error instanceof NoRoomToGrow) return false;
      throw error;
    }
  }

  #logNoMirror(size: number): void {
    this.log?.(`Could not allocate ${pa(size)} bytes of mirrored memory`);
  }

  #allocationFlags(): number {
    if (this.#khoScratchOnly) return MemblockFlags.KHO_SCRATCH;
    return this.hasMirror ? MemblockFlags.MIRROR : MemblockFlags.NONE;
  }
}
