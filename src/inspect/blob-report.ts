import {
  decodeKexecMetadata,
  KEXEC_METADATA_SIZE,
  KEXEC_METADATA_VERSION,
  type KexecMetadata,
  LUO_COMPATIBLE,
  LUO_SIZE,
  readLuoHeader,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { type DtsTree, FDT_MAGIC, FdtReader, readPartialFdt } from '../fdt/index.js';
import { hex, physicalAddress } from '../memblock/index.js';
import { formatDecodedDts, treeJson } from './decoded-dts.js';
import { type Finding, Findings } from './findings.js';

/** Blobs by themselves are read whole; more than this is none. */
export const BLOB_MAX = 2 ** 28;

/** A flattened device tree by itself, whole or not. */
export interface FdtReport {
  readonly kind: 'fdt';
  /** Bytes that are there. */
  readonly size: number;
  /** Bytes of the whole blob, by its header; absent if even that is missing. */
  readonly totalSize?: number;
  readonly compatible?: string;
  readonly dts: string;
  readonly tree: ReturnType<typeof treeJson>;
  readonly findings: readonly Finding[];
}

/** A blob of another format by itself: without the memory around it, what it points to is not known. */
export interface RawBlobReport {
  readonly kind: 'blob';
  readonly size: number;
  readonly format: 'luo' | 'kexec-metadata';
  readonly luo?: { readonly liveupdateNumber: string; readonly sessions: string; readonly flbs: string };
  readonly metadata?: KexecMetadata;
  readonly findings: readonly Finding[];
}

/** A tree for printing, and whether there is all of it. */
export interface OpenedFdt {
  readonly tree: DtsTree;
  /** Why FdtReader refuses it; absent for a whole blob. */
  readonly refusal?: KhoError;
  readonly size: number;
  readonly totalSize: number | undefined;
  readonly problems: readonly KhoError[];
}

/** Whether bytes begin as an FDT does. */
export function looksLikeFdt(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && Buffer.from(bytes.buffer, bytes.byteOffset, 4).readUInt32BE(0) === FDT_MAGIC;
}

/** Opens an FDT, as far as it goes if it is cut short or damaged. KHO_FDT_BADMAGIC if it is none. */
export function openFdt(bytes: Uint8Array): OpenedFdt {
  try {
    const reader = FdtReader.open(bytes);
    return { tree: reader, size: reader.totalSize, totalSize: reader.totalSize, problems: [] };
  } catch (error) {
    if (!(error instanceof KhoError)) throw error;
    const partial = readPartialFdt(bytes);
    const problems = partial.problems.length === 0 ? [error] : partial.problems;
    return { tree: partial, refusal: error, size: partial.size, totalSize: partial.totalSize, problems };
  }
}

/**
 * Reads an FDT by itself. What is cut short is a warning, because debugfs of Linux 7.2 delivers `kho/out/fdt` so; damage
 * is an error. KHO_FDT_BADMAGIC if it is no FDT.
 */
export function inspectFdt(bytes: Uint8Array): FdtReport {
  const { tree, size, totalSize, problems } = openFdt(bytes);
  const findings = new Findings();
  for (const problem of problems) findings.add(problem.code === 'KHO_FDT_TRUNCATED' ? 'warning' : 'error', problem);
  const compatible = [...(tree.root?.properties() ?? [])].find(({ name }) => name === 'compatible')?.value;
  return {
    kind: 'fdt',
    size,
    ...(totalSize === undefined ? {} : { totalSize }),
    ...(compatible === undefined
      ? {}
      : { compatible: Buffer.from(compatible).toString('latin1').replace(/\0.*$/s, '') }),
    dts: formatDecodedDts(tree),
    tree: treeJson(tree),
    findings: findings.list(),
  };
}

/** Reads a blob that debugfs shows and that is no FDT: LUO's, kexec-metadata's. Undefined if it is neither. */
export function inspectRawBlob(bytes: Uint8Array): RawBlobReport | undefined {
  const text = Buffer.from(bytes.subarray(0, LUO_COMPATIBLE.length)).toString('latin1');
  const findings = new Findings();
  if (/^luo-v\d/.test(text) && bytes.length <= 2 * LUO_SIZE) {
    const memory = { read: (address: number, length: number) => bytes.slice(address, address + length) };
    const header = findings.attempt(() => readLuoHeader(memory, physicalAddress(0), bytes.length));
    const pointer = (address: number | undefined): string => (address === undefined ? 'none' : hex(address));
    const luo = header && {
      liveupdateNumber: `${header.liveupdateNumber}`,
      sessions: pointer(header.sessions),
      flbs: pointer(header.flbs),
    };
    return { kind: 'blob', size: bytes.length, format: 'luo', ...(luo && { luo }), findings: findings.list() };
  }
  const version = bytes.length >= 4 ? Buffer.from(bytes.buffer, bytes.byteOffset, 4).readUInt32LE(0) : 0;
  if (bytes.length === KEXEC_METADATA_SIZE && version === KEXEC_METADATA_VERSION) {
    const metadata = decodeKexecMetadata(bytes);
    return { kind: 'blob', size: bytes.length, format: 'kexec-metadata', metadata, findings: findings.list() };
  }
  return undefined;
}
