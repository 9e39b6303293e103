import { KhoError } from '../errors.js';
import { FdtReader, FdtWriter } from '../fdt/index.js';
import { PAGE_SIZE, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import type { SubBlobsProfile } from './profile.js';
import type { ReadableMemory } from './structure.js';
import { PROP_BLOB_SIZE, pageAddressIn, readSubtree, type Subtree, subtreeProperties } from './subtree.js';

/** The property of the root FDT that leads to what lists preserved memory (include/linux/kho/abi/kexec_handover.h). */
export const PROP_PRESERVED_MEMORY_MAP = 'preserved-memory-map';

/** The root FDT is one page in kho-v1 to kho-v4. */
export const ROOT_FDT_SIZE = PAGE_SIZE;

/** What the root FDT says. */
export interface KhoRoot {
  readonly profile: SubBlobsProfile;
  /** The root page of the tracker, or the first chunk; undefined if nothing is preserved, which only a chunk list can say. */
  readonly memoryMap: PhysicalAddress | undefined;
  readonly subtrees: readonly Subtree[];
}

/**
 * Writes the root FDT into `into` (at least {@link ROOT_FDT_SIZE} bytes) and returns its size.
 *
 * `subtrees` are in the order in which they were added. Where the newest comes first in the blob, blob-size comes before
 * preserved-data too: Linux adds each with libfdt's fdt_add_subnode() and fdt_setprop(), which insert at the front.
 * KHO_ENOMEM, the kernel's error, when the page cannot hold them all; KHO_EEXIST for a name that is there twice.
 */
export function writeKhoRoot(into: Uint8Array, root: KhoRoot): number {
  const { profile, memoryMap = 0, subtrees } = root;
  const properties = subtreeProperties(profile);
  const names = [...properties, 'compatible', PROP_PRESERVED_MEMORY_MAP].sort();
  const writer = new FdtWriter({ into: into.subarray(0, ROOT_FDT_SIZE), strings: names });
  const met = new Set<string>();
  try {
    writer.beginNode('');
    writer.string('compatible', profile.compatible);
    writer.u64(PROP_PRESERVED_MEMORY_MAP, memoryMap, 'little');
    const ordered = profile.subtrees.order === 'newest first' ? [...subtrees].reverse() : subtrees;
    for (const { name, address, size } of ordered) {
      if (met.has(name)) throw new KhoError('KHO_EEXIST', `the root FDT has a subtree '${name}' already`);
      met.add(name);
      writer.beginNode(name);
      for (const property of properties) writer.u64(property, property === PROP_BLOB_SIZE ? size : address, 'little');
      writer.endNode();
    }
    writer.endNode();
    return writer.finish().length;
  } catch (error) {
    if (!(error instanceof KhoError && error.code === 'KHO_FDT_NOSPACE')) throw error;
    throw new KhoError(
      'KHO_ENOMEM',
      `the root FDT is one page, and ${subtrees.length} subtrees do not fit: after ${met.size - 1} there is no room`,
      { size: ROOT_FDT_SIZE },
      { cause: error },
    );
  }
}

/**
 * Reads and checks a root FDT as kho_populate() does: header, compatible, a memory map; and each subtree's properties.
 * `memory` is where the blobs lie, whose headers tell their sizes in some of the profiles. It is of the first of `profiles`
 * with its compatible. Every failure is a KhoError that says what is wrong (the kernel would print "disabling KHO revival").
 */
export function readKhoRoot(blob: Uint8Array, profiles: readonly SubBlobsProfile[], memory: ReadableMemory): KhoRoot {
  const { root } = FdtReader.open(blob);
  const compatible = root.property('compatible')?.string();
  if (compatible === undefined) throw new KhoError('KHO_EIMAGE', 'the root FDT has no compatible property');
  const profile = profiles.find((candidate) => candidate.compatible === compatible);
  if (profile === undefined) {
    const known = [...new Set(profiles.map((candidate) => candidate.compatible))].join(', ');
    throw new KhoError('KHO_EIMAGE', `the root FDT is '${compatible}', which is incompatible: expected ${known}`);
  }
  const map = pageAddressIn(root, PROP_PRESERVED_MEMORY_MAP) ?? 0;
  if (map === 0 && profile.preservedMemory === 'radix-tree') {
    throw new KhoError('KHO_EIMAGE', `the root FDT has no ${PROP_PRESERVED_MEMORY_MAP}`);
  }
  const subtrees = [...root.children()].map((node) => readSubtree(node, profile, memory));
  if (profile.subtrees.order === 'newest first') subtrees.reverse();
  return { profile, memoryMap: map === 0 ? undefined : physicalAddress(map), subtrees };
}
