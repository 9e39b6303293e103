import {
  PROP_PRESERVED_MEMORY_MAP,
  type Profile,
  type ProfileName,
  pageAddressIn,
  ROOT_FDT_SIZE,
  readSubtree,
  readUntrusted,
  releasedProfile,
  SUB_BLOBS_PROFILES,
  type SubBlobsProfile,
  type Subtree,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { type DtsNode, type DtsTree, FdtReader, readPartialFdt } from '../fdt/index.js';
import { hex, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
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
  /** The root page of the tracker, or the first chunk. */
  readonly memoryMap?: number;
  readonly dts: string;
}

/** The root FDT and what it points to. */
export interface InspectedRoot {
  readonly report?: RootReport;
  /** The profile that it was read as, even if its compatible says something else. */
  readonly profile: SubBlobsProfile;
  readonly memoryMap?: PhysicalAddress;
  /** The subtrees whose address and size are in order, in the order in which they were added. */
  readonly subtrees: readonly Subtree[];
  /** The page holds no FDT at all: it may be no root FDT any more. */
  readonly reused: boolean;
}

/**
 * Reads the root FDT as kho_populate() checks it: header, compatible, memory map, and each subtree; as a kernel that speaks
 * `as` alone, or by its compatible. What is wrong is found, and what is not is read; a blob that is damaged is read up to its
 * damage.
 */
export function inspectRoot(context: InspectContext, address: PhysicalAddress, as?: SubBlobsProfile): InspectedRoot {
  const { findings } = context;
  const known = as === undefined ? SUB_BLOBS_PROFILES : [as];
  const [newest] = known as [SubBlobsProfile];
  const page = findings.attempt(() => readUntrusted(context.memory, address, ROOT_FDT_SIZE, 'the root FDT'));
  if (page === undefined) return { profile: newest, subtrees: [], reused: false };
  const opened = openTree(context, address, page);
  if (opened === undefined) return { profile: newest, subtrees: [], reused: true };
  const { tree, size } = opened;
  const { root } = tree;
  const compatible = root === undefined ? undefined : textOf(root, 'compatible');
  const found = known.find((candidate) => candidate.compatible === compatible);
  if (found === undefined) {
    const said = compatible === undefined ? 'has no compatible property' : `is '${compatible}'`;
    const expected = [...new Set(known.map((candidate) => candidate.compatible))].join(', ');
    const text = `the root FDT ${said}, which is incompatible: expected ${expected}; the next kernel says "disabling KHO revival"`;
    findings.error(bad(text, address));
  }
  const readAs = found ?? newest;
  const memoryMap = memoryMapOf(context, root, readAs, address);
  const subtrees: Subtree[] = [];
  const names = new Set<string>();
  for (const node of root?.children() ?? []) {
    const subtree = findings.attempt(() => located(address, () => readSubtree(node, readAs, context.memory)));
    if (subtree === undefined) continue;
    if (names.has(subtree.name)) {
      findings.error(
        bad(`the root FDT has two subtrees '${subtree.name}'; the next kernel finds one of them`, address),
      );
    }
    names.add(subtree.name);
    subtrees.push(subtree);
  }
  if (readAs.subtrees.order === 'newest first') subtrees.reverse();
  const profile = as ?? releasedProfile(context.memory, { profile: readAs, memoryMap });
  const report: RootReport = {
    form: 'sub-blobs',
    ...(found === undefined ? {} : { profile: profile.name }),
    address,
    size,
    ...(compatible === undefined ? {} : { compatible }),
    ...(memoryMap === undefined ? {} : { memoryMap }),
    dts: formatDecodedDts(tree),
  };
  return { report, profile, subtrees, reused: false, ...(memoryMap === undefined ? {} : { memoryMap }) };
}

function memoryMapOf(
  { findings }: InspectContext,
  root: DtsNode | undefined,
  { preservedMemory }: SubBlobsProfile,
  address: PhysicalAddress,
): PhysicalAddress | undefined {
  return findings.attempt(() => {
    const value = located(address, () => root && pageAddressIn(root, PROP_PRESERVED_MEMORY_MAP));
    if (value !== undefined && value !== 0) return physicalAddress(value);
    const nothing = preservedMemory === 'chunk-list' ? ': nothing is preserved, not even what it points to' : '';
    throw bad(`the root FDT has no ${PROP_PRESERVED_MEMORY_MAP}${nothing}`, address);
  });
}

/** Errors of `read` say where the root FDT lies. */
function located<T>(address: PhysicalAddress, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof KhoError ? new KhoError(error.code, error.message, { address, ...error.details }) : error;
  }
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

function textOf(node: DtsNode, name: string): string | undefined {
  for (const property of node.properties()) {
    if (property.name !== name) continue;
    const text = Buffer.from(property.value).toString('latin1');
    const end = text.indexOf('\0');
    return end < 0 ? text : text.slice(0, end);
  }
  return undefined;
}

function bad(text: string, address: number): KhoError {
  return new KhoError('KHO_EIMAGE', text, { address });
}
