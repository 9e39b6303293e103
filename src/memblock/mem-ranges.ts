import { PAGE_SIZE, type PageFrame, pageFrame } from './address.js';
import { type FreeRange, isSkipped } from './free-ranges.js';
import type { MemblockType } from './memblock-type.js';
import { isValidNode, MemblockFlags, type MemblockRegion, NUMA_NO_NODE, regionEnd } from './region.js';

/** The whole pages in a region of memory. */
export interface PageFrameRange {
  start: PageFrame;
  /** Exclusive. */
  end: PageFrame;
  nid: number;
}

/** What for_each_mem_range() visits: hotpluggable and driver-managed memory too, and none that is outside the direct map. */
const FILTER = { nid: NUMA_NO_NODE, flags: MemblockFlags.HOTPLUG | MemblockFlags.DRIVER_MANAGED, movableNode: false };

/** Regions as ranges, ascending (for_each_reserved_mem_range()). */
export function* ranges(type: MemblockType): Generator<FreeRange> {
  for (const region of type.regions) yield range(region);
}

/** Regions of memory in the direct map, ascending (for_each_mem_range()). */
export function* memRanges(memory: MemblockType): Generator<FreeRange> {
  for (const region of memory.regions) if (!isSkipped(region, FILTER)) yield range(region);
}

/** The same, descending (for_each_mem_range_rev()). */
export function* memRangesReverse(memory: MemblockType): Generator<FreeRange> {
  for (let index = memory.regions.length - 1; index >= 0; index--) {
    if (!isSkipped(memory.regions[index], FILTER)) yield range(memory.regions[index]);
  }
}

/** The whole pages of each region of memory of a node, of all for a `nid` that names none; a region without any is left out. */
export function* memPfnRanges(memory: MemblockType, nid: number): Generator<PageFrameRange> {
  for (const region of memory.regions) {
    const start = Math.ceil(region.base / PAGE_SIZE) as PageFrame;
    const end = pageFrame(regionEnd(region));
    if (start < end && (!isValidNode(nid) || nid === region.nid)) yield { start, end, nid: region.nid };
  }
}

function range(region: Readonly<MemblockRegion>): FreeRange {
  return { start: region.base, end: regionEnd(region), nid: region.nid };
}
