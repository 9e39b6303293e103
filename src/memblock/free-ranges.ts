import { PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from './address.js';
import type { MemblockType } from './memblock-type.js';
import { isValidNode, MemblockFlags, type MemblockRegion, regionEnd } from './region.js';

/**
 * A stretch of memory that is not reserved. It can be empty: two reserved regions that touch but did not merge have an
 * empty gap between them, which the kernel's iterators report as well, and which a search for 0 bytes finds.
 */
export interface FreeRange {
  start: PhysicalAddress;
  end: PhysicalAddress;
  nid: number;
}

/** Which regions of memory an iteration visits. */
export interface FreeRangeFilter {
  /** A valid node alone; any, for a value that names none. */
  nid: number;
  /** MIRROR and KHO_SCRATCH: only such memory. HOTPLUG, NOMAP, DRIVER_MANAGED: such memory too. */
  flags: number;
  /** Pass over hotpluggable memory, unless `flags` ask for it. */
  movableNode: boolean;
}

/** The rule of should_skip_region() for memory. */
export function isSkipped(region: Readonly<MemblockRegion>, { nid, flags, movableNode }: FreeRangeFilter): boolean {
  const has = (flag: number): boolean => (region.flags & flag) !== 0;
  const wants = (flag: number): boolean => (flags & flag) !== 0;
  if (isValidNode(nid) && nid !== region.nid) return true;
  if (movableNode && has(MemblockFlags.HOTPLUG) && !wants(MemblockFlags.HOTPLUG)) return true;
  if (wants(MemblockFlags.MIRROR) && !has(MemblockFlags.MIRROR)) return true;
  if (has(MemblockFlags.NOMAP) && !wants(MemblockFlags.NOMAP)) return true;
  if (has(MemblockFlags.DRIVER_MANAGED) && !wants(MemblockFlags.DRIVER_MANAGED)) return true;
  return wants(MemblockFlags.KHO_SCRATCH) && !has(MemblockFlags.KHO_SCRATCH);
}

const START = physicalAddress(0);
const END = physicalAddress(PHYS_ADDR_MAX);

/** The end of the gap before reserved region `index`; the last gap ends with the address space. */
function gapEnd(reserved: MemblockType, index: number): PhysicalAddress {
  return index < reserved.regions.length ? reserved.regions[index].base : END;
}

function gapStart(reserved: MemblockType, index: number): PhysicalAddress {
  return index > 0 ? regionEnd(reserved.regions[index - 1]) : START;
}

function intersection(region: Readonly<MemblockRegion>, reserved: MemblockType, gap: number): FreeRange {
  const [start, end] = [gapStart(reserved, gap), gapEnd(reserved, gap)];
  const regionStop = regionEnd(region);
  return {
    start: region.base > start ? region.base : start,
    end: regionStop < end ? regionStop : end,
    nid: region.nid,
  };
}

/**
 * Memory minus reserved, ascending. Both arrays are sorted, so one pass over both in lockstep does it: O(memory + reserved).
 * Neither may change while the iteration runs.
 */
export function* freeRanges(
  memory: MemblockType,
  reserved: MemblockType,
  filter: FreeRangeFilter,
): Generator<FreeRange> {
  let gap = 0;
  for (const region of memory.regions) {
    if (isSkipped(region, filter)) continue;
    for (; gap <= reserved.regions.length; gap++) {
      if (gapStart(reserved, gap) >= regionEnd(region)) break;
      if (region.base >= gapEnd(reserved, gap)) continue;
      yield intersection(region, reserved, gap);
      if (regionEnd(region) <= gapEnd(reserved, gap)) break; // the next region may lie in this gap too
    }
  }
}

/** The same ranges, descending. */
export function* freeRangesReverse(
  memory: MemblockType,
  reserved: MemblockType,
  filter: FreeRangeFilter,
): Generator<FreeRange> {
  let gap = reserved.regions.length;
  for (let index = memory.regions.length - 1; index >= 0; index--) {
    const region = memory.regions[index];
    if (isSkipped(region, filter)) continue;
    for (; gap >= 0; gap--) {
      if (gapEnd(reserved, gap) <= region.base) break;
      if (regionEnd(region) <= gapStart(reserved, gap)) continue;
      yield intersection(region, reserved, gap);
      if (region.base >= gapStart(reserved, gap)) break;
    }
  }
}
