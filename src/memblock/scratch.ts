import {
  alignUp,
  MAX_ORDER_NR_PAGES,
  PAGE_SIZE,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  physicalAddress,
} from './address.js';
import type { ScratchParameter } from './command-line.js';
import { ARCH_LOW_ADDRESS_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, type Memblock } from './memblock.js';
import { type Limits, outOfMemory } from './out-of-memory.js';
import { isValidNode } from './region.js';

/** Areas begin and end at multiples of the largest page block (7.2; earlier kernels: CMA_MIN_ALIGNMENT_BYTES). 4 MiB. */
export const SCRATCH_ALIGNMENT_BYTES = PAGE_SIZE * MAX_ORDER_NR_PAGES;
/** Bytes of one `struct kho_scratch { u64 addr; u64 size; }`, native byte order, as the next kernel finds them in an array. */
export const KHO_SCRATCH_ENTRY_SIZE = 16;

/** A stretch of memory that nothing preserved ever lies in: the next kernel boots in it. */
export interface ScratchArea {
  kind: 'lowmem' | 'global' | 'node';
  /** The node, for an area of kind `node`. */
  nid?: number;
  address: PhysicalAddress;
  /** Bytes; 0 is an area too: it has a place in the array, and nothing is reserved for it. */
  size: number;
}

/** All scratch of a host. */
export interface Scratch {
  /** Where the array of `struct kho_scratch` is. */
  table: PhysicalAddress;
  /** Its bytes: areas × {@link KHO_SCRATCH_ENTRY_SIZE}. */
  tableSize: number;
  /** lowmem, global, then each node that has memory, ascending. */
  areas: ScratchArea[];
}

/** The nodes that have memory, ascending. */
export function nodesWithMemory(memblock: Memblock): number[] {
  const nids = new Set(memblock.memory.regions.map((region) => region.nid).filter(isValidNode));
  return [...nids].sort((a, b) => a - b);
}

/**
 * Reserves scratch as kho_reserve_scratch() of Linux 7.2 does: first the array, then the areas, from the top of memory
 * down.
 *
 * With a scale s, in percent, and K the bytes that the kernel allocated so far (RSRV_KERN): lowmem is K below 4 GiB × s,
 * global is all K × s less that, a node's is what it was asked for by node × s; all cut to whole bytes, then rounded up to
 * {@link SCRATCH_ALIGNMENT_BYTES}. Fixed sizes are rounded up too. (Earlier kernels left fixed sizes of lowmem and
 * global as they were, and took the rounded lowmem size off the total.)
 * The lowmem area lies below 4 GiB, a node's on that node, the global one anywhere.
 *
 * KHO_ENOMEM names the area for which there was no room; nothing stays reserved then. (The kernel boots on, with KHO off.)
 */
export function reserveScratch(
  memblock: Memblock,
  parameter: ScratchParameter,
  nodes: readonly number[] = nodesWithMemory(memblock),
): Scratch {
  // Sizes come first: the array and the areas are RSRV_KERN themselves and must not count.
  const lowmem = scaled(memblock.reservedKernSize(ARCH_LOW_ADDRESS_LIMIT), parameter.scale);
  const total = scaled(memblock.reservedKernSize(), parameter.scale);
  const fixed = parameter.scale === 0;

  const tableSize = (nodes.length + 2) * KHO_SCRATCH_ENTRY_SIZE;
  const table = memblock.allocTryNid(tableSize, PAGE_SIZE);
  if (table === undefined) throw outOfMemory(memblock, 'the scratch array', tableSize);
  const areas: ScratchArea[] = [];
  const reserveArea = (area: Omit<ScratchArea, 'address'>, name: string, limits: Limits): void => {
    const size = alignUp(area.size, SCRATCH_ALIGNMENT_BYTES);
    const address = memblock.allocRangeNid(
      size,
      SCRATCH_ALIGNMENT_BYTES,
      physicalAddress(0),
      limits.end ?? MEMBLOCK_ALLOC_ACCESSIBLE,
      limits.nid,
      limits.nid !== undefined,
    );
    if (address === undefined) throw outOfMemory(memblock, `the ${name} scratch area`, size, limits);
    areas.push({ ...area, address, size });
  };

  try {
    reserveArea({ kind: 'lowmem', size: fixed ? parameter.lowmem : lowmem }, 'lowmem', { end: ARCH_LOW_ADDRESS_LIMIT });
    reserveArea({ kind: 'global', size: fixed ? parameter.global : total - lowmem }, 'global', {});
    for (const nid of nodes) {
      const wanted = fixed ? parameter.pernode : scaled(memblock.reservedKernSize(undefined, nid), parameter.scale);
      reserveArea({ kind: 'node', nid, size: wanted }, `node ${nid}`, { nid });
    }
  } catch (error) {
    for (const area of areas) memblock.free(area.address, area.size);
    memblock.free(table, tableSize);
    throw error;
  }
  return { table, tableSize, areas };
}

/** `size` × `percent` / 100, cut to whole bytes; what exceeds the address space is as good as any size that does not fit. */
function scaled(size: number, percent: number): number {
  const bytes = (BigInt(size) * BigInt(percent)) / 100n;
  return bytes > BigInt(PHYS_ADDR_MAX) ? PHYS_ADDR_MAX : Number(bytes);
}
