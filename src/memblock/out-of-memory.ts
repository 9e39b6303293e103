import { KhoError } from '../errors.js';
import { hex, type PhysicalAddress, physicalAddress } from './address.js';
import { MEMBLOCK_ALLOC_ANYWHERE, type Memblock } from './memblock.js';
import { isValidNode, MemblockFlags, NUMA_NO_NODE } from './region.js';

/** Where an allocation had to be. */
export interface Limits {
  /** Exclusive. */
  end?: PhysicalAddress;
  /** The one node allowed. */
  nid?: number;
}

/**
 * The KHO_ENOMEM of an allocation that found no place: it names what was wanted and the largest place that is free
 * for it: in scratch, while memblock allocates from that alone.
 */
export function outOfMemory(
  memblock: Memblock,
  what: string,
  size: number,
  { end = MEMBLOCK_ALLOC_ANYWHERE, nid = NUMA_NO_NODE }: Limits = {},
): KhoError {
  let largest = 0;
  let address = physicalAddress(0);
  const flags = memblock.khoScratchOnly ? MemblockFlags.KHO_SCRATCH : MemblockFlags.NONE;
  for (const range of memblock.freeRanges(nid, flags)) {
    const room = Math.min(range.end, end) - range.start;
    if (room > largest) [largest, address] = [room, range.start];
  }
  const limits = [
    ...(memblock.khoScratchOnly ? ['in scratch, where a kernel that was handed over to allocates'] : []),
    ...(end < MEMBLOCK_ALLOC_ANYWHERE ? [`below ${hex(end)}`] : []),
    ...(isValidNode(nid) ? [`on node ${nid}`] : []),
  ];
  const where = limits.length === 0 ? '' : ` ${limits.join(' ')}`;
  const place =
    largest === 0 ? 'nothing is free there' : `the largest free place has ${largest} bytes, at ${hex(address)}`;
  return new KhoError('KHO_ENOMEM', `no room for ${what}: ${size} bytes wanted${where}; ${place}`, { size });
}
