import { type FileHandle, lstat, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { KhoError } from '../errors.js';
import { alignDown, alignUp, PAGE_SIZE, type PhysicalAddress, physicalAddress } from './address.js';
import {
  E_CLASS,
  E_DATA,
  E_EHSIZE,
  E_IDENT_VERSION,
  E_MACHINE,
  E_PHENTSIZE,
  E_PHNUM,
  E_PHOFF,
  E_TYPE,
  E_VERSION,
  ELF_CLASS_64,
  ELF_DATA_LITTLE,
  ELF_FLAGS_RWX,
  ELF_HEADER_SIZE,
  ELF_LOAD,
  ELF_MACHINE_X86_64,
  ELF_MAGIC,
  ELF_PHNUM_EXTENDED,
  ELF_PROGRAM_HEADER_SIZE,
  ELF_TYPE_CORE,
  ELF_VERSION,
  P_ALIGN,
  P_FILESZ,
  P_FLAGS,
  P_MEMSZ,
  P_OFFSET,
  P_PADDR,
  P_TYPE,
  P_VADDR,
} from './elf-core.js';
import type { PhysicalMemory } from './physical-memory.js';

/** Bytes per write at most: small enough to notice an abort. */
const WRITE_SIZE = 2 ** 20;

/** A stretch of memory in bytes. */
export interface CoreRange {
  readonly base: PhysicalAddress;
  readonly size: number;
}

/** A segment to be: memory, and whether the file will hold it. */
interface CoreSegment {
  readonly base: number;
  readonly size: number;
  readonly held: boolean;
}

export interface WriteCoreOptions {
  readonly signal?: AbortSignal;
  /** Replace a file that is there. */
  readonly force?: boolean;
}

/**
 * Writes an ELF core (elf-core.ts) that holds `ranges`, rounded outwards to pages, and tells the whole memory map:
 * what it does not hold has segments without bytes, so that a reader knows memory that is missing from memory that
 * never was. Memory that `memory` cannot read itself (unbacked) is told in the same way.
 *
 * The file is complete or not there: it is written under a temporary name beside it, then renamed. KHO_EEXIST if it is
 * there already, unless `force`; KHO_EFAULT for a range of which nothing is memory, or that is unbacked; KHO_E2BIG for more pieces than a core has
 * segments (65534); KHO_ECANCELED when `signal` aborts; KHO_EIO when it cannot be written.
 */
export async function writeElfCore(
  memory: PhysicalMemory,
  file: string,
  ranges: Iterable<CoreRange>,
  { signal, force = false }: WriteCoreOptions = {},
): Promise<void> {
  if (!force) await refuseToReplace(file);
  const temporary = join(dirname(file), `.${basename(file)}.khorus-${process.pid}`);
  let handle: FileHandle | undefined;
  try {
    const segments = coreSegments(memory, wholePages(ranges));
    if (segments.length >= ELF_PHNUM_EXTENDED) {
      throw new KhoError('KHO_E2BIG', `${segments.length} pieces of memory are too many for an ELF core`);
    }
    handle = await open(temporary, 'wx');
    const headers = encodeHeaders(segments);
    await handle.write(headers, 0, headers.length, 0);
    await writeSegments(memory, handle, segments, signal);
    await handle.sync();
    await handle.close();
    await rename(temporary, file);
  } catch (cause) {
    await handle?.close().catch(() => undefined);
    if (handle !== undefined) await rm(temporary, { force: true });
    if (cause instanceof KhoError) throw cause.with({ file });
    const text = `the core ${file} cannot be written: ${cause instanceof Error ? cause.message : cause}`;
    throw new KhoError('KHO_EIO', text, { file }, { cause });
  }
}

async function refuseToReplace(file: string): Promise<void> {
  const there = await lstat(file).then(
    () => true,
    () => false,
  );
  if (there) throw new KhoError('KHO_EEXIST', `${file} is there already`, { file });
}

/** The ranges as whole pages, ascending and joined where they touch. */
function wholePages(ranges: Iterable<CoreRange>): { base: number; end: number }[] {
  const pages = [...ranges]
    .filter(({ size }) => size > 0)
    .map(({ base, size }) => ({ base: alignDown(base, PAGE_SIZE), end: alignUp(base + size, PAGE_SIZE) }))
    .sort((a, b) => a.base - b.base);
  const joined: { base: number; end: number }[] = [];
  for (const { base, end } of pages) {
    const last = joined.at(-1);
    if (last !== undefined && base <= last.end) last.end = Math.max(last.end, end);
    else joined.push({ base, end });
  }
  return joined;
}

/** The memory map, cut where held memory begins and ends. KHO_EFAULT unless all that is wanted can be read. */
function coreSegments(memory: PhysicalMemory, wanted: readonly { base: number; end: number }[]): CoreSegment[] {
  const segments: CoreSegment[] = [];
  let next = 0;
  for (const range of memory.ranges) {
    const end = range.base + range.size;
    let at: number = range.base;
    while (at < end) {
      while (next < wanted.length && wanted[next].end <= at) next++;
      const piece = wanted[next];
      const from = piece === undefined ? end : Math.min(end, Math.max(at, piece.base));
      if (from > at) segments.push({ base: at, size: from - at, held: false });
      const to = piece === undefined ? end : Math.min(end, piece.end);
      if (to > from) segments.push({ base: from, size: to - from, held: true });
      at = Math.max(from, to);
    }
  }
  // A page is cut where memory ends in the middle of it, but some of it must be there.
  for (const { base, end } of wanted) {
    const inside = segments.some((one) => one.held && one.base < end && one.base + one.size > base);
    if (!inside) memory.read(physicalAddress(base), 1);
  }
  return segments;
}

function encodeHeaders(segments: readonly CoreSegment[]): Uint8Array {
  const size = ELF_HEADER_SIZE + segments.length * ELF_PROGRAM_HEADER_SIZE;
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ELF_MAGIC, true);
  view.setUint8(E_CLASS, ELF_CLASS_64);
  view.setUint8(E_DATA, ELF_DATA_LITTLE);
  view.setUint8(E_IDENT_VERSION, ELF_VERSION);
  view.setUint16(E_TYPE, ELF_TYPE_CORE, true);
  view.setUint16(E_MACHINE, ELF_MACHINE_X86_64, true);
  view.setUint32(E_VERSION, ELF_VERSION, true);
  view.setBigUint64(E_PHOFF, BigInt(ELF_HEADER_SIZE), true);
  view.setUint16(E_EHSIZE, ELF_HEADER_SIZE, true);
  view.setUint16(E_PHENTSIZE, ELF_PROGRAM_HEADER_SIZE, true);
  view.setUint16(E_PHNUM, segments.length, true);
  for (const [index, { segment, offset }] of placed(segments).entries()) {
    const at = ELF_HEADER_SIZE + index * ELF_PROGRAM_HEADER_SIZE;
    const put = (field: number, value: number): void => view.setBigUint64(at + field, BigInt(value), true);
    view.setUint32(at + P_TYPE, ELF_LOAD, true);
    view.setUint32(at + P_FLAGS, ELF_FLAGS_RWX, true);
    put(P_OFFSET, offset);
    // Debuggers look at virtual addresses: here they are the physical ones.
    put(P_VADDR, segment.base);
    put(P_PADDR, segment.base);
    put(P_FILESZ, segment.held ? segment.size : 0);
    put(P_MEMSZ, segment.size);
    put(P_ALIGN, PAGE_SIZE);
  }
  return bytes;
}

/** Where each segment begins in the file: as far behind a page's start as in memory, so that the file can be mapped. */
function placed(segments: readonly CoreSegment[]): { segment: CoreSegment; offset: number }[] {
  let end = alignUp(ELF_HEADER_SIZE + segments.length * ELF_PROGRAM_HEADER_SIZE, PAGE_SIZE);
  return segments.map((segment) => {
    const offset = end + (segment.base % PAGE_SIZE);
    if (segment.held) end = alignUp(offset + segment.size, PAGE_SIZE);
    return { segment, offset };
  });
}

async function writeSegments(
  memory: PhysicalMemory,
  handle: FileHandle,
  segments: readonly CoreSegment[],
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const { segment, offset } of placed(segments)) {
    if (!segment.held) continue;
    for (let done = 0; done < segment.size; done += WRITE_SIZE) {
      if (signal?.aborted === true) {
        throw new KhoError('KHO_ECANCELED', 'writing the core was cancelled', {}, { cause: signal.reason });
      }
      const bytes = memory.read(physicalAddress(segment.base + done), Math.min(WRITE_SIZE, segment.size - done));
      for (let written = 0; written < bytes.length; ) {
        const { bytesWritten } = await handle.write(bytes, written, bytes.length - written, offset + done + written);
        written += bytesWritten;
      }
    }
  }
}
