import { type PhysicalAddress, physicalAddress } from '#dist/memblock/address.js';
import { Memblock } from '#dist/memblock/memblock.js';
import type { MemblockType } from '#dist/memblock/memblock-type.js';
import { MAX_NUMNODES, MemblockFlags } from '#dist/memblock/region.js';

/** [first byte, bytes], the first byte as an offset from where the machine's memory begins. */
export type Span = readonly [offset: number, size: number];

/** The modes in which each case is run. */
export interface MachineMode {
  bottomUp: boolean;
  /** `movable_node`: the nodes' memory is then not hotpluggable, and without it all of it is, which changes nothing. */
  movableNode: boolean;
  /** The machine's memory, for allocations that clear it. */
  bytes: Uint8Array;
}

/** Where the machine's memory begins: far from address 0, with room below. */
export const MEMORY_BASE = 2 ** 30;
/** Bytes of memory, from offset 0. */
export const END = 32 * 1024;
/** The alignment that the cases ask for, a cache line of the simulator. */
export const LINE = 32;

/** The nodes of the machine with nodes, by node id: a quarter, a sixteenth, an eighth of its memory … */
export const NODES: readonly Span[] = [1 / 4, 1 / 16, 1 / 8, 1 / 8, 1 / 16, 1 / 16, 1 / 4, 1 / 16].reduce<Span[]>(
  (nodes, share) => {
    const [base, size] = nodes.at(-1) ?? [0, 0];
    nodes.push([base + size, END * share]);
    return nodes;
  },
  [],
);

/** The address at an offset from the beginning of the machine's memory. */
export function at(offset: number): PhysicalAddress {
  return physicalAddress(MEMORY_BASE + offset);
}

/** A memblock with the machine's memory: in one piece of no node, in {@link NODES}, or none at all. */
export function smallMachine(
  memory: 'one piece' | 'nodes' | 'none',
  { bottomUp, movableNode, bytes }: Partial<MachineMode> = {},
): Memblock {
  const memblock = new Memblock(undefined, {
    clear: (address, size) => void bytes?.fill(0, address - MEMORY_BASE, address - MEMORY_BASE + size),
  });
  memblock.bottomUp = bottomUp ?? false;
  memblock.movableNode = movableNode ?? false;
  if (memory === 'one piece') memblock.addNode(at(0), END, MAX_NUMNODES);
  if (memory === 'nodes') {
    const flags = memblock.movableNode ? MemblockFlags.NONE : MemblockFlags.HOTPLUG;
    for (const [nid, [offset, size]] of NODES.entries()) memblock.addNode(at(offset), size, nid, flags);
  }
  return memblock;
}

/** The regions as spans. */
export function spans(type: MemblockType): Span[] {
  return type.regions.map(({ base, size }) => [base - MEMORY_BASE, size]);
}

/** Bytes in all the spans. */
export function bytesOf(all: readonly Span[]): number {
  return all.reduce((sum, [, size]) => sum + size, 0);
}
