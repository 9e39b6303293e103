import { KhoError } from '../errors.js';
import { type FdtNode, FdtReader, FdtWriter } from '../fdt/index.js';
import { type PhysicalAddress, physicalAddress } from '../memblock/index.js';

/** The sub-FDT in which `reserve_mem=` areas are handed over (Linux 7.2, include/linux/kho/abi/memblock.h). */
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

/** Reads it back. KHO_EIMAGE for another compatible or a node without start and size. */
export function readMemblockFdt(blob: Uint8Array): NamedReservation[] {
  const { root } = FdtReader.open(blob);
  const compatible = root.property('compatible')?.string();
  if (compatible !== MEMBLOCK_COMPATIBLE) {
    throw new KhoError('KHO_EIMAGE', `the memblock subtree is '${compatible}', expected '${MEMBLOCK_COMPATIBLE}'`);
  }
  return [...root.children()].map(readReservation);
}

/** One reservation of the sub-FDT. KHO_EIMAGE for another compatible, or without start and size. */
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
