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

/** Whether two frames lie on one node. */
export type SameNode = (first: PageFrame, last: PageFrame) => boolean;

/**
 * The order of the first folio that a range of `pages` pages, one or more, from frame `frame` on is split to: as large as
 * alignment and the range allow, with no upper limit. Both are integers below 2^52. Allocates nothing.
 */
export function naturalOrder(frame: number, pages: number): number {
  return Math.min(trailingZeros(frame), log2(pages));
}

/** {@link naturalOrder}, less as long as the folio's first and last frame are not on one node (kho_preserve_pages()). */
export function naturalOrderOnNode(frame: number, pages: number, sameNode: SameNode): number {
  let order = naturalOrder(frame, pages);
  while (order > 0 && !sameNode(frame as PageFrame, (frame + 2 ** order - 1) as PageFrame)) order--;
  return order;
}

/**
 * Splits a page range into the folios that kho_preserve_pages() marks (Linux 7.2): each as large as alignment and the
 * rest of the range allow, with no upper limit, but no larger than `sameNode` accepts for its first and last frame.
 * Ascending addresses; the folios cover the range exactly.
 *
 * The catch: kho_restore_pages() recomputes the split without the node rule, so that of a natural block whose first and
 * last page are on different nodes it takes back the first folio alone. And a folio lies on two nodes where a node comes
 * back at its end, for only its ends are asked (docs/numa-split.md).
 */
export function* naturalOrders(
  base: PhysicalAddress,
  pages: number,
  sameNode: SameNode = () => true,
): Generator<Folio, void> {
  const start = pageFrame(base);
  for (let done = 0; done < pages; ) {
    const order = naturalOrderOnNode(start + done, pages - done, sameNode);
    yield { address: after(base, done * PAGE_SIZE), order };
    done += 2 ** order;
  }
}

/** Of 0 as of 2^52: more than any range has pages. */
function trailingZeros(value: number): number {
  const low = value >>> 0;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  const high = Math.floor(value / 2 ** 32);
  return high === 0 ? 52 : 63 - Math.clz32(high & -high);
}

/** The exponent of the highest power of two that is not above `value`. */
function log2(value: number): number {
  return value < 2 ** 32 ? 31 - Math.clz32(value) : 63 - Math.clz32(value / 2 ** 32);
}
