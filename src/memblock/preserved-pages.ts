import { KhoError } from '../errors.js';
import { hex, MAX_PAGE_ORDER, orderOf, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress } from './address.js';
import { NodeMap } from './node-map.js';
import { type Folio, naturalOrder, naturalOrderOnNode, type SameNode } from './page-range.js';
import type { PhysicalMemory } from './physical-memory.js';
import { ORDER_0_LOG2 } from './radix-key.js';
import type { RadixTree } from './radix-tree.js';
import type { ScratchArea } from './scratch.js';

// Of the module's own, and in tables: V8 loads what is imported anew each time, and 2 ** order and % are slow for doubles.
const PAGE_BYTES = PAGE_SIZE;
const FRAMES_PER_BYTE = 1 / PAGE_SIZE;
const END_FRAME = PHYS_ADDR_MAX / PAGE_SIZE;
/** Pages of a folio, by order. */
const FOLIO_PAGES = Float64Array.from({ length: ORDER_0_LOG2 + 1 }, (_, order) => 2 ** order);
/** Its bytes; nothing is near where the order is none, because undefined compares with nothing. */
const FOLIO_BYTES = FOLIO_PAGES.map((pages) => pages * PAGE_SIZE);

/** Where {@link PreservedPages.allocPreserve} gets its folios. */
export interface FolioSource {
  /** 2^order pages, aligned to their size. */
  allocate(order: number): PhysicalAddress;
  free(address: PhysicalAddress, pages: number): void;
}

/**
 * The calls by which a kernel preserves memory (kernel/liveupdate/kexec_handover.c, Linux 7.2), over the tracker of one
 * host: a folio is one object, whatever its order; a range of pages is as many as it has natural orders, none of them on two
 * nodes; objects are never merged. What is not like this in the kernel, because it only warns there, is in
 * docs/trackers.md.
 *
 * After any error the marks are as they were before the call; tables that a tree made for earlier objects of the call stay, as
 * the kernel's do. As long as a call runs, other threads may see a part of it.
 *
 * Each thread has one of its own, with its own {@link RadixTree}.
 */
export class PreservedPages {
  readonly tracker: RadixTree;
  readonly #memory: PhysicalMemory;
  readonly #nodes: NodeMap;
  readonly #scratch: readonly ScratchArea[];
  /** The memory around what was preserved last: of one range, and without scratch. Most of what follows lies in it, too. */
  #start = 0;
  #end = 0;

  /** `scratch` may be left out where no page of it can come from. */
  constructor(tracker: RadixTree, memory: PhysicalMemory, scratch: readonly ScratchArea[] = []) {
    this.tracker = tracker;
    this.#memory = memory;
    this.#nodes = new NodeMap(memory.ranges);
    this.#scratch = scratch.filter(({ size }) => size > 0);
  }

  /**
   * kho_preserve_folio(). KHO_EINVAL for an order that is none, for an address that is no multiple of the folio's size, and
   * for scratch (named); KHO_EFAULT outside of memory; KHO_EEXIST if it is preserved; what {@link RadixTree.set} throws
   * where the tree has no path.
   */
  preserveFolio(address: PhysicalAddress, order: number): void {
    // Near the last one it lies in memory, and the tree looks at its alignment: there is nothing else to check.
    if (!this.#isNear(address, FOLIO_BYTES[order]))
      this.#checkPlace('kho_preserve_folio', address, pagesOf(address, order));
    this.tracker.set(address, order);
  }

  /** kho_unpreserve_folio(). KHO_ENOENT unless exactly this folio is preserved, KHO_EINVAL as {@link preserveFolio}. */
  unpreserveFolio(address: PhysicalAddress, order: number): void {
    this.tracker.clear(address, order);
  }

  /** `count` folios of one order, one behind another, as many calls of {@link preserveFolio}: all or none of them. */
  preserveFolios(address: PhysicalAddress, order: number, count: number): void {
    this.#checkPlace('kho_preserve_folio', address, pagesOf(address, order) * count);
    this.tracker.setRun(address, order, count);
  }

  /** Takes {@link preserveFolios} back, all or none. KHO_ENOENT if one of them is not preserved. */
  unpreserveFolios(address: PhysicalAddress, order: number, count: number): void {
    this.tracker.clearRun(address, order, count);
  }

  /**
   * kho_preserve_pages(). KHO_EINVAL for an address that is not aligned, for no pages (the kernel does nothing), for a range
   * beyond the end of the address space, and for scratch (named); KHO_EFAULT outside of memory; KHO_EEXIST if one of
   * the objects is preserved; what {@link RadixTree.set} throws where the tree has no path.
   */
  preservePages(address: PhysicalAddress, pages: number): void {
    this.#checkPlace('kho_preserve_pages', address, pages);
    const { tracker } = this;
    const crossing = this.#crossing(address, pages);
    const frame = address * FRAMES_PER_BYTE;
    let done = 0;
    try {
      while (done < pages) {
        const order = orderAt(frame + done, pages - done, crossing);
        tracker.set((address + done * PAGE_BYTES) as PhysicalAddress, order);
        done += FOLIO_PAGES[order];
      }
    } catch (error) {
      if (done > 0) this.unpreservePages(address, done); // the split of what was done is the same again
      throw error;
    }
  }

  /**
   * kho_unpreserve_pages(): takes back what {@link preservePages} did with the same arguments. KHO_ENOENT if one of the
   * objects is not preserved (the kernel warns, and takes back the others), KHO_EINVAL as preservePages, but for scratch.
   */
  unpreservePages(address: PhysicalAddress, pages: number): void {
    checkRange('kho_unpreserve_pages', address, pages);
    const { tracker } = this;
    const crossing = this.#crossing(address, pages);
    const frame = address * FRAMES_PER_BYTE;
    let done = 0;
    try {
      while (done < pages) {
        const order = orderAt(frame + done, pages - done, crossing);
        tracker.clear((address + done * PAGE_BYTES) as PhysicalAddress, order);
        done += FOLIO_PAGES[order];
      }
    } catch (error) {
      if (done > 0) this.preservePages(address, done);
      throw error;
    }
  }

  /**
   * kho_alloc_preserve(): a folio that holds `size` bytes, zeroed and preserved. KHO_EINVAL for no bytes, KHO_E2BIG above 4 MiB,
   * and the errors of {@link preserveFolio} and of the source: then the folio is given back.
   */
  allocPreserve(size: number, source: FolioSource): Folio {
    const call = 'kho_alloc_preserve';
    if (!Number.isSafeInteger(size) || size <= 0) {
      throw new KhoError('KHO_EINVAL', `${size} is no size of an allocation`, { call });
    }
    const order = orderOf(size);
    if (order > MAX_PAGE_ORDER) {
      const most = PAGE_SIZE * 2 ** MAX_PAGE_ORDER;
      throw new KhoError('KHO_E2BIG', `${size} bytes: a folio holds ${most} at most`, { call, size });
    }
    const address = source.allocate(order);
    try {
      this.#memory.fill(address, PAGE_SIZE * 2 ** order, 0);
      this.preserveFolio(address, order);
    } catch (error) {
      source.free(address, 2 ** order);
      throw error;
    }
    return { address, order };
  }

  /** kho_unpreserve_free(): takes {@link allocPreserve} back. KHO_ENOENT, and nothing is freed, if it is not preserved. */
  unpreserveFree({ address, order }: Folio, source: FolioSource): void {
    this.unpreserveFolio(address, order);
    source.free(address, 2 ** order);
  }

  /** Preserves a finished blob: one folio up to 4 MiB, a range above. KHO_EINVAL without bytes, otherwise as these. */
  preserveBlob(address: PhysicalAddress, size: number): void {
    const order = orderOf(size);
    if (size > 0 && order <= MAX_PAGE_ORDER) this.preserveFolio(address, order);
    else this.preservePages(address, Math.ceil(size / PAGE_SIZE));
  }

  /**
   * The first preserved object up to `maxOrder` that shares a page with a range: of several the one of the lowest order.
   * Pages may be preserved in other pieces than they were allocated in, so every order counts.
   */
  objectIn(address: PhysicalAddress, pages: number, maxOrder = ORDER_0_LOG2): Folio | undefined {
    checkRange('objectIn', address, pages);
    const first = address / PAGE_SIZE;
    for (let order = 0; order <= maxOrder; order++) {
      const size = 2 ** order;
      const number = Math.floor(first / size);
      const count = Math.ceil((first + pages) / size) - number;
      const start = (number * size * PAGE_SIZE) as PhysicalAddress;
      const found = this.tracker.firstOfRun(start, order, count);
      if (found !== undefined) return { address: found, order };
    }
    return undefined;
  }

  /** What splits the range at the borders of nodes; undefined if there is none in it. */
  #crossing(address: PhysicalAddress, pages: number): SameNode | undefined {
    const size = pages * PAGE_BYTES;
    if (this.#isNear(address, size) || this.#nodes.rangeOf(address, size) !== undefined) return undefined;
    return this.#nodes.sameNode;
  }

  #isNear(address: PhysicalAddress, size: number): boolean {
    return address >= this.#start && address + size <= this.#end;
  }

  #checkPlace(call: string, address: PhysicalAddress, pages: number): void {
    checkRange(call, address, pages);
    const size = pages * PAGE_BYTES;
    if (!this.#isNear(address, size)) this.#goTo(call, address, size);
  }

  /** Looks a place up that is not where the last one was. */
  #goTo(call: string, address: PhysicalAddress, size: number): void {
    const end = address + size;
    for (const area of this.#scratch) {
      if (address >= area.address + area.size || end <= area.address) continue;
      const name = area.kind === 'node' ? `node ${area.nid}` : area.kind;
      const where = `${hex(area.address)}-${hex(area.address + area.size)}`;
      const text = `${hex(address)}-${hex(end)} reaches into the ${name} scratch area ${where}`;
      throw new KhoError('KHO_EINVAL', `${call}: ${text}: it is the next kernel's`, { call, address, size });
    }
    const range = this.#nodes.rangeOf(address, size);
    if (range === undefined) {
      this.#nodes.checkMemory(call, address, size);
      return;
    }
    this.#start = range.base;
    this.#end = range.base + range.size;
    for (const area of this.#scratch) {
      if (area.address < address) this.#start = Math.max(this.#start, area.address + area.size);
      else this.#end = Math.min(this.#end, area.address);
    }
  }
}

/** The order of the object that a range's rest begins with. */
function orderAt(frame: number, pages: number, crossing: SameNode | undefined): number {
  return crossing === undefined ? naturalOrder(frame, pages) : naturalOrderOnNode(frame, pages, crossing);
}

/** KHO_EINVAL unless the order is one. */
function pagesOf(address: PhysicalAddress, order: number): number {
  const pages = FOLIO_PAGES[order];
  if (pages !== undefined) return pages;
  const call = 'kho_preserve_folio';
  const text = `${call}: ${order} is not the order of a folio (0 to ${ORDER_0_LOG2}), at ${hex(address)}`;
  throw new KhoError('KHO_EINVAL', text, { call, address });
}

function checkRange(call: string, address: PhysicalAddress, pages: number): void {
  const frame = address * FRAMES_PER_BYTE;
  const some = pages > 0 && Number.isSafeInteger(pages);
  if (some && frame >= 0 && Math.floor(frame) === frame && frame + pages <= END_FRAME) return;
  throw noRange(call, address, pages);
}

/** Apart from {@link checkRange}, which stays small enough to be inlined. */
function noRange(call: string, address: PhysicalAddress, pages: number): KhoError {
  const why = !(pages > 0 && Number.isSafeInteger(pages))
    ? `it has ${pages > 0 ? 'no whole number of' : 'no'} pages`
    : !(address >= 0 && address % PAGE_SIZE === 0)
      ? 'it does not begin with a page'
      : `it ends beyond ${hex(PHYS_ADDR_MAX)}`;
  return new KhoError('KHO_EINVAL', `${call}: no range of pages: ${pages} at ${hex(address)}: ${why}`, {
    call,
    address,
  });
}
