import { KhoError } from '../errors.js';
import {
  hex,
  MAX_PAGE_ORDER,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  type PreservedPages,
} from '../memblock/index.js';
import {
  encodeKhoVmallocChunks,
  KHO_VMALLOC_ALLOC,
  KHO_VMALLOC_HUGE_VMAP,
  type KhoVmalloc,
  khoVmallocChunks,
  readKhoVmalloc,
} from './kho-vmalloc.js';

/** An area of vmalloc(), as its owner knows it. */
export interface PreservableVmalloc {
  /** The first page of each piece, in order: at least one, each a multiple of 2^order pages. */
  readonly pieces: readonly PhysicalAddress[];
  /** 0 to 10. */
  readonly order: number;
  /** {@link KHO_VMALLOC_ALLOC}, {@link KHO_VMALLOC_HUGE_VMAP}. */
  readonly flags: number;
}

/** Where the pages of chunks come from; what `allocate` throws passes through. */
export interface ChunkSource {
  allocate(): PhysicalAddress;
  free(page: PhysicalAddress): void;
}

const MAX_TOTAL_PAGES = 2 ** 32 - 1;

/**
 * kho_preserve_vmalloc() of Linux 7.2: preserves each piece as a range, and lists them in chunks, which are ranges of one page
 * and lie in memory from `source`. Chunks are allocated as they are needed, the first one before any piece.
 *
 * KHO_EOPNOTSUPP for other flags; KHO_EINVAL for an area without pieces, an order above 10, or more pages than the
 * descriptor can count; the errors of {@link PreservedPages.preservePages}. After an error nothing of it is preserved, and
 * the chunks are given back. (The kernel takes pieces back at an order that it has not set yet: docs/trackers.md.)
 */
export function preserveKhoVmalloc(
  preserved: PreservedPages,
  memory: PhysicalMemory,
  { pieces, order, flags }: PreservableVmalloc,
  source: ChunkSource,
): KhoVmalloc {
  const call = 'kho_preserve_vmalloc';
  const unknown = flags & ~(KHO_VMALLOC_ALLOC | KHO_VMALLOC_HUGE_VMAP);
  if (unknown !== 0) throw new KhoError('KHO_EOPNOTSUPP', `${call}: flags ${hex(unknown)} cannot be kept`, { call });
  if (!Number.isInteger(order) || order < 0 || order > MAX_PAGE_ORDER) {
    throw new KhoError('KHO_EINVAL', `${call}: ${order} is not the order of a piece (0 to ${MAX_PAGE_ORDER})`, {
      call,
    });
  }
  const pagesEach = 2 ** order;
  const totalPages = pieces.length * pagesEach;
  if (totalPages === 0 || totalPages > MAX_TOTAL_PAGES) {
    throw new KhoError('KHO_EINVAL', `${call}: an area of ${totalPages} pages cannot be described`, { call });
  }
  const odd = pieces.find((piece) => piece % (pagesEach * PAGE_SIZE) !== 0);
  if (odd !== undefined) {
    throw new KhoError('KHO_EINVAL', `${call}: the piece at ${hex(odd)} is not aligned to order ${order}`, {
      call,
      address: odd,
    });
  }
  const chunks: PhysicalAddress[] = [];
  let done = 0;
  const undo = (): void => {
    for (const piece of pieces.slice(0, done)) preserved.unpreservePages(piece, pagesEach);
    for (const chunk of chunks) {
      preserved.unpreservePages(chunk, 1);
      source.free(chunk);
    }
  };
  try {
    addChunk(preserved, chunks, source);
    for (const piece of pieces) {
      preserved.preservePages(piece, pagesEach);
      done++;
      if (khoVmallocChunks(done) > chunks.length) addChunk(preserved, chunks, source);
    }
    for (const [index, bytes] of encodeKhoVmallocChunks(chunks, pieces).entries()) memory.write(chunks[index], bytes);
  } catch (error) {
    undo();
    throw error;
  }
  return { first: chunks[0], totalPages, flags, order };
}

/**
 * kho_unpreserve_vmalloc(): takes the pieces and chunks of a descriptor back, and frees the chunks. KHO_ENOENT if one of
 * them is not preserved, and the errors of {@link readKhoVmalloc} if the chunks are damaged: then all are preserved still.
 */
export function unpreserveKhoVmalloc(
  preserved: PreservedPages,
  memory: PhysicalMemory,
  descriptor: KhoVmalloc,
  source: Pick<ChunkSource, 'free'>,
): void {
  const call = 'kho_unpreserve_vmalloc';
  const { chunks, pieces, order } = readKhoVmalloc(memory, descriptor, call, MAX_TOTAL_PAGES);
  const taken: [address: PhysicalAddress, pages: number][] = [];
  try {
    for (const address of chunks) takeBack(address, 1);
    for (const address of pieces) takeBack(address, 2 ** order);
  } catch (error) {
    for (const [address, pages] of taken) preserved.preservePages(address, pages);
    throw error;
  }
  for (const chunk of chunks) source.free(chunk);

  function takeBack(address: PhysicalAddress, pages: number): void {
    preserved.unpreservePages(address, pages);
    taken.push([address, pages]);
  }
}

/** A chunk that cannot be preserved is given back. */
function addChunk(preserved: PreservedPages, chunks: PhysicalAddress[], source: ChunkSource): void {
  const chunk = source.allocate();
  try {
    preserved.preservePages(chunk, 1);
  } catch (error) {
    source.free(chunk);
    throw error;
  }
  chunks.push(chunk);
}
