import {
  decodeKexecMetadata,
  followSubFdts,
  KEXEC_METADATA_NAME,
  type KexecMetadata,
  KHO_TEST_SUBTREE_NAME,
  LUO_SUBTREE_NAME,
  MEMBLOCK_SUBTREE_NAME,
  readSubFdtLinks,
  readUntrusted,
  type Subtree,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { FDT_MAGIC, FdtReader, readPartialFdt } from '../fdt/index.js';
import { hex } from '../memblock/index.js';
import { type InspectContext, noteClaims } from './context.js';
import { formatDecodedDts } from './decoded-dts.js';
import { inspectKhoTest, type KhoTestReport } from './kho-test-report.js';
import { inspectLuo, type LuoReport } from './luo-report.js';
import { inspectReservations, type ReservationReport } from './reservation-report.js';

/** A blob that the root FDT points to, or a driver's node of the one FDT. */
export interface SubtreeReport {
  readonly name: string;
  readonly address: number;
  readonly size: number;
  /** An FDT, a node of the one FDT, a structure that is known here, or bytes of which nothing is known. */
  readonly format: 'fdt' | 'node' | 'kexec-metadata' | 'luo' | 'raw' | 'unreadable';
  readonly compatible?: string;
  /** Of a node: its children. */
  readonly instances?: number;
  /** The tree as decoded DTS, of an FDT. */
  readonly dts?: string;
  /** The first bytes in hexadecimal, of anything else. */
  readonly head?: string;
}

/** What the blobs that are known by name lead to. */
export interface KnownBlobs {
  metadata?: KexecMetadata;
  reservations?: readonly ReservationReport[];
  khoTest?: KhoTestReport;
  luo?: LuoReport;
}

/** Bytes of a raw blob that are shown. */
const HEAD_SIZE = 64;
/** A blob larger than this is not read: its size is damaged. */
const BLOB_SIZE_MAX = 2 ** 30;

/**
 * Reads one blob, claims its pages, and follows what it leads to, into `known`. A blob that should be something it is not
 * is an error found; of a blob that nobody knows only the first bytes are told. Returns whether the memory looks as if it
 * has been reused.
 */
export function inspectSubtree(
  context: InspectContext,
  subtree: Subtree,
  known: KnownBlobs,
): { report: SubtreeReport; reused: boolean } {
  const { name, address, size } = subtree;
  const { findings } = context;
  const base = { name, address, size };
  noteClaims(context, (claims) => claims.blob(`sub-blob '${name}'`, `the blob '${name}'`, address, size), 'sub-blobs');
  const bytes = findings.attempt(() => {
    if (size > BLOB_SIZE_MAX)
      throw new KhoError('KHO_E2BIG', `the blob '${name}' has ${size} bytes, too many to be read`, { address, size });
    return readUntrusted(context.memory, address, size, `the blob '${name}'`);
  });
  if (bytes === undefined) return { report: { ...base, format: 'unreadable' }, reused: false };
  const head = Buffer.from(bytes.subarray(0, HEAD_SIZE)).toString('hex');
  const failed = (error: unknown): void => {
    if (!(error instanceof KhoError)) throw error;
    const text = error.message.includes(name)
      ? error.message
      : `the blob '${name}' at ${hex(address)}: ${error.message}`;
    findings.error(new KhoError(error.code, text, { address, ...error.details }));
  };

  if (name === LUO_SUBTREE_NAME || name === KEXEC_METADATA_NAME) {
    const format = name === LUO_SUBTREE_NAME ? 'luo' : 'kexec-metadata';
    try {
      if (format === 'luo') known.luo = inspectLuo(context, subtree);
      else known.metadata = decodeKexecMetadata(bytes);
      const compatible = format === 'luo' ? { compatible: asText(bytes, 8) } : {};
      return { report: { ...base, format, ...compatible, head }, reused: false };
    } catch (error) {
      failed(error);
      // What was a LUO blob begins with some version of its compatible.
      const reused = format === 'luo' ? !asText(bytes, 8).startsWith('luo-v') : bytes.every((byte) => byte === 0);
      return { report: { ...base, format: 'raw', head }, reused };
    }
  }
  const mustBeFdt = name === MEMBLOCK_SUBTREE_NAME || name === KHO_TEST_SUBTREE_NAME;
  if (!mustBeFdt && !isFdt(bytes)) return { report: { ...base, format: 'raw', head }, reused: false };
  let reader: FdtReader;
  try {
    reader = FdtReader.open(bytes);
  } catch (error) {
    failed(error);
    if (!isFdt(bytes)) return { report: { ...base, format: 'raw', head }, reused: true };
    return { report: { ...base, format: 'fdt', dts: formatDecodedDts(readPartialFdt(bytes)) }, reused: false };
  }
  try {
    if (name === MEMBLOCK_SUBTREE_NAME) known.reservations = inspectReservations(context, reader);
    if (name === KHO_TEST_SUBTREE_NAME) known.khoTest = inspectKhoTest(context, subtree);
    followLinks(context, name, reader);
  } catch (error) {
    failed(error);
  }
  const compatible = compatibleOf(reader);
  return {
    report: {
      ...base,
      format: 'fdt',
      ...(compatible === undefined ? {} : { compatible }),
      dts: formatDecodedDts(reader),
    },
    reused: false,
  };
}

/** Claims and checks the FDTs that a driver's FDT links to, in mode `subfdt`. */
function followLinks(context: InspectContext, name: string, { root }: FdtReader): void {
  for (const node of root.children()) {
    const what = `the sub-FDT of ${name} ${node.name}`;
    try {
      const links = readSubFdtLinks(node) ?? [];
      for (const { address, size } of links) {
        if (size > BLOB_SIZE_MAX) {
          throw new KhoError('KHO_E2BIG', `${what} has ${size} bytes, too many to be read`, { address, size });
        }
        noteClaims(context, (claims) => claims.blob(`sub-FDTs of '${name}'`, what, address, size), 'sub-FDTs');
      }
      if (links.length > 0) {
        followSubFdts(node.name, links, ({ address, size }) => readUntrusted(context.memory, address, size, what));
      }
    } catch (thrown) {
      const { code, message, details } = KhoError.from(thrown);
      const text = message.includes(what) ? message : `${what}: ${message}`;
      context.findings.error(new KhoError(code, text, details));
    }
  }
}

function compatibleOf({ root }: FdtReader): string | undefined {
  const value = root.property('compatible')?.value;
  return value === undefined ? undefined : asText(value, value.length);
}

function isFdt(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && Buffer.from(bytes.buffer, bytes.byteOffset, 4).readUInt32BE(0) === FDT_MAGIC;
}

/** Text up to its NUL. */
function asText(bytes: Uint8Array, size: number): string {
  const text = Buffer.from(bytes.subarray(0, size)).toString('latin1');
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}
