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
  /** Reserved for huge pages: 7.3 alone knows it, and only names it here. */
  RSRV_HUGETLB: 0x80,
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

/** KHO_EINVAL unless they are whole numbers, as every int of the kernel is. */
export function checkNodeAndFlags(nid: number, flags: number = MemblockFlags.NONE): void {
  if (!Number.isInteger(nid)) throw new KhoError('KHO_EINVAL', `${nid} is no number of a node`);
  if (!Number.isInteger(flags) || flags < 0) throw new KhoError('KHO_EINVAL', `${flags} are no flags of memblock`);
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

/** Regions that an array holds before it has grown (INIT_MEMBLOCK_REGIONS; some architectures have more). */
export const INIT_MEMBLOCK_REGIONS = 128;

/** `size` cut so that `base + size` stays in the address space (memblock_cap_size). Infinity means "all there is". */
export function capSize(base: PhysicalAddress, size: number): number {
  if (!(Number.isInteger(base) && base >= 0 && base <= PHYS_ADDR_MAX)) {
    throw new KhoError('KHO_EINVAL', `${base} is not a physical address (0 to 2^52)`, { size });
  }
  if (!(size >= 0) || (size <= PHYS_ADDR_MAX && !Number.isInteger(size))) {
    throw new KhoError('KHO_EINVAL', `${size} is not a size in bytes`, { address: base });
  }
  return Math.min(size, PHYS_ADDR_MAX - base);
}
