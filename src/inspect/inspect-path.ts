import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { X86_64 } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { hex, type ImageMemory, isElf, PAGE_SIZE, writeElfCore } from '../memblock/index.js';
import { checkRegularFile, readRegularFile } from '../regular-file.js';
import {
  BLOB_MAX,
  type FdtReport,
  inspectFdt,
  inspectRawBlob,
  looksLikeFdt,
  type RawBlobReport,
} from './blob-report.js';
import { checkDebugfs, type DebugfsCheck } from './debugfs-check.js';
import { type Finding, Findings } from './findings.js';
import { type HandoverReport, type HandoverStart, type InspectOptions, inspectHandover } from './handover-report.js';
import {
  type ChosenStart,
  chooseStart,
  type ImageFileReport,
  namedRoots,
  openImageFile,
  type StartOptions,
} from './image-file.js';
import { RecordedMemory } from './recorded-memory.js';

/** A memory image, and the handover in it. */
export interface ImageReport extends HandoverReport {
  readonly kind: 'image';
  readonly file: ImageFileReport;
  /** Boot records beside the one that was read, which look as real. */
  readonly otherRecords: readonly number[];
  /** Only for a directory that has `kho/out`. */
  readonly debugfs?: DebugfsCheck;
  /** Only where a core was written. */
  readonly extracted?: ExtractReport;
}

/** A core with nothing but the handover's own pages. */
export interface ExtractReport {
  readonly file: string;
  /** Bytes of memory that it holds. */
  readonly size: number;
}

/** What `inspect` found, as `--json` shows it. */
export type InspectReport = FdtReport | RawBlobReport | ImageReport;

export interface InspectPathOptions extends StartOptions, InspectOptions {
  /** Write the handover's own pages to this file, as an ELF core. */
  readonly extract?: string;
  /** Replace that file. */
  readonly force?: boolean;
  /** Bytes that the image had when it was written, where that is known: fewer are one that was cut short. */
  readonly imageSize?: number;
  /** Memory of which the image has no bytes, where that is known. */
  readonly unbacked?: readonly { readonly base: number; readonly size: number }[];
}

/** A file this small is a blob, not memory. */
const SMALLEST_IMAGE = PAGE_SIZE;

/**
 * Reads what a file holds: an FDT or another blob of debugfs, a memory image (flat or ELF core), or a directory with
 * `ram.img` in it as `run --out` writes. Findings are in the report. KHO_ENOENT if there is no such path; KHO_EIMAGE for
 * a file that is none of these or holds no handover; errors of the file system as KHO_EIO.
 */
export async function inspectPath(path: string, options: InspectPathOptions = {}): Promise<InspectReport> {
  const directory = await isDirectory(path);
  const file = directory ? join(path, 'ram.img') : path;
  const blob = directory ? undefined : await inspectAsBlob(file);
  if (blob !== undefined) {
    if (options.extract !== undefined)
      throw new KhoError('KHO_EINVAL', `${path} is a blob: --extract takes pages out of a memory image`);
    return blob;
  }
  return inspectImage(file, options, directory ? path : undefined);
}

/** The same for bytes that came from somewhere else; `name` says from where. KHO_EIMAGE if they are no blob. */
export function inspectBytes(bytes: Uint8Array, name: string): FdtReport | RawBlobReport {
  if (looksLikeFdt(bytes)) return inspectFdt(bytes);
  const raw = inspectRawBlob(bytes);
  if (raw !== undefined) return raw;
  throw new KhoError(
    'KHO_EIMAGE',
    `${name} has ${bytes.length} bytes and is no blob known here: neither an FDT, nor LUO's (it begins with 'luo-v5'), ` +
      `nor kexec-metadata (73 bytes). What debugfs shows below kho/in is whatever its memory is used for by now`,
  );
}

async function inspectAsBlob(file: string): Promise<FdtReport | RawBlobReport | undefined> {
  const { head, size } = await headOf(file);
  if (looksLikeFdt(head) && size <= BLOB_MAX) return inspectFdt(await readWhole(file));
  if (size > SMALLEST_IMAGE || isElf(head)) return undefined;
  return inspectBytes(await readWhole(file), file);
}

async function inspectImage(
  path: string,
  options: InspectPathOptions,
  directory: string | undefined,
): Promise<ImageReport> {
  const { memory, report: file } = openImageFile(path, { flat: options.recorded !== undefined });
  try {
    memory.checkWhole(options.imageSize ?? 0);
    memory.setUnbacked(options.unbacked ?? []);
    const chosen = await chooseStart(memory, options);
    const handover = inspectHandover(memory, chosen.start, options);
    const findings = new Findings();
    noteStart(findings, chosen);
    if (handover.reused) await noteOtherRoots(findings, memory, rootOf(chosen.start), options.signal);
    const debugfs = directory === undefined ? undefined : await checkDebugfs(directory, memory, handover, findings);
    const extracted =
      options.extract === undefined ? undefined : await extract(memory, chosen.start, options.extract, options);
    return {
      kind: 'image',
      file,
      ...handover,
      otherRecords: chosen.others.map(({ address }) => address),
      ...(debugfs === undefined ? {} : { debugfs }),
      ...(extracted === undefined ? {} : { extracted }),
      findings: bySeverity([...handover.findings, ...findings.list()]),
    };
  } catch (error) {
    throw error instanceof KhoError ? error.with({ file: path }) : error;
  } finally {
    memory.close();
  }
}

function noteStart(findings: Findings, { start, others, doubt }: ChosenStart): void {
  if (doubt !== undefined) findings.add('warning', doubt);
  if (!('record' in start)) {
    const text = `only the root FDT at ${hex(start.root)} was read: without a boot record, scratch and firmware's memory map are not known`;
    findings.add('info', new KhoError('KHO_ENOENT', text, { address: start.root }));
  }
  for (const { address, root } of others) {
    const text = `there is another boot record at ${hex(address)}, an earlier one or a copy: it leads to the root FDT at ${hex(root)}`;
    findings.add('info', new KhoError('KHO_EEXIST', text, { address }), 'other boot records');
  }
}

/** A kernel that runs prepares a handover of its own: its root FDT may be what somebody looks for. */
async function noteOtherRoots(
  findings: Findings,
  memory: ImageMemory,
  read: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const others = (await namedRoots(memory, signal)).filter((address) => address !== read);
  if (others.length === 0) return;
  const text =
    `there are other root FDTs of KHO at ${others.map(hex).join(', ')}: the kernel that was running may have begun a ` +
    `handover of its own; read one with --root ADDRESS`;
  findings.add('info', new KhoError('KHO_EEXIST', text));
}

function rootOf(start: HandoverStart): number {
  return 'record' in start ? start.record.root : start.root;
}

/**
 * Writes the pages that reading the handover takes, and no content: boot_params, setup_data, command line, scratch array,
 * root FDT, sub-blobs, tracker, and all that LUO, memfds and kho_test list. What inspect reads in the core is what it reads
 * in the image, but for contents.
 */
async function extract(
  memory: ImageMemory,
  start: HandoverStart,
  file: string,
  { force = false, signal, profile }: InspectPathOptions,
): Promise<ExtractReport> {
  const recorded = new RecordedMemory(memory);
  const again = 'record' in start ? { record: X86_64.readBootRecord(recorded, start.record.address) } : start;
  inspectHandover(recorded, again, { contents: false, ...(profile && { profile }) });
  const pages = recorded.pages();
  await writeElfCore(memory, file, pages, { force, ...(signal === undefined ? {} : { signal }) });
  return { file, size: pages.reduce((sum, { size }) => sum + size, 0) };
}

function bySeverity(findings: readonly Finding[]): Finding[] {
  return (['error', 'warning', 'info'] as const).flatMap((one) => findings.filter(({ severity }) => severity === one));
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    throw new KhoError('KHO_ENOENT', `there is no ${path}`, { file: path }, { cause: error });
  }
}

async function headOf(file: string): Promise<{ head: Uint8Array; size: number }> {
  const size = checkRegularFile(file, 'the file');
  try {
    const handle = await open(file);
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(16), 0, 16, 0);
      return { head: buffer.subarray(0, bytesRead), size };
    } finally {
      await handle.close();
    }
  } catch (cause) {
    const text = `${file} cannot be read: ${cause instanceof Error ? cause.message : cause}`;
    throw new KhoError('KHO_EIO', text, { file }, { cause });
  }
}

function readWhole(file: string): Promise<Uint8Array> {
  return readRegularFile(file, 'the file', BLOB_MAX);
}
