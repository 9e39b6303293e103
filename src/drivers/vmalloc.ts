import {
  encodeKhoVmallocChunks,
  KHO_VMALLOC_ALLOC,
  type KhoVmalloc,
  khoVmallocChunks,
  type VmallocArea,
} from '../abi/index.js';
import {
  type CancelContext,
  type MemoryWriter,
  PAGE_SIZE,
  type PhysicalAddress,
  type RestoreContext,
  type ShardAccess,
} from '../driver.js';

/** Pages that {@link preserveVmalloc} takes for so many bytes. */
export function vmallocPages(bytes: number): number {
  const pages = Math.ceil(bytes / PAGE_SIZE);
  return pages + khoVmallocChunks(pages);
}

/**
 * Hands `bytes` (at least one) over as kho_preserve_vmalloc() does with memory of vmalloc(): single pages, listed in
 * chunks, each of them preserved as a range of one page. What the last page has beyond the bytes is zeros.
 */
export function preserveVmalloc(shard: ShardAccess, memory: MemoryWriter, bytes: Uint8Array): KhoVmalloc {
  const totalPages = Math.ceil(bytes.length / PAGE_SIZE);
  const onePage = (): PhysicalAddress => {
    const page = shard.alloc(1);
    shard.preserve(page);
    return page.address;
  };
  const chunks = Array.from({ length: khoVmallocChunks(totalPages) }, onePage);
  const pieces = Array.from({ length: totalPages }, onePage);
  for (const [index, piece] of pieces.entries()) {
    const page = new Uint8Array(PAGE_SIZE);
    page.set(bytes.subarray(index * PAGE_SIZE, (index + 1) * PAGE_SIZE));
    memory.write(piece, page);
  }
  for (const [index, chunk] of encodeKhoVmallocChunks(chunks, pieces).entries()) memory.write(chunks[index], chunk);
  return { first: chunks[0], totalPages, flags: KHO_VMALLOC_ALLOC, order: 0 };
}

/** Takes back what {@link preserveVmalloc} handed over. */
export function unpreserveVmalloc(
  ctx: Pick<CancelContext<unknown, unknown, unknown>, 'unpreserve' | 'free'>,
  area: VmallocArea,
): void {
  for (const address of [...area.chunks, ...area.pieces]) {
    ctx.unpreserve({ address, pages: 1 });
    ctx.free({ address, pages: 1 });
  }
}

/** In the successor, once its content was read: as vfree() after kho_restore_vmalloc(). */
export function discardVmalloc(ctx: Pick<RestoreContext, 'discard'>, { chunks, pieces, order }: VmallocArea): void {
  for (const address of chunks) ctx.discard({ address, pages: 1 });
  for (const address of pieces) ctx.discard({ address, pages: 2 ** order });
}
