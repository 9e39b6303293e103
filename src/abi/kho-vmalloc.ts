import { KhoError } from '../errors.js';
import { hex, MAX_PAGE_ORDER, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import { type ReadableMemory, type Structure, UntrustedMemory } from './structure.js';

/**
 * Memory that is contiguous for the kernel alone: its pages, listed in a chain of chunks (Linux 7.2,
 * include/linux/kho/abi/kexec_handover.h; the same since 6.18). All integers are native.
 *
 * ```text
 *   kho_vmalloc, 16 bytes         chunk: a page                     pieces: 2^order pages each
 *    0 u64 first ───────────────▶   0 u64 next ──▶ next chunk, 0 = last
 *    8 u32 total_pages              8 u64 piece 0 ─────────────────▶ the first pages of the area
 *   12 u16 flags                   16 u64 piece 1
 *   14 u16 order                    …  0 ends the list in this chunk; 511 at most
 * ```
 *
 * Each chunk is preserved as one page and each piece as a range of 2^order pages, and both are restored so
 * (kho_restore_pages()).
 */
export interface KhoVmalloc {
  /** The first chunk. */
  readonly first: PhysicalAddress | undefined;
  /** Pages of the area: a multiple of 2^order. */
  readonly totalPages: number;
  /** {@link KHO_VMALLOC_ALLOC}, {@link KHO_VMALLOC_HUGE_VMAP}. */
  readonly flags: number;
  readonly order: number;
}

export const KHO_VMALLOC_ALLOC = 0x1;
export const KHO_VMALLOC_HUGE_VMAP = 0x2;
const KNOWN_FLAGS = KHO_VMALLOC_ALLOC | KHO_VMALLOC_HUGE_VMAP;

const FIRST_AT = 0;
const TOTAL_PAGES_AT = 8;
const FLAGS_AT = 12;
const ORDER_AT = 14;
export const KHO_VMALLOC_SIZE = 16;

const NEXT_AT = 0;
const PIECES_AT = 8;
const PIECE_SIZE = 8;
/** Pieces that one chunk lists. */
export const KHO_VMALLOC_CHUNK_PIECES = (PAGE_SIZE - PIECES_AT) / PIECE_SIZE;

/** The largest area that {@link readKhoVmalloc} follows unless told otherwise: 64 MiB. */
const MAX_PAGES_READ = 2 ** 14;

/** What a descriptor leads to, checked. */
export interface VmallocArea {
  /** The pages of the chunks, in order. */
  readonly chunks: readonly PhysicalAddress[];
  /** The first page of each piece, in order. */
  readonly pieces: readonly PhysicalAddress[];
  /** Each piece has 2^order pages and is aligned to them. */
  readonly order: number;
}

/** Chunks that Linux makes for so many pieces: whenever one is full it begins another, which may stay empty. */
export function khoVmallocChunks(pieces: number): number {
  return Math.floor(pieces / KHO_VMALLOC_CHUNK_PIECES) + 1;
}

export function encodeKhoVmalloc({ first, totalPages, flags, order }: KhoVmalloc): Uint8Array {
  const bytes = new Uint8Array(KHO_VMALLOC_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(FIRST_AT, BigInt(first ?? 0), true);
  view.setUint32(TOTAL_PAGES_AT, totalPages, true);
  view.setUint16(FLAGS_AT, flags, true);
  view.setUint16(ORDER_AT, order, true);
  return bytes;
}

/** The contents of the pages `chunks`, listing `pieces`. KHO_EINVAL unless there are {@link khoVmallocChunks} of them. */
export function encodeKhoVmallocChunks(
  chunks: readonly PhysicalAddress[],
  pieces: readonly PhysicalAddress[],
): Uint8Array[] {
  const needed = khoVmallocChunks(pieces.length);
  if (chunks.length !== needed) {
    throw new KhoError('KHO_EINVAL', `${pieces.length} pieces need ${needed} chunks, not ${chunks.length}`);
  }
  return chunks.map((_, index) => {
    const bytes = new Uint8Array(PAGE_SIZE);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(NEXT_AT, BigInt(chunks[index + 1] ?? 0), true);
    const listed = pieces.slice(index * KHO_VMALLOC_CHUNK_PIECES, (index + 1) * KHO_VMALLOC_CHUNK_PIECES);
    for (const [at, piece] of listed.entries()) view.setBigUint64(PIECES_AT + at * PIECE_SIZE, BigInt(piece), true);
    return bytes;
  });
}

/** The descriptor alone. KHO_EIMAGE for unknown flags, an order above 10, or pages that are not whole pieces. */
export function decodeKhoVmalloc(structure: Structure): KhoVmalloc {
  const totalPages = structure.u32(TOTAL_PAGES_AT);
  const flags = structure.u16(FLAGS_AT);
  const order = structure.u16(ORDER_AT);
  if ((flags & ~KNOWN_FLAGS) !== 0) throw structure.bad(`unknown flags ${hex(flags & ~KNOWN_FLAGS)}`);
  if (order > MAX_PAGE_ORDER) throw structure.bad(`order is ${order}, above the limit of ${MAX_PAGE_ORDER}`);
  if (totalPages % 2 ** order !== 0)
    throw structure.bad(`${totalPages} pages are not made of pieces of order ${order}`);
  return { first: structure.pointer(FIRST_AT, 'first'), totalPages, flags, order };
}

/**
 * Follows the chunks as kho_restore_vmalloc() does; `what` names the area. KHO_EIMAGE for an area without pages, a cycle,
 * a chunk outside of memory, an empty chunk before the last, a piece that is not aligned or there twice, and any count but
 * the descriptor's; KHO_E2BIG for more than `maxPages`.
 * Whether the pieces are memory shows when they are read.
 */
export function readKhoVmalloc(
  memory: ReadableMemory,
  descriptor: KhoVmalloc,
  what: string,
  maxPages = MAX_PAGES_READ,
): VmallocArea {
  const { totalPages, order } = descriptor;
  const wanted = totalPages / 2 ** order;
  if (wanted === 0) throw new KhoError('KHO_EIMAGE', `${what}: a vmalloc area without pages`);
  if (totalPages > maxPages) {
    throw new KhoError('KHO_E2BIG', `${what}: an area of ${totalPages} pages; this reader holds ${maxPages}`);
  }
  const chunks: PhysicalAddress[] = [];
  const untrusted = UntrustedMemory.of(memory);
  const pieces = new Set<PhysicalAddress>();
  for (let at = descriptor.first; at !== undefined; ) {
    const chunk = untrusted.structure(at, PAGE_SIZE, `a vmalloc chunk of ${what}`);
    chunks.push(at);
    const before = pieces.size;
    for (let index = 0; index < KHO_VMALLOC_CHUNK_PIECES; index++) {
      const piece = chunk.pointer(PIECES_AT + index * PIECE_SIZE, `piece ${index}`);
      if (piece === undefined) break;
      if (piece % (PAGE_SIZE * 2 ** order) !== 0) {
        throw chunk.bad(`piece ${index} is ${hex(piece)}, which is not aligned to order ${order}`);
      }
      if (pieces.has(piece)) throw chunk.bad(`piece ${index} is ${hex(piece)}, which is a piece already`);
      pieces.add(piece);
      if (pieces.size > wanted) throw chunk.bad(`more than the ${wanted} pieces of an area of ${totalPages} pages`);
    }
    at = chunk.pointer(NEXT_AT, 'next');
    if (pieces.size === before && at !== undefined) throw chunk.bad('an empty chunk is not the last');
  }
  if (pieces.size !== wanted) {
    throw new KhoError('KHO_EIMAGE', `${what}: ${pieces.size} pieces listed, ${wanted} expected`, {
      ...(descriptor.first === undefined ? {} : { address: descriptor.first }),
    });
  }
  return { chunks, pieces: [...pieces], order };
}

/** The first `size` bytes of an area. KHO_EIMAGE if it is shorter, or its pages are no memory. */
export function readVmallocBytes(memory: ReadableMemory, area: VmallocArea, size: number, what: string): Uint8Array {
  const pieceSize = PAGE_SIZE * 2 ** area.order;
  const room = area.pieces.length * pieceSize;
  if (size > room) throw new KhoError('KHO_EIMAGE', `${what}: ${size} bytes do not fit into the ${room} of its area`);
  const untrusted = UntrustedMemory.of(memory);
  const bytes = new Uint8Array(size);
  for (const [index, piece] of area.pieces.entries()) {
    const at = index * pieceSize;
    if (at >= size) break;
    bytes.set(untrusted.structure(piece, Math.min(pieceSize, size - at), `a piece of ${what}`).bytes, at);
  }
  return bytes;
}
