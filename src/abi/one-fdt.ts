import { KhoError } from '../errors.js';
import { type DtsNode, type FdtNode, type FdtReader, TreeNode } from '../fdt/index.js';
import {
  type Folio,
  hex,
  naturalOrders,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
  preservedPages,
} from '../memblock/index.js';
import { decodeKhoMem, type KhoMem } from './kho-mem.js';
import { PROP_PRESERVED_MEMORY_MAP } from './kho-root.js';
import { MEMBLOCK_SUBTREE_NAME, memblockNode, type NamedReservation, readMemblockNode } from './memblock-fdt.js';
import { type OneFdtProfile, SERIES_V4, SERIES_V5 } from './profile.js';
import { PROP_MEM, RESERVE_MEM_NODE_NAME, readReserveMemNode, reserveMemNode } from './reserve-mem-node.js';
import { PROP_SUB_FDT } from './subtree.js';

/**
 * The one FDT of the patch series v4 and v5 of early 2025, in which every driver is a node:
 *
 * ```text
 *   series v4                                    series v5
 *   / { compatible = "kho-v1";                   / { compatible = "kho-v1";
 *       reserve_mem { … };                           memblock { … };
 *       <driver> { compatible;                       preserved-memory { metadata = first khoser_mem_chunk; };
 *           <instance> { mem = ranges; … }; … };     <driver> { compatible; <instance> { … }; … }; … };
 *       … };
 * ```
 *
 * It lies in a kexec segment of its own, in scratch: it is not preserved, the next kernel reserves it where it finds it.
 */

/** The room for the FDT unless told otherwise: 10 MiB, as both series have it (dt_max, fdt_max). */
export const ONE_FDT_ROOM = 10 * 2 ** 20;
/** The largest room that can be asked for, and the largest FDT that is read. */
export const ONE_FDT_ROOM_MAX = 2 ** 28;

const PRESERVED_MEMORY_NODE_NAME = 'preserved-memory';
const PROP_METADATA = 'metadata';

/** KHO_EINVAL unless `bytes` can be the room of the one FDT. */
export function checkOneFdtRoom(bytes: number): void {
  if (!Number.isInteger(bytes) || bytes < PAGE_SIZE || bytes > ONE_FDT_ROOM_MAX || bytes % PAGE_SIZE !== 0) {
    const text = `${bytes} bytes are no room for the FDT; expected 4K to 256M, a multiple of 4K`;
    throw new KhoError('KHO_EINVAL', text, { field: 'fdtMax' });
  }
}

/** The names of the core's own nodes, which no driver can have. */
export function oneFdtCoreNames({ preservedMemory }: OneFdtProfile): readonly string[] {
  return preservedMemory === 'chunk-list'
    ? [MEMBLOCK_SUBTREE_NAME, PRESERVED_MEMORY_NODE_NAME]
    : [RESERVE_MEM_NODE_NAME];
}

/** The core's own nodes, in order. `firstChunk` is of series v5 alone; undefined where nothing is preserved. */
export function oneFdtCoreNodes(
  { preservedMemory }: OneFdtProfile,
  reservations: readonly NamedReservation[],
  firstChunk?: PhysicalAddress,
): TreeNode[] {
  if (preservedMemory !== 'chunk-list') return [reserveMemNode(reservations)];
  const preserved = new TreeNode(PRESERVED_MEMORY_NODE_NAME);
  preserved.addProperty(PROP_METADATA, new Uint8Array(BigUint64Array.of(BigInt(firstChunk ?? 0)).buffer));
  return [memblockNode(reservations), preserved];
}

/** What the one FDT says. */
export interface OneFdt {
  readonly profile: OneFdtProfile;
  readonly reader: FdtReader;
  /** Series v5: where the list of preserved memory begins; undefined where nothing is preserved. */
  readonly firstChunk?: PhysicalAddress;
  /** Series v4: every property `mem` of any node, in the order of the blob. */
  readonly mem: readonly MemProperty[];
  /** The node with the `reserve_mem=` areas, if there is one: {@link readReservations}. */
  readonly reservations?: FdtNode;
  /** The nodes of drivers, in the order of the blob. */
  readonly drivers: readonly FdtNode[];
}

/** A property `mem`: preserved memory, and the node that it belongs to. */
export interface MemProperty {
  /** Of the node. */
  readonly path: string;
  readonly value: Uint8Array;
}

/** The preserved ranges that a property `mem` lists. KHO_EIMAGE for one that is malformed. */
export function memRanges({ path, value }: MemProperty): KhoMem[] {
  return decodeKhoMem(value, `${path === '/' ? '' : path}/${PROP_MEM}`);
}

/** The whole pages of a preserved range as objects: one, if it is the size of a folio and aligned to it. */
export function memFolios(range: KhoMem): Iterable<Folio> {
  const { address, pages } = preservedPages(range);
  return naturalOrders(address, pages);
}

/**
 * Reads the one FDT. The kernels of both series did not check the compatible, and both say "kho-v1", which Linux 6.16 to
 * 7.0 say too: they are told apart by what is there.
 *
 * KHO_EIMAGE for another compatible, for kho-v1 as it was released, where it cannot be told which of the two it is, and
 * for values that are wrong.
 */
export function readOneFdt(reader: FdtReader): OneFdt {
  const { root } = reader;
  const profile = seriesOf(root);
  const core = new Set(oneFdtCoreNames(profile));
  const nodes = [...root.children()];
  const drivers = nodes.filter(({ name }) => !core.has(name));
  const reservations = nodes.find(({ name }) => name === MEMBLOCK_SUBTREE_NAME || name === RESERVE_MEM_NODE_NAME);
  const own = reservations !== undefined && core.has(reservations.name) ? { reservations } : {};
  if (profile === SERIES_V4) return { profile, reader, ...own, drivers, mem: [...memProperties(root)] };
  const firstChunk = firstChunkOf(root);
  return { profile, reader, ...own, drivers, mem: [], ...(firstChunk === undefined ? {} : { firstChunk }) };
}

/** The areas of `reserve_mem=` that are handed over. KHO_EIMAGE for a node that is not as its series has it. */
export function readReservations({ profile, reservations }: OneFdt): NamedReservation[] {
  if (reservations === undefined) return [];
  return profile === SERIES_V4 ? readReserveMemNode(reservations) : readMemblockNode(reservations);
}

/** Which series an FDT is of. KHO_EIMAGE if it is neither, or if that cannot be told. */
function seriesOf(root: FdtNode): OneFdtProfile {
  const compatible = root.property('compatible')?.string();
  if (compatible !== SERIES_V4.compatible) {
    throw new KhoError('KHO_EIMAGE', `the FDT is '${compatible}', expected '${SERIES_V4.compatible}'`);
  }
  if (hasFirstChunk(root)) return SERIES_V5;
  if (isReleasedRoot(root)) {
    const text = `the FDT is 'kho-v1' as Linux 6.16 to 7.0 has it, with blobs by address`;
    throw new KhoError('KHO_EIMAGE', `${text}; the patch series of that compatible have all in one FDT`);
  }
  if (root.child(RESERVE_MEM_NODE_NAME) !== undefined || hasMem(root)) return SERIES_V4;
  throw new KhoError(
    'KHO_EIMAGE',
    `the FDT is 'kho-v1', and it cannot be told which: there is neither ${PRESERVED_MEMORY_NODE_NAME}/${PROP_METADATA} ` +
      `(series v5), nor ${RESERVE_MEM_NODE_NAME} or any property '${PROP_MEM}' (series v4), nor ` +
      `${PROP_PRESERVED_MEMORY_MAP} or a node with nothing but '${PROP_SUB_FDT}' (Linux 6.16 to 7.0)`,
  );
}

/** Whether a root that says "kho-v1" is one of a released kernel: it has a memory map, or a node that is a blob's. */
export function isReleasedRoot(root: DtsNode): boolean {
  if (hasFirstChunk(root)) return false;
  return hasProperty(root, PROP_PRESERVED_MEMORY_MAP) || [...root.children()].some(isSubFdt);
}

function hasFirstChunk(root: DtsNode): boolean {
  const isList = ({ name }: DtsNode): boolean => name === PRESERVED_MEMORY_NODE_NAME;
  return [...root.children()].some((node) => isList(node) && hasProperty(node, PROP_METADATA));
}

function hasProperty(node: DtsNode, wanted: string): boolean {
  for (const { name } of node.properties()) if (name === wanted) return true;
  return false;
}

function isSubFdt(node: DtsNode): boolean {
  const [first, second] = node.properties();
  return first?.name === PROP_SUB_FDT && first.value.length === 8 && second === undefined;
}

function hasMem(node: FdtNode): boolean {
  if (node.property(PROP_MEM) !== undefined) return true;
  for (const child of node.children()) if (hasMem(child)) return true;
  return false;
}

function* memProperties(node: FdtNode): Generator<MemProperty, void> {
  const mem = node.property(PROP_MEM);
  if (mem !== undefined) yield { path: node.path, value: mem.value };
  for (const child of node.children()) yield* memProperties(child);
}

function firstChunkOf(root: FdtNode): PhysicalAddress | undefined {
  const node = root.child(PRESERVED_MEMORY_NODE_NAME);
  const value = node?.property(PROP_METADATA)?.number64('little') ?? 0;
  if (value === 0) return undefined;
  if (value % PAGE_SIZE !== 0) {
    const path = `/${PRESERVED_MEMORY_NODE_NAME}/${PROP_METADATA}`;
    throw new KhoError('KHO_EIMAGE', `${path} is ${hex(value)}, which is not the address of a page`, { path });
  }
  return physicalAddress(value);
}
