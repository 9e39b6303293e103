import { KhoError } from '../errors.js';
import { type FdtNode, FdtReader, FdtWriter, TreeNode } from '../fdt/index.js';
import { type PhysicalAddress, physicalAddress } from '../memblock/index.js';

/**
 * The sub-FDT in which `reserve_mem=` areas are handed over (Linux 7.2, include/linux/kho/abi/memblock.h). In the patch
 * series v5 the same is a node of the one FDT.
 */
export const MEMBLOCK_SUBTREE_NAME = 'memblock';
export const MEMBLOCK_COMPATIBLE = 'memblock-v1';
const RESERVE_MEM_COMPATIBLE = 'reserve-mem-v1';

/** A named reservation: one node with native 64-bit `start` and `size`. */
export interface NamedReservation {
  readonly name: string;
  readonly address: PhysicalAddress;
  readonly size: number;
}

/** Writes the sub-FDT into `into` (a page) and returns its size. KHO_FDT_NOSPACE when it does not fit. */
export function writeMemblockFdt(into: Uint8Array, reservations: readonly NamedReservation[]): number {
  const writer = new FdtWriter({ into, strings: ['compatible', 'size', 'start'] });
  writer.beginNode('');
  writer.string('compatible', MEMBLOCK_COMPATIBLE);
  for (const { name, address, size } of reservations) {
    writer.beginNode(name);
    writer.string('compatible', RESERVE_MEM_COMPATIBLE);
    writer.u64('start', address, 'little');
    writer.u64('size', size, 'little');
    writer.endNode();
  }
  writer.endNode();
  return writer.finish().length;
}

/** The same as a node of the one FDT of series v5. */
export function memblockNode(reservations: readonly NamedReservation[]): TreeNode {
  const encoder = new TextEncoder();
  const node = new TreeNode(MEMBLOCK_SUBTREE_NAME);
  node.addProperty('compatible', encoder.encode(`${MEMBLOCK_COMPATIBLE}\0`));
  for (const { name, address, size } of reservations) {
    const area = node.addChild(name);
    area.addProperty('compatible', encoder.encode(`${RESERVE_MEM_COMPATIBLE}\0`));
    area.addProperty('start', u64(address));
    area.addProperty('size', u64(size));
  }
  return node;
}

/** Reads a sub-FDT back. KHO_EIMAGE for another compatible or a node without start and size. */
export function readMemblockFdt(blob: Uint8Array): NamedReservation[] {
  return readMemblockNode(FdtReader.open(blob).root);
}

/** Reads the root of a sub-FDT, or the node of series v5. The same errors. */
export function readMemblockNode(node: FdtNode): NamedReservation[] {
  const compatible = node.property('compatible')?.string();
  if (compatible !== MEMBLOCK_COMPATIBLE) {
    throw new KhoError('KHO_EIMAGE', `the memblock subtree is '${compatible}', expected '${MEMBLOCK_COMPATIBLE}'`);
  }
  return [...node.children()].map(readReservation);
}

/** One reservation of it. KHO_EIMAGE for another compatible, or without start and size. */
export function readReservation(node: FdtNode): NamedReservation {
  const start = node.property('start');
  const size = node.property('size');
  if (node.property('compatible')?.string() !== RESERVE_MEM_COMPATIBLE || start === undefined || size === undefined) {
    throw new KhoError('KHO_EIMAGE', `the reservation ${node.path} is not a ${RESERVE_MEM_COMPATIBLE}`, {
      path: node.path,
    });
  }
  return { name: node.name, address: physicalAddress(start.number64('little')), size: size.number64('little') };
}

function u64(value: number): Uint8Array {
  return new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);
}
