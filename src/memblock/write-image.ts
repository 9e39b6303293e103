import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { KhoError } from '../errors.js';
import { alignDown, alignUp, PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { PhysicalMemory } from './physical-memory.js';

/** Bytes per write at most: large enough to amortise the call, small enough to notice an abort. */
const WRITE_SIZE = 2 ** 20;

/** A stretch of memory in bytes. */
interface ByteRange {
  readonly base: PhysicalAddress;
  readonly size: number;
}

/** Memory that can be written to a file: live memory, or another image. */
export interface ImageSource extends Pick<PhysicalMemory, 'ranges'> {
  /** The bytes in whole words, in as many views as it takes. */
  views(address: PhysicalAddress, length: number): Iterable<Uint8Array>;
}

/** Where bytes go in a file that is not flat. */
export interface FileLayout {
  /** Bytes of the whole file. */
  readonly size: number;
  /** The file offset of an address; the pages of one range of memory stay together. */
  offsetOf(address: PhysicalAddress): number;
}

/**
 * Writes memory as a flat sparse file: file offset = physical address, file size = the end of the highest range.
 * Another `layout` places ranges elsewhere.
 *
 * Only `ranges` (rounded outwards to pages) are looked at, and all else becomes a hole: whoever allocated pages knows
 * which may hold something, while looking at an untouched page of shared memory would commit it. Inside `ranges`,
 * pages of zeros become holes too. The bytes go to the file straight from shared memory, so nothing may write them
 * meanwhile.
 *
 * `file` must not exist (KHO_EEXIST). KHO_EFAULT when a range is not backed memory, KHO_ECANCELED when `signal` aborts,
 * KHO_EIO when the file cannot be written; the unfinished file is then removed.
 */
export async function writeImage(
  memory: ImageSource,
  file: string,
  { ranges, layout, signal }: { ranges: Iterable<ByteRange>; layout?: FileLayout; signal?: AbortSignal },
): Promise<void> {
  const handle = await open(file, 'wx').catch((cause: unknown) => {
    throw fileError(file, cause);
  });
  try {
    const last = memory.ranges.at(-1);
    const size = layout?.size ?? (last === undefined ? 0 : last.base + last.size);
    await handle.truncate(size).catch((cause: unknown) => {
      throw sizeError(file, size, cause);
    });
    for (const { base, size } of ranges) {
      const start = alignDown(base, PAGE_SIZE);
      let position = layout?.offsetOf(start as PhysicalAddress) ?? start;
      for (const view of memory.views(start as PhysicalAddress, alignUp(base + size, PAGE_SIZE) - start)) {
        await writePages(handle, view, position, signal);
        position += view.length;
      }
    }
    await handle.close();
  } catch (cause) {
    await handle.close().catch(() => undefined);
    await rm(file, { force: true });
    throw fileError(file, cause);
  }
}

/** Writes the pages of `view`, which lie at `position` in the file, except those that are all zero. */
async function writePages(
  handle: FileHandle,
  view: Uint8Array,
  position: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const words = new Int32Array(view.buffer, view.byteOffset, view.length / 4);
  for (let at = 0; at < view.length; ) {
    if (signal?.aborted === true) {
      throw new KhoError('KHO_ECANCELED', 'writing the memory image was cancelled', {}, { cause: signal.reason });
    }
    // One step looks at WRITE_SIZE bytes at most: a hole up to `start`, then data up to `end`.
    const limit = Math.min(at + WRITE_SIZE, view.length);
    let start = at;
    while (start < limit && isZeroPage(words, start)) start += PAGE_SIZE;
    let end = start;
    while (end < limit && !isZeroPage(words, end)) end += PAGE_SIZE;
    for (let done = start; done < end; ) {
      done += (await handle.write(view, done, end - done, position + done)).bytesWritten;
    }
    at = end;
  }
}

/** Whether the page at byte offset `offset` holds only zeros. A page with data mostly says so in its first words. */
function isZeroPage(words: Int32Array, offset: number): boolean {
  const end = (offset + PAGE_SIZE) / 4;
  for (let index = offset / 4; index < end; index++) {
    if (words[index] !== 0) return false;
  }
  return true;
}

/** A sparse file takes little room, but a file system has a largest size of a file: 16 TiB on ext4. */
function sizeError(file: string, size: number, cause: unknown): unknown {
  if (!(cause instanceof Error && 'code' in cause && cause.code === 'EFBIG')) return cause;
  const text =
    `the memory image ${file} would be a sparse file of ${size} bytes, and the file system of ${dirname(file)} ` +
    'cannot hold a file of that size: set TMPDIR, or --out, to a directory of another (XFS, tmpfs)';
  return new KhoError('KHO_EIO', text, { file, size }, { cause });
}

function fileError(file: string, cause: unknown): KhoError {
  if (cause instanceof KhoError) return cause.with({ file });
  const exists = cause instanceof Error && 'code' in cause && cause.code === 'EEXIST';
  const text = `the memory image ${file} cannot be written: ${cause instanceof Error ? cause.message : cause}`;
  return new KhoError(exists ? 'KHO_EEXIST' : 'KHO_EIO', text, { file }, { cause });
}
