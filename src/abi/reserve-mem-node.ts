import { KhoError } from '../errors.js';
import { type FdtNode, TreeNode } from '../fdt/index.js';
import { decodeKhoMem, encodeKhoMem, KHO_MEM_SIZE } from './kho-mem.js';
import type { NamedReservation } from './memblock-fdt.js';

/**
 * The node in which the patch series v4 hands `reserve_mem=` areas over (Documentation/kho/bindings/memblock/, February
 * 2025). Mind the underscores: the series v5 has dashes and other properties (memblock-fdt.ts).
 *
 * ```text
 *   reserve_mem { compatible = "reserve_mem-v1";
 *       NAME { compatible = "reserve_mem_map-v1"; mem = one struct kho_mem; }; };
 * ```
 */
export const RESERVE_MEM_NODE_NAME = 'reserve_mem';
const NODE_COMPATIBLE = 'reserve_mem-v1';
const MAP_COMPATIBLE = 'reserve_mem_map-v1';
/** Lists preserved memory as an array of struct kho_mem, in any node of the FDT. */
export const PROP_MEM = 'mem';

const encoder = new TextEncoder();

export function reserveMemNode(reservations: readonly NamedReservation[]): TreeNode {
  const node = new TreeNode(RESERVE_MEM_NODE_NAME);
  node.addProperty('compatible', encoder.encode(`${NODE_COMPATIBLE}\0`));
  for (const { name, address, size } of reservations) {
    const map = node.addChild(name);
    map.addProperty('compatible', encoder.encode(`${MAP_COMPATIBLE}\0`));
    map.addProperty(PROP_MEM, encodeKhoMem([{ address, size }]));
  }
  return node;
}

/** Reads it back. KHO_EIMAGE for another compatible, and for a reservation that {@link readReserveMemMap} refuses. */
export function readReserveMemNode(node: FdtNode): NamedReservation[] {
  const compatible = node.property('compatible')?.string();
  if (compatible !== NODE_COMPATIBLE) {
    throw new KhoError('KHO_EIMAGE', `the node ${node.path} is '${compatible}', expected '${NODE_COMPATIBLE}'`);
  }
  return [...node.children()].map(readReserveMemMap);
}

/** One reservation of it. KHO_EIMAGE for another compatible, or unless `mem` is exactly one element. */
export function readReserveMemMap(node: FdtNode): NamedReservation {
  const mem = node.property(PROP_MEM)?.value;
  if (node.property('compatible')?.string() !== MAP_COMPATIBLE || mem?.length !== KHO_MEM_SIZE) {
    const text = `the reservation ${node.path} is not a ${MAP_COMPATIBLE} with one range`;
    throw new KhoError('KHO_EIMAGE', text, { path: node.path });
  }
  const [range] = decodeKhoMem(mem, `${node.path}/${PROP_MEM}`);
  return { name: node.name, ...range };
}
