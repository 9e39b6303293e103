import { KhoError } from '../errors.js';
import { type DtsNode, FDT_HEADER_SIZE, FDT_HEADER_TOTALSIZE, FDT_MAGIC } from '../fdt/index.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import type { SubBlobsProfile } from './profile.js';
import { type ReadableMemory, readUntrusted } from './structure.js';

/** The address of a blob since kho-v2, of an FDT in kho-v1, and the size of a blob since kho-v3. */
export const PROP_PRESERVED_DATA = 'preserved-data';
export const PROP_SUB_FDT = 'fdt';
export const PROP_BLOB_SIZE = 'blob-size';
const POINTERS: readonly string[] = [PROP_PRESERVED_DATA, PROP_SUB_FDT, PROP_BLOB_SIZE];

/** A sub-FDT that says it is larger is damaged. */
const SUB_FDT_MAX = 2 ** 30;

/** A blob that the root FDT points to: a driver's FDT, or raw data such as kexec-metadata. */
export interface Subtree {
  readonly name: string;
  readonly address: PhysicalAddress;
  /** Bytes, at least 1. */
  readonly size: number;
}

/** The properties that a node of the root FDT has in a profile. */
export function subtreeProperties({ subtrees: { addressProperty, sized } }: SubBlobsProfile): readonly string[] {
  return sized ? [PROP_BLOB_SIZE, addressProperty] : [addressProperty];
}

/**
 * Reads a node of the root FDT. Where the profile hands no size over, it comes from the header of the FDT at the address.
 * KHO_EIMAGE, with the node's path, for a property that is missing, is no address or size, or belongs to another profile
 * (a kernel would not look at that one); and for a blob that must be an FDT and is none.
 */
export function readSubtree(node: DtsNode, profile: SubBlobsProfile, memory: ReadableMemory): Subtree {
  const { addressProperty, sized } = profile.subtrees;
  const wanted = subtreeProperties(profile);
  const found = [...node.properties()].map(({ name }) => name).filter((name) => POINTERS.includes(name));
  const foreign = found.filter((name) => !wanted.includes(name)).map((name) => `'${name}'`);
  const instead = foreign.length === 0 ? '' : `, but ${foreign.join(' and ')}, as another profile has it`;
  const missing = [addressProperty, ...wanted].find((name) => !found.includes(name));
  if (missing !== undefined) {
    throw bad(node, `the subtree '${node.name}' has no ${missing}${instead}: it is no subtree of ${profile.name}`);
  }
  if (foreign.length > 0) {
    throw bad(node, `the subtree '${node.name}' has ${foreign.join(' and ')}, which ${profile.name} does not have`);
  }
  const address = pageAddressIn(node, addressProperty) ?? 0;
  if (address === 0) throw bad(node, `/${node.name}/${addressProperty} is 0, where no blob lies`);
  const size = sized
    ? numberIn(node, PROP_BLOB_SIZE)
    : subFdtSize(memory, physicalAddress(address), `the blob '${node.name}' of ${profile.name}`);
  if (size === undefined || size === 0 || address + size > PHYS_ADDR_MAX) {
    throw bad(node, `/${node.name}/${PROP_BLOB_SIZE} is ${size}, which is no size`);
  }
  return { name: node.name, address: physicalAddress(address), size };
}

/** A native 64-bit property; undefined if there is none. KHO_EIMAGE unless it has 8 bytes, and is an address or size at all. */
export function numberIn(node: DtsNode, name: string): number | undefined {
  for (const property of node.properties()) {
    if (property.name !== name) continue;
    const { value } = property;
    if (value.length !== 8) throw bad(node, `${name} of '/${node.name}' has ${value.length} bytes, not 8`);
    const word = new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0, true);
    if (word > BigInt(PHYS_ADDR_MAX)) throw bad(node, `${name} of '/${node.name}' is ${hex(word)}, above 2^52`);
    return Number(word);
  }
  return undefined;
}

/** The same, of the address of a page: KHO_EIMAGE for another one. */
export function pageAddressIn(node: DtsNode, name: string): number | undefined {
  const value = numberIn(node, name);
  if (value === undefined || value % PAGE_SIZE === 0) return value;
  const where = node.name === '' ? name : `/${node.name}/${name}`;
  throw bad(node, `${where} is ${hex(value)}, which is not the address of a page`);
}

/** The size of the FDT at an address, by its header. KHO_EIMAGE if there is none. */
export function subFdtSize(memory: ReadableMemory, address: PhysicalAddress, what: string): number {
  const header = readUntrusted(memory, address, FDT_HEADER_SIZE, what);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (view.getUint32(0) !== FDT_MAGIC) {
    const text = `${what} at ${hex(address)} is no FDT, and nothing else tells its size`;
    throw new KhoError('KHO_EIMAGE', text, { address });
  }
  const size = view.getUint32(FDT_HEADER_TOTALSIZE);
  if (size < FDT_HEADER_SIZE || size > SUB_FDT_MAX) {
    throw new KhoError('KHO_EIMAGE', `${what} at ${hex(address)} says that it has ${size} bytes`, { address, size });
  }
  return size;
}

function bad(node: DtsNode, text: string): KhoError {
  return new KhoError('KHO_EIMAGE', text, { path: `/${node.name}` });
}
