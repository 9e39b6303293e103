import { KhoError } from '../errors.js';
import { FdtReader, FdtWriter } from '../fdt/index.js';
import { hex, PAGE_SIZE, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import type { Profile } from './profile.js';

/** Properties of the root FDT since kho-v3 (include/linux/kho/abi/kexec_handover.h, Linux 7.2). */
export const PROP_PRESERVED_MEMORY_MAP = 'preserved-memory-map';
export const PROP_PRESERVED_DATA = 'preserved-data';
export const PROP_BLOB_SIZE = 'blob-size';

/** The root FDT is one page in kho-v1 to kho-v4. */
export const ROOT_FDT_SIZE = PAGE_SIZE;

/** A blob that the root FDT points to: a driver's FDT, or raw data such as kexec-metadata. */
export interface Subtree {
  readonly name: string;
  readonly address: PhysicalAddress;
  /** Bytes, at least 1. */
  readonly size: number;
}

/** What the root FDT says. */
export interface KhoRoot {
  readonly compatible: string;
  /** The root page of the preserved-page tracker. */
  readonly memoryMap: PhysicalAddress;
  readonly subtrees: readonly Subtree[];
}

/**
 * Writes the root FDT into `into` (at least {@link ROOT_FDT_SIZE} bytes) and returns its size.
 *
 * `subtrees` are in the order in which they were added. In the blob the newest comes first, and blob-size before
 * preserved-data, because Linux adds each with libfdt's fdt_add_subnode() and fdt_setprop(), which insert at the front.
 * KHO_ENOMEM, the kernel's error, when the page cannot hold them all; KHO_EEXIST for a name that is there twice.
 */
export function writeKhoRoot(into: Uint8Array, profile: Profile, root: Omit<KhoRoot, 'compatible'>): number {
  const names = [PROP_BLOB_SIZE, 'compatible', PROP_PRESERVED_DATA, PROP_PRESERVED_MEMORY_MAP];
  const writer = new FdtWriter({ into: into.subarray(0, ROOT_FDT_SIZE), strings: names });
  const met = new Set<string>();
  try {
    writer.beginNode('');
    writer.string('compatible', profile.compatible);
    writer.u64(PROP_PRESERVED_MEMORY_MAP, root.memoryMap, 'little');
    for (const { name, address, size } of [...root.subtrees].reverse()) {
      if (met.has(name)) throw new KhoError('KHO_EEXIST', `the root FDT has a subtree '${name}' already`);
      met.add(name);
      writer.beginNode(name);
      writer.u64(PROP_BLOB_SIZE, size, 'little');
      writer.u64(PROP_PRESERVED_DATA, address, 'little');
      writer.endNode();
    }
    writer.endNode();
    return writer.finish().length;
  } catch (error) {
    if (!(error instanceof KhoError && error.code === 'KHO_FDT_NOSPACE')) throw error;
    throw new KhoError(
      'KHO_ENOMEM',
      `the root FDT is one page, and ${root.subtrees.length} subtrees do not fit: after ${met.size - 1} there is no room`,
      { size: ROOT_FDT_SIZE },
      { cause: error },
    );
  }
}

/**
 * Reads and checks a root FDT as kho_populate() does: header, compatible, a memory map; and each subtree's properties.
 * Every failure is a KhoError that says what is wrong (the kernel would print "disabling KHO revival").
 */
export function readKhoRoot(blob: Uint8Array, profiles: readonly Profile[]): KhoRoot {
  const { root } = FdtReader.open(blob);
  const compatible = root.property('compatible')?.string();
  if (compatible === undefined) throw new KhoError('KHO_EIMAGE', 'the root FDT has no compatible property');
  if (!profiles.some((profile) => profile.compatible === compatible)) {
    const known = profiles.map((profile) => profile.compatible).join(', ');
    throw new KhoError('KHO_EIMAGE', `the root FDT is '${compatible}', which is incompatible: expected ${known}`);
  }
  const map = root.property(PROP_PRESERVED_MEMORY_MAP);
  const memoryMap = map === undefined ? 0 : addressOf(map.number64('little'), PROP_PRESERVED_MEMORY_MAP);
  if (memoryMap === 0) throw new KhoError('KHO_EIMAGE', `the root FDT has no ${PROP_PRESERVED_MEMORY_MAP}`);
  const subtrees: Subtree[] = [];
  for (const node of root.children()) {
    const data = node.property(PROP_PRESERVED_DATA);
    const size = node.property(PROP_BLOB_SIZE);
    if (data === undefined || size === undefined) {
      const missing = data === undefined ? PROP_PRESERVED_DATA : PROP_BLOB_SIZE;
      throw new KhoError('KHO_EIMAGE', `the subtree '${node.name}' has no ${missing}`, { path: node.path });
    }
    subtrees.push({
      name: node.name,
      address: addressOf(data.number64('little'), `${node.path}/${PROP_PRESERVED_DATA}`),
      size: size.number64('little'),
    });
  }
  return { compatible, memoryMap: physicalAddress(memoryMap), subtrees: subtrees.reverse() };
}

function addressOf(value: number, where: string): PhysicalAddress {
  if (value % PAGE_SIZE !== 0) {
    throw new KhoError('KHO_EIMAGE', `${where} is ${hex(value)}, which is not the address of a page`, { path: where });
  }
  return physicalAddress(value);
}
