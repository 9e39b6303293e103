import { after, PAGE_SIZE, type PageFrame, type PhysicalAddress, pageFrame } from './address.js';

/** Contiguous whole pages. */
export interface PageRange {
  /** First address, a multiple of the page size. */
  readonly address: PhysicalAddress;
  readonly pages: number;
}

/** 2^order pages at an address that is a multiple of their size: what the buddy allocator and the tracker deal in. */
export interface Folio {
  readonly address: PhysicalAddress;
  readonly order: number;
}

/**
 * Splits a page range into the folios that kho_preserve_pages() marks (Linux 7.2): each as large as alignment and the
 * rest of the range allow, with no upper limit, but no larger than `sameNode` accepts for its first and last frame.
 * Ascending addresses; the folios cover the range exactly.
 *
 * The catch: kho_restore_pages() recomputes the split without the node rule, so that of a natural block with a border
 * inside it takes back the first folio alone (docs/numa-split.md).
 */
export function* naturalOrders(
  base: PhysicalAddress,
  pages: number,
  sameNode: (first: PageFrame, last: PageFrame) => boolean = () => true,
): Generator<Folio, void> {
  let frame: number = pageFrame(base);
  for (let rest = pages; rest > 0; ) {
    let count = 1;
    let order = 0;
    while (frame % (count * 2) === 0 && count * 2 <= rest) {
      count *= 2;
      order++;
    }
    while (order > 0 && !sameNode(frame as PageFrame, (frame + count - 1) as PageFrame)) {
      count /= 2;
      order--;
    }
    yield { address: after(base, (pages - rest) * PAGE_SIZE), order };
    frame += count;
    rest -= count;
  }
}
