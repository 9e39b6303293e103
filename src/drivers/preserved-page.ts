import { type CancelContext, type MemoryWriter, PAGE_SIZE, type PhysicalAddress, type ShardAccess } from '../driver.js';

/** A page of zeros that is handed over as one folio, as kho_alloc_preserve() gives it for up to 4096 bytes. */
export function preservePage(shard: ShardAccess, memory: MemoryWriter): PhysicalAddress {
  const page = shard.allocFolio(0);
  shard.preserve(page);
  memory.fill(page.address, PAGE_SIZE, 0);
  return page.address;
}

/** Gives it back, as kho_unpreserve_free(). */
export function unpreservePage(
  ctx: Pick<CancelContext<unknown, unknown, unknown>, 'unpreserve' | 'free'>,
  address: PhysicalAddress,
): void {
  ctx.unpreserve({ address, order: 0 });
  ctx.free({ address, order: 0 });
}
