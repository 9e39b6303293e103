import {
  KHO_V4,
  PROP_BLOB_SIZE,
  PROP_PRESERVED_DATA,
  PROP_PRESERVED_MEMORY_MAP,
  type Profile,
  type ProfileName,
  ROOT_FDT_SIZE,
  readUntrusted,
  type Subtree,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { type DtsNode, type DtsTree, FdtReader, readPartialFdt } from '../fdt/index.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import type { InspectContext } from './context.js';
import { formatDecodedDts } from './decoded-dts.js';

/** What the root FDT says, or the one FDT, as far as it can be read. */
export interface RootReport {
  readonly form: Profile['form'];
  /** Which of those with this compatible it is; absent where nothing can be told. */
  readonly profile?: ProfileName;
  readonly address: number;
  /** Bytes of the blob in its page, by its header. */
  readonly size: number;
  readonly compatible?: string;
  /** The root page of the tracker. */
  readonly memoryMap?: number;
  readonly dts: string;
}

/** The root FDT and what it points to. */
export interface InspectedRoot {
  readonly report?: RootReport;
  readonly memoryMap?: PhysicalAddress;
  /** The subtrees whose address and size are in order, in the order in which they were added. */
  readonly subtrees: readonly Subtree[];
  /** The page holds no FDT at all: it may be no root FDT any more. */
  readonly reused: boolean;
}

/**
 * Reads the root FDT as kho_populate() checks it: header, compatible, memory map, and each subtree. What is wrong is found,
 * and what is not is read; a blob that is damaged is read up to its damage.
 */
export function inspectRoot(context: InspectContext, address: PhysicalAddress): InspectedRoot {
  const { findings } = context;
  const page = findings.attempt(() => readUntrusted(context.memory, address, ROOT_FDT_SIZE, 'the root FDT'));
  if (page === undefined) return { subtrees: [], reused: false };
  const opened = openTree(context, address, page);
  if (opened === undefined) return { subtrees: [], reused: true };
  const { tree, size } = opened;
  const { root } = tree;
  const compatible = root === undefined ? undefined : textOf(root, 'compatible');
  if (compatible !== KHO_V4.compatible) {
    const said = compatible === undefined ? 'has no compatible property' : `is '${compatible}'`;
    findings.error(
      bad(
        `the root FDT ${said}, which is incompatible: expected ${KHO_V4.compatible}; the next kernel says "disabling KHO revival"`,
        address,
      ),
    );
  }
  const memoryMap = findings.attempt(() => {
    const value = root === undefined ? undefined : numberOf(root, PROP_PRESERVED_MEMORY_MAP, address);
    if (value === undefined || value === 0) throw bad(`the root FDT has no ${PROP_PRESERVED_MEMORY_MAP}`, address);
    return pageAddress(value, PROP_PRESERVED_MEMORY_MAP, address);
  });
  const subtrees: Subtree[] = [];
  const names = new Set<string>();
  for (const node of root?.children() ?? []) {
    const subtree = findings.attempt(() => subtreeOf(node, address));
    if (subtree === undefined) continue;
    if (names.has(subtree.name)) {
      findings.error(
        bad(`the root FDT has two subtrees '${subtree.name}'; the next kernel finds one of them`, address),
      );
    }
    names.add(subtree.name);
    subtrees.push(subtree);
  }
  const report: RootReport = {
    form: 'sub-blobs',
    ...(compatible === KHO_V4.compatible ? { profile: KHO_V4.name } : {}),
    address,
    size,
    ...(compatible === undefined ? {} : { compatible }),
    ...(memoryMap === undefined ? {} : { memoryMap }),
    dts: formatDecodedDts(tree),
  };
  return { report, subtrees: subtrees.reverse(), reused: false, ...(memoryMap === undefined ? {} : { memoryMap }) };
}

/** The tree in the page; undefined if there is none. */
function openTree(
  context: InspectContext,
  address: PhysicalAddress,
  page: Uint8Array,
): { tree: DtsTree; size: number } | undefined {
  try {
    const reader = FdtReader.open(page);
    return { tree: reader, size: reader.totalSize };
  } catch (error) {
    if (!(error instanceof KhoError)) throw error;
    const text = `root FDT at ${hex(address)}: ${error.message}`;
    context.findings.error(new KhoError(error.code, text, { ...error.details, address }));
    if (error.code === 'KHO_FDT_BADMAGIC') return undefined;
    const partial = readPartialFdt(page);
    return { tree: partial, size: partial.size };
  }
}

function subtreeOf(node: DtsNode, root: PhysicalAddress): Subtree {
  const where = (property: string): string => `/${node.name}/${property}`;
  const data = numberOf(node, PROP_PRESERVED_DATA, root);
  const size = numberOf(node, PROP_BLOB_SIZE, root);
  if (data === undefined || size === undefined) {
    const missing = data === undefined ? PROP_PRESERVED_DATA : PROP_BLOB_SIZE;
    throw bad(`the subtree '${node.name}' has no ${missing}`, root);
  }
  const address = pageAddress(data, where(PROP_PRESERVED_DATA), root);
  if (size === 0 || address + size > PHYS_ADDR_MAX)
    throw bad(`${where(PROP_BLOB_SIZE)} is ${size}, which is no size`, root);
  return { name: node.name, address, size };
}

function numberOf(node: DtsNode, name: string, root: PhysicalAddress): number | undefined {
  for (const property of node.properties()) {
    if (property.name !== name) continue;
    const { value } = property;
    if (value.length !== 8) throw bad(`${name} of '/${node.name}' has ${value.length} bytes, not 8`, root);
    const word = new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0, true);
    if (word > BigInt(PHYS_ADDR_MAX)) throw bad(`${name} of '/${node.name}' is ${hex(word)}, above 2^52`, root);
    return Number(word);
  }
  return undefined;
}

function textOf(node: DtsNode, name: string): string | undefined {
  for (const property of node.properties()) {
    if (property.name !== name) continue;
    const text = Buffer.from(property.value).toString('latin1');
    const end = text.indexOf('\0');
    return end < 0 ? text : text.slice(0, end);
  }
  return undefined;
}

function pageAddress(value: number, where: string, root: PhysicalAddress): PhysicalAddress {
  if (value % PAGE_SIZE !== 0) throw bad(`${where} is ${hex(value)}, which is not the address of a page`, root);
  return physicalAddress(value);
}

function bad(text: string, address: number): KhoError {
  return new KhoError('KHO_EIMAGE', text, { address });
}
