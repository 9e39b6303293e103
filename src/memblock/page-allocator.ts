import { KhoError } from '../errors.js';
import { after, alignUp, hex, MAX_ORDER_NR_PAGES, MAX_PAGE_ORDER, PAGE_SIZE, type PhysicalAddress } from './address.js';
import { BuddyArea } from './buddy-area.js';
import { checkWholePages, MemoryMap, type MemoryRange } from './memory-map.js';

/** Memory of one NUMA node: what is backed, or what is not. */
export interface NodeStatistics {
  readonly nid: number;
  readonly freePages: number;
  readonly allocatedPages: number;
  /** Number of free blocks of each order, 0 to {@link MAX_PAGE_ORDER}, as in /proc/buddyinfo. */
  readonly freeBlocks: readonly number[];
}

export interface AllocationOptions {
  /** Fail rather than take pages from another node. */
  readonly exact?: boolean;
  /** True (the default) for memory that has bytes, false for memory that has none: guests'. Never one for the other. */
  readonly backed?: boolean;
}

export interface ContiguousOptions extends AllocationOptions {
  /** In bytes: a power of two from {@link PAGE_SIZE} on. Default: see {@link PageAllocator.allocContiguous}. */
  readonly alignment?: number;
}

/** Pages of one node that can stand for one another. */
interface Zone {
  readonly nid: number;
  readonly backed: boolean;
  /** In ascending order of address. */
  readonly areas: BuddyArea[];
  allocated: number;
  peak: number;
}

/** A range of the memory map; its areas begin at multiples of {@link AREA_SIZE}, the first at the range's base. */
interface ZonedRange extends MemoryRange {
  readonly zone: Zone;
  readonly areas: readonly BuddyArea[];
}

/** Ranges are cut here, 4 TiB: an area numbers its pages with 32 bits, and no contiguous allocation crosses a cut. */
const AREA_SIZE = 2 ** 42;
const MAX_BLOCK_SIZE = MAX_ORDER_NR_PAGES * PAGE_SIZE;

/**
 * The buddy allocator of a host: orders 0 to {@link MAX_PAGE_ORDER} per NUMA node, over the ranges handed to it.
 *
 * Deterministic: the same calls give the same addresses. A request takes a block of the smallest order that has one
 * free, of these the one at the lowest address, and splits it keeping the lower half. Without `exact`, other nodes
 * follow in the order of their distance, which is the difference of the node numbers, the lower number first.
 *
 * Unbacked memory is a stock of its own on each node: who needs bytes never gets it, and guests get nothing else.
 *
 * It lives in the memory of one thread and does not know physical memory: it neither reads nor clears pages.
 * Workers allocate from extents instead (see ExtentTable).
 *
 * Errors change nothing: KHO_ENOMEM says what was asked of which node and what is left; KHO_EINVAL which call was given what
 * that is wrong, a node that is no number from 0 on with it. A node without memory is one that has no room.
 */
export class PageAllocator {
  readonly #map: MemoryMap<ZonedRange>;
  /** By node, backed memory before unbacked. */
  readonly #zones: readonly Zone[];
  /** Zones of one kind, nearest first, by node that was asked for. */
  readonly #zonelists = { backed: new Map<number, readonly Zone[]>(), unbacked: new Map<number, readonly Zone[]>() };

  /**
   * An allocator for the memory map `memory`, with nothing free yet. Blocks never reach over a border of the map.
   * KHO_EINVAL for a malformed map, and for one that is not made of whole pages.
   */
  constructor(memory: Iterable<MemoryRange>) {
    const zones: Zone[] = [];
    const ranges = new MemoryMap(memory).ranges.map((range): ZonedRange => {
      const { base, size, nid, backed } = range;
      checkWholePages(range);
      let zone = zones.find((one) => one.nid === nid && one.backed === backed);
      if (zone === undefined) {
        zone = { nid, backed, areas: [], allocated: 0, peak: 0 };
        zones.push(zone);
      }
      const areas = areasOf(base, size);
      zone.areas.push(...areas);
      return { ...range, zone, areas };
    });
    this.#map = new MemoryMap(ranges);
    this.#zones = zones.sort((a, b) => a.nid - b.nid || Number(b.backed) - Number(a.backed));
  }

  /**
   * Hands whole pages over. KHO_EINVAL unless they lie inside one range of the memory map, on node `nid`, and were not
   * handed over before.
   */
  addFreeRange(base: PhysicalAddress, size: number, nid: number): void {
    const call = 'addFreeRange';
    const range = this.#range(call, base, size / PAGE_SIZE);
    if (range.nid !== nid) throw invalid(call, `${hex(base)} is on node ${range.nid}, not on node ${nid}`, base, size);
    const end = base + size;
    for (let at = base; at < end; at = areaEnd(at, end)) {
      if (areaAt(range, at).manages(at, pagesTo(at, end))) {
        throw invalid(call, `some of the ${size} bytes at ${hex(base)} were handed over before`, base, size);
      }
    }
    for (let at = base; at < end; at = areaEnd(at, end)) areaAt(range, at).add(at, pagesTo(at, end));
  }

  /** 2^order pages, aligned to their size. KHO_EINVAL unless `order` is in 0 to {@link MAX_PAGE_ORDER}. */
  allocPages(order: number, nid: number, options: AllocationOptions = {}): PhysicalAddress {
    const call = 'allocPages';
    if (!Number.isInteger(order) || order < 0 || order > MAX_PAGE_ORDER) {
      throw invalid(call, `${order} is not an order of the buddy allocator (0 to ${MAX_PAGE_ORDER})`);
    }
    checkNode(call, nid);
    const base = this.#takeBlock(order, 2 ** order, nid, options);
    if (base !== undefined) return base;
    throw this.#noMemory(`a block of order ${order} (${2 ** order} pages)`, 2 ** order, nid, options);
  }

  /**
   * `pages` contiguous pages, at most {@link MAX_ORDER_NR_PAGES}, aligned to the next power of two; the pages after them
   * stay free (alloc_pages_exact()).
   */
  allocExact(pages: number, nid: number, options: AllocationOptions = {}): PhysicalAddress {
    const call = 'allocExact';
    checkPages(call, pages);
    checkNode(call, nid);
    if (pages > MAX_ORDER_NR_PAGES) {
      throw invalid(call, `${pages} pages exceed a block of order ${MAX_PAGE_ORDER}: allocContiguous has them`);
    }
    const base = this.#takeBlock(orderOfPages(pages), pages, nid, options);
    if (base !== undefined) return base;
    throw this.#noMemory(`${pages} contiguous pages`, pages, nid, options);
  }

  /**
   * `pages` contiguous pages, any number, at a multiple of `alignment`: as {@link allocExact} where a block holds them;
   * above that the lowest run of free blocks of the largest order that does, hence aligned to 4 MiB at least. The pages
   * after them stay free. A folio of 1 GiB is 2^18 pages with an alignment of 1 GiB; no run crosses a multiple of 4 TiB.
   */
  allocContiguous(
    pages: number,
    nid: number,
    { alignment = PAGE_SIZE, ...options }: ContiguousOptions = {},
  ): PhysicalAddress {
    const call = 'allocContiguous';
    checkPages(call, pages);
    checkNode(call, nid);
    if (!(alignment >= PAGE_SIZE && alignment <= AREA_SIZE && Number.isInteger(Math.log2(alignment)))) {
      throw invalid(call, `${alignment} is not an alignment in bytes (a power of two, from ${PAGE_SIZE} to 2^42)`);
    }
    const order = Math.max(orderOfPages(pages), Math.log2(alignment / PAGE_SIZE));
    const base =
      order <= MAX_PAGE_ORDER
        ? this.#takeBlock(order, pages, nid, options)
        : this.#takeRun(pages, alignment, nid, options);
    if (base !== undefined) return base;
    const aligned = alignment === PAGE_SIZE ? '' : ` at a multiple of ${hex(alignment)}`;
    throw this.#noMemory(`${pages} contiguous pages${aligned}`, pages, nid, options);
  }

  /**
   * Gives allocated pages back, which merge with their free buddies. They may be part of an allocation, or several that
   * touch. KHO_EINVAL, with nothing changed, if any of them is not allocated.
   */
  free(base: PhysicalAddress, pages: number): void {
    const call = 'free';
    const range = this.#range(call, base, pages);
    const end = base + pages * PAGE_SIZE;
    for (let at = base; at < end; at = areaEnd(at, end)) {
      const wrong = areaAt(range, at).unallocated(at, pagesTo(at, end));
      if (wrong !== undefined) {
        const text = `the page at ${hex(wrong)} is not allocated: freed twice, or never allocated`;
        throw invalid(call, text, wrong, pages * PAGE_SIZE);
      }
    }
    for (let at = base; at < end; at = areaEnd(at, end)) areaAt(range, at).free(at, pagesTo(at, end));
    range.zone.allocated -= pages;
  }

  /** What there is on each node, ascending: of backed memory, or of unbacked. */
  statistics({ backed = true }: { readonly backed?: boolean } = {}): NodeStatistics[] {
    return this.#zones.filter((zone) => zone.backed === backed).map(statisticsOf);
  }

  /** Free backed pages, of one node or of all. */
  freePages(nid?: number): number {
    return this.statistics().reduce(
      (sum, node) => sum + (nid === undefined || nid === node.nid ? node.freePages : 0),
      0,
    );
  }

  /** The most pages of a node that were ever allocated at a time. Not part of its state: giving back leaves it. */
  peakPages(nid: number, { backed = true }: { readonly backed?: boolean } = {}): number {
    return this.#zones.find((zone) => zone.nid === nid && zone.backed === backed)?.peak ?? 0;
  }

  /**
   * Free blocks by order, in the shape of /proc/buddyinfo. All backed memory of a node is its zone Normal; its unbacked
   * memory, for which Linux has no zone, is called Guest.
   */
  buddyinfo(): string {
    return this.#zones
      .map((zone) => {
        const counts = statisticsOf(zone).freeBlocks.map((blocks) => `${String(blocks).padStart(6)} `);
        return `Node ${zone.nid}, zone ${(zone.backed ? 'Normal' : 'Guest').padStart(8)} ${counts.join('')}\n`;
      })
      .join('');
  }

  /** The first `pages` pages of a block of `order`. */
  #takeBlock(order: number, pages: number, nid: number, options: AllocationOptions): PhysicalAddress | undefined {
    for (const zone of this.#zonelist(nid, options)) {
      for (let from = order; from <= MAX_PAGE_ORDER; from++) {
        for (const area of zone.areas) {
          if (area.hasFree(from)) return this.#keep(zone, area, area.take(from, order), pages, 2 ** order);
        }
      }
    }
    return undefined;
  }

  /** The first `pages` pages of neighbouring blocks of the largest order. */
  #takeRun(pages: number, alignment: number, nid: number, options: AllocationOptions): PhysicalAddress | undefined {
    const blocks = Math.ceil(pages / MAX_ORDER_NR_PAGES);
    const step = Math.ceil(alignment / MAX_BLOCK_SIZE);
    for (const zone of this.#zonelist(nid, options)) {
      for (const area of zone.areas) {
        const base = area.takeRun(blocks, step);
        if (base !== undefined) return this.#keep(zone, area, base, pages, blocks * MAX_ORDER_NR_PAGES);
      }
    }
    return undefined;
  }

  /** Frees all but the first `pages` of the pages that were taken. */
  #keep(zone: Zone, area: BuddyArea, base: PhysicalAddress, pages: number, taken: number): PhysicalAddress {
    if (taken > pages) area.free(after(base, pages * PAGE_SIZE), taken - pages);
    zone.allocated += pages;
    zone.peak = Math.max(zone.peak, zone.allocated);
    return base;
  }

  /** What to try, nearest node first. */
  #zonelist(nid: number, { exact = false, backed = true }: AllocationOptions): readonly Zone[] {
    const lists = backed ? this.#zonelists.backed : this.#zonelists.unbacked;
    let list = lists.get(nid);
    if (list === undefined) {
      list = this.#zones
        .filter((zone) => zone.backed === backed)
        .sort((a, b) => Math.abs(a.nid - nid) - Math.abs(b.nid - nid) || a.nid - b.nid);
      lists.set(nid, list);
    }
    return exact ? list.filter((zone) => zone.nid === nid) : list;
  }

  /** The range that whole pages are in. */
  #range(call: string, base: PhysicalAddress, pages: number): ZonedRange {
    checkPages(call, pages, base);
    const size = pages * PAGE_SIZE;
    if (base % PAGE_SIZE !== 0) throw invalid(call, `${hex(base)} is not aligned to a page`, base, size);
    const range = this.#map.find(base);
    if (range !== undefined && base + size <= range.base + range.size) return range;
    throw invalid(call, `${pages} pages at ${hex(base)} are not inside one range of memory`, base, size);
  }

  #noMemory(what: string, pages: number, nid: number, options: AllocationOptions): KhoError {
    const { exact = false, backed = true } = options;
    const kind = backed ? '' : ' of unbacked memory';
    const place = exact ? `on node ${nid}` : `for node ${nid}, nor on any other`;
    const zones = this.#zonelist(nid, options).map(statisticsOf);
    if (!backed && !this.#zones.some((zone) => !zone.backed)) {
      const text = `${what}${kind} cannot be had: the host has none (host.guestMemory)`;
      return new KhoError('KHO_ENOMEM', text, { size: pages * PAGE_SIZE });
    }
    const free = zones.reduce((sum, zone) => sum + zone.freePages, 0);
    const largest = Math.max(-1, ...zones.map((zone) => zone.freeBlocks.findLastIndex((blocks) => blocks > 0)));
    // Of what is larger than a block, the largest block says nothing.
    const most =
      largest === MAX_PAGE_ORDER ? 'but no such run of blocks' : `the largest free block has order ${largest}`;
    const rest = largest < 0 ? 'nothing is free' : `${free} pages are free, ${most}`;
    return new KhoError('KHO_ENOMEM', `${what}${kind} cannot be had ${place}: ${rest}`, { size: pages * PAGE_SIZE });
  }
}

/** The buddy systems of a range. */
function areasOf(base: PhysicalAddress, size: number): BuddyArea[] {
  const areas: BuddyArea[] = [];
  const end = base + size;
  for (let at = base; at < end; at = areaEnd(at, end)) areas.push(new BuddyArea(at, areaEnd(at, end) - at));
  return areas;
}

/** Where the area that holds `at` ends, or `end` if that comes first. */
function areaEnd(at: PhysicalAddress, end: number): PhysicalAddress {
  return Math.min(end, alignUp(at + 1, AREA_SIZE)) as PhysicalAddress;
}

function areaAt({ base, areas }: ZonedRange, at: PhysicalAddress): BuddyArea {
  return areas[Math.floor(at / AREA_SIZE) - Math.floor(base / AREA_SIZE)];
}

/** Pages from `at` up to `end`, or to the end of the area. */
function pagesTo(at: PhysicalAddress, end: number): number {
  return (areaEnd(at, end) - at) / PAGE_SIZE;
}

function statisticsOf({ nid, areas, allocated }: Zone): NodeStatistics {
  const freeBlocks = Array.from({ length: MAX_PAGE_ORDER + 1 }, (_, order) =>
    areas.reduce((sum, area) => sum + area.freeBlocks(order), 0),
  );
  const freePages = freeBlocks.reduce((sum, blocks, order) => sum + blocks * 2 ** order, 0);
  return { nid, freePages, allocatedPages: allocated, freeBlocks };
}

/** The smallest order whose 2^order pages are `pages` or more. */
function orderOfPages(pages: number): number {
  return Math.ceil(Math.log2(pages));
}

function checkPages(call: string, pages: number, base?: PhysicalAddress): void {
  if (Number.isSafeInteger(pages) && pages > 0) return;
  const where = base === undefined ? '' : `, at ${hex(base)}`;
  throw invalid(call, `${pages} is not a number of pages (whole, at least 1)${where}`, base);
}

function checkNode(call: string, nid: number): void {
  if (!Number.isSafeInteger(nid) || nid < 0) throw invalid(call, `${nid} is no NUMA node`);
}

function invalid(call: string, text: string, address?: number, size?: number): KhoError {
  const where = { ...(address !== undefined && { address }), ...(size !== undefined && { size }) };
  return new KhoError('KHO_EINVAL', `${call}: ${text}`, { call, ...where });
}
