import { createHash } from 'node:crypto';
import { KhoError } from '../errors.js';
import { hex, MAX_PAGE_ORDER, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import type { Memfd } from './memfd-luo.js';
import { type ReadableMemory, readUntrusted } from './structure.js';

/** A run of bytes of a file that is in memory; what lies between runs is a hole and reads as zeros. */
export interface MemfdExtent {
  /** Bytes from the beginning of the file. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** A folio in its place in a file. */
export interface MemfdPlace {
  /** Bytes from the beginning of the file. */
  readonly offset: number;
  readonly address: PhysicalAddress;
  readonly order: number;
}

/**
 * The folios of a memfd with their places, in ascending order of offset. `orderAt` gives the order of the preserved object
 * that begins at an address, undefined if none does.
 *
 * KHO_EIMAGE for a folio that was not preserved, is not aligned in the file to its order, or overlaps the next one. The
 * list of folios itself must have been checked ({@link readMemfd}).
 */
export function* memfdPlaces(
  { address: file, folios }: Pick<Memfd, 'address' | 'folios'>,
  orderAt: (address: PhysicalAddress) => number | undefined,
): Generator<MemfdPlace> {
  let end = 0;
  for (const { address, index } of [...folios].sort((a, b) => a.index - b.index)) {
    const what = folioAt(index, file);
    const bad = (text: string) => new KhoError('KHO_EIMAGE', `${what}: ${text}`, { address });
    const order = orderAt(address);
    if (order === undefined) throw bad(`nothing was preserved at ${hex(address)}`);
    if (order > MAX_PAGE_ORDER) throw bad(`order ${order} is above the limit of ${MAX_PAGE_ORDER}`);
    if (index % 2 ** order !== 0) throw bad(`it is not aligned to its order ${order}`);
    const offset = index * PAGE_SIZE;
    if (offset < end) throw bad(`the folio before it reaches to ${hex(end)}`);
    end = offset + PAGE_SIZE * 2 ** order;
    yield { offset, address, order };
  }
}

/** The content of a memfd, a folio at a time, cut at the file's size. As {@link memfdPlaces}; KHO_EIMAGE also for a folio that is not memory. */
export function* memfdExtents(
  memory: ReadableMemory,
  memfd: Pick<Memfd, 'address' | 'size' | 'folios'>,
  orderAt: (address: PhysicalAddress) => number | undefined,
): Generator<MemfdExtent> {
  for (const { offset, address, order } of memfdPlaces(memfd, orderAt)) {
    const size = Math.min(PAGE_SIZE * 2 ** order, memfd.size - offset);
    yield { offset, bytes: readUntrusted(memory, address, size, folioAt(offset / PAGE_SIZE, memfd.address)) };
  }
}

function folioAt(index: number, file: PhysicalAddress): string {
  return `the folio at index ${index} of the memfd at ${hex(file)}`;
}

const ZEROS = new Uint8Array(2 ** 16);

/**
 * SHA-256 (hex) of the whole content, holes read as zeros; errors as for {@link memfdExtents}. It takes about a second for
 * each GiB of `size`, also of holes: whoever reads a damaged image looks at the size first.
 */
export function memfdSha256(
  memory: ReadableMemory,
  memfd: Pick<Memfd, 'address' | 'size' | 'folios'>,
  orderAt: (address: PhysicalAddress) => number | undefined,
): string {
  const hash = createHash('sha256');
  let at = 0;
  const skipTo = (offset: number) => {
    for (; at < offset; at += Math.min(ZEROS.length, offset - at)) {
      hash.update(ZEROS.subarray(0, Math.min(ZEROS.length, offset - at)));
    }
  };
  for (const { offset, bytes } of memfdExtents(memory, memfd, orderAt)) {
    skipTo(offset);
    hash.update(bytes);
    at += bytes.length;
  }
  skipTo(memfd.size);
  return hash.digest('hex');
}
