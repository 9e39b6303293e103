import { MAX_PAGE_ORDER, orderOf, PAGE_SIZE, type PhysicalAddress } from './address.js';
import { naturalOrders } from './page-range.js';
import type { RadixTree } from './radix-tree.js';

/** Marks a range as kho_preserve_pages() does: each part of its natural order by itself. */
export function preservePages(tracker: RadixTree, address: PhysicalAddress, pages: number): void {
  for (const { address: start, order } of naturalOrders(address, pages)) tracker.set(start, order);
}

/** Marks a finished blob: one folio up to 4 MiB, a range above. Any thread, if the tables are there. */
export function preserveBlob(tracker: RadixTree, address: PhysicalAddress, size: number): void {
  const order = orderOf(size);
  if (order <= MAX_PAGE_ORDER) tracker.set(address, order);
  else preservePages(tracker, address, Math.ceil(size / PAGE_SIZE));
}
