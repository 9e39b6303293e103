import {
  KEXEC_METADATA_NAME,
  type KhoserBitmapBits,
  KhoserBound,
  MEMBLOCK_SUBTREE_NAME,
  type Profile,
  ROOT_FDT_SIZE,
  SUB_FDT_LINK_SIZE,
  type SubBlobsProfile,
  subFdtProperties,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { align4, FDT_HEADER_SIZE, FDT_RESERVATION_SIZE, nodeSize, propertySize } from '../fdt/index.js';
import {
  after,
  type Extent,
  ExtentTable,
  type Folio,
  LEAF_BITS,
  MAX_ORDER_NR_PAGES,
  MAX_PAGE_ORDER,
  naturalOrders,
  nodesWithMemory,
  orderOf,
  PAGE_SIZE,
  type PageRange,
  type PhysicalAddress,
  PreservedPages,
  preservedPages,
  RadixTree,
  type ShardGrant,
  walkRadixTree,
} from '../memblock/index.js';
import { DmaGate, type InstanceDescription, type Mode } from '../workers/index.js';
import type { Host } from './host.js';
import { type InheritedExtents, unclaimedParts } from './inheritance.js';
import { type RegisteredDriver, type Registry, shardOwner } from './registry.js';
import type { ReclaimedMemory } from './rollback-report.js';
import type { RangeOwner } from './run-record.js';

const FDT_END_SIZE = 4;
const CORE_NODE = 0;
/** Guest memory is taken in pieces of so many pages, 1 GiB, where it can be. */
const GUEST_PIECE = 2 ** 18;

interface Owned {
  readonly start: number;
  readonly end: number;
  readonly owner: RangeOwner;
  /** Number of the shard, if it is its own. */
  readonly index?: number;
}

/** Memory of a guest, in folios of one order. */
interface GuestRange extends PageRange {
  readonly order: number;
}

/** Where a driver's FDT will lie: room for the largest that its shards may make. */
export interface BlobRoom {
  readonly address: PhysicalAddress;
  readonly pages: number;
}

/** Room for everything that a handover in sub-blobs has beside the pages of its drivers. */
export interface BlobRooms {
  /** By driver; undefined for one with a raw blob, which lies in its own pages. */
  readonly drivers: readonly (BlobRoom | undefined)[];
  /** By shard, in mode `subfdt`: of a driver that has no raw blob. */
  readonly shards: readonly (BlobRoom | undefined)[];
  readonly root: PhysicalAddress;
  /** Pages of the core's blobs by name. */
  readonly core: ReadonlyMap<string, PhysicalAddress>;
}

/**
 * Everything that a run takes from the host before the blackout, in the order of registration: the extents of shards;
 * room for the drivers' FDTs, pages for the core's blobs and the root FDT, and pages for the list of preserved memory in a
 * profile that has one; and the tracker with every table that any of these could need. So nothing is allocated in the blackout, and every address depends on the scenario alone.
 *
 * All pages are cleared when they are taken: the bytes that are handed over must not depend on what was there before,
 * nor give it away; and the system commits them now, not in the blackout.
 */
export class Reservations {
  readonly extents: ExtentTable;
  /** What shards have of the guests' memory, in folios of the order that each declared. */
  readonly guestExtents: ExtentTable;
  /** Open until the memory is given back. */
  readonly dma = DmaGate.create();
  /** Undefined where all is in one FDT, which lies in a kexec segment. */
  readonly rooms: BlobRooms | undefined;
  /** Where preserved memory is a chunk list: pages for it, as many as it can need. */
  readonly listPages: readonly PhysicalAddress[];
  readonly tracker: RadixTree;
  /** The tracker by the kernel's calls. */
  readonly preserved: PreservedPages;
  readonly #host: Host;
  /** What came from the page allocator. */
  readonly #taken: PageRange[] = [];
  /** Guests' memory that came from there: it is never touched. */
  readonly #takenGuests: PageRange[] = [];
  /** All guests' memory. */
  readonly #guests: GuestRange[] = [];
  /** What drivers have had since before this kernel. */
  readonly #lent: InheritedExtents[] = [];
  readonly #lentGuests: InheritedExtents[] = [];
  readonly #owners: Owned[] = [];

  /**
   * KHO_ENOMEM or KHO_E2BIG, naming driver, instance and shard, with nothing taken; KHO_EBUSY if the host is over.
   */
  constructor(host: Host, registry: Registry, profile: Profile, mode: Mode) {
    host.checkRunning();
    this.#host = host;
    try {
      this.extents = this.#grantExtents(registry);
      this.guestExtents = this.#grantGuests(registry);
      this.rooms = profile.form === 'sub-blobs' ? this.#reserveBlobs(registry, mode, profile) : undefined;
      this.listPages = profile.bitmapBits === undefined ? [] : this.#reserveList(profile.bitmapBits);
      for (const { name, address, size } of host.reserveMem) {
        const { address: start } = preservedPages({ address, size });
        this.#owners.push({ start, end: address + size, owner: { kind: 'reserve_mem', name } });
      }
      this.#owners.sort((a, b) => a.start - b.start);
      this.tracker = this.#buildTracker();
      this.preserved = new PreservedPages(this.tracker, host.memory, host.scratch.areas);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** Whose memory an address is. */
  ownerOf(address: PhysicalAddress): RangeOwner | undefined {
    return this.#ownedAt(address)?.owner;
  }

  /** The shard in whose extents an address is, with its number; undefined for memory of other kinds. */
  shardAt(address: PhysicalAddress): { readonly index: number; readonly owner: RangeOwner } | undefined {
    const { index, owner } = this.#ownedAt(address) ?? {};
    return index === undefined || owner === undefined ? undefined : { index, owner };
  }

  #ownedAt(address: PhysicalAddress): Owned | undefined {
    let low = 0;
    let high = this.#owners.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#owners[middle]?.start ?? 0) <= address) low = middle + 1;
      else high = middle;
    }
    const candidate = this.#owners[low - 1];
    return candidate !== undefined && address < candidate.end ? candidate : undefined;
  }

  /** Marks the host's `reserve_mem` areas as kho_preserve_pages() does. */
  preserveReservedMem(): void {
    for (const area of this.#host.reserveMem) {
      const { address, pages } = preservedPages(area);
      this.preserved.preservePages(address, pages);
    }
  }

  /**
   * Takes back what the shards still have: afterwards nothing is preserved. Returns what there was, by shard; for when no
   * driver runs any more.
   */
  reclaim(registry: Registry): ReclaimedMemory[] {
    const objects = new Map<number, number>();
    const preserved: Folio[] = [];
    walkRadixTree(this.#host.memory, this.tracker.root, (address, order) => {
      preserved.push({ address, order });
      const { index } = this.shardAt(address) ?? {};
      if (index !== undefined) objects.set(index, (objects.get(index) ?? 0) + 1);
    });
    for (const { address, order } of preserved) this.tracker.clear(address, order);
    return registry.shards.flatMap((_, index) => {
      const pages = [this.extents.extent(index), this.guestExtents.extent(index)].reduce(
        (sum, extents) => sum + extents.declaredPages - extents.freePages,
        0,
      );
      const left = { pages, objects: objects.get(index) ?? 0 };
      return left.pages + left.objects === 0 ? [] : [{ ...shardOwner(registry, index), ...left }];
    });
  }

  /** Gives everything back to the host's page allocator, but for what drivers inherited: that stays theirs. Once. */
  release(): void {
    this.dma.close();
    const lent = [...this.#lent.splice(0), ...this.#lentGuests.splice(0)];
    for (const extents of lent) this.#host.inheritance.giveBack(extents);
    const taken = [...this.#taken.splice(0), ...this.#takenGuests.splice(0)];
    for (const { address, pages } of taken) this.#host.pages.free(address, pages);
  }

  #grantExtents(registry: Registry): ExtentTable {
    const nodes = nodesWithMemory(this.#host.memblock); // on a captured machine their numbers may have gaps
    const grants = registry.shards.map(({ pages, instance: item }, shard) => {
      const whose = shardOwner(registry, shard);
      const { driver: name, ...within } = whose;
      const owner: RangeOwner = { kind: 'pages', name, ...within };
      const inherited = this.#host.inheritance.lend(owner, pages);
      if (inherited !== undefined) return this.#keepExtents(inherited, owner, shard);
      const ranges: Extent[] = [];
      try {
        // Instances take turns among the nodes, as devices do among sockets.
        for (let left = pages; left > 0; left -= MAX_ORDER_NR_PAGES) {
          const part = Math.min(left, MAX_ORDER_NR_PAGES);
          ranges.push({ base: this.#takePages(part, nodes[item % nodes.length], owner, shard), pages: part });
        }
      } catch (error) {
        throw KhoError.from(error).with(whose);
      }
      return { pages, ranges };
    });
    return ExtentTable.create(grants);
  }

  /** A driver's memory stays where it was, with the content that it has; pages without content are cleared. */
  #keepExtents(inherited: InheritedExtents, owner: RangeOwner, index: number): ShardGrant {
    const { pages, ranges, claimed } = inherited;
    this.#lent.push(inherited);
    for (const extent of ranges) {
      for (const part of unclaimedParts(extent, claimed)) {
        this.#host.memory.fill(part.address, part.pages * PAGE_SIZE, 0);
      }
      this.#owners.push({ start: extent.base, end: extent.base + extent.pages * PAGE_SIZE, owner, index });
    }
    return { pages, ranges };
  }

  /** Guest memory of the shards, nobody else's: from the node whose turn it is, as long as that has any. */
  #grantGuests(registry: Registry): ExtentTable {
    const nodes = nodesWithMemory(this.#host.memblock);
    const grants = registry.shards.map(({ guest, instance: item }, index): ShardGrant => {
      if (guest === undefined) return { pages: 0, ranges: [] };
      const { order } = guest;
      const pages = guest.size / PAGE_SIZE;
      const whose = shardOwner(registry, index);
      const { driver: name, ...within } = whose;
      const owner: RangeOwner = { kind: 'guest', name, ...within };
      const inherited = this.#host.inheritance.lend(owner, pages, order);
      if (inherited !== undefined) this.#lentGuests.push(inherited);
      try {
        const ranges = inherited?.ranges ?? this.#takeGuest(pages, order, nodes[item % nodes.length]);
        for (const { base, pages: count } of ranges) {
          this.#guests.push({ address: base, pages: count, order });
          this.#owners.push({ start: base, end: base + count * PAGE_SIZE, owner, index });
        }
        return { pages, ranges, order };
      } catch (error) {
        throw KhoError.from(error).with(whose);
      }
    });
    return ExtentTable.create(grants);
  }

  /** Folios of one order, in as few pieces as there can be: neighbours are one. */
  #takeGuest(pages: number, order: number, node: number): Extent[] {
    const folio = 2 ** order;
    const options = { alignment: folio * PAGE_SIZE, backed: false };
    const ranges: { base: PhysicalAddress; pages: number }[] = [];
    let most = Math.max(folio, GUEST_PIECE);
    for (let left = pages; left > 0; ) {
      const piece = Math.min(most, left);
      let base: PhysicalAddress;
      try {
        base = this.#host.pages.allocContiguous(piece, node, options);
      } catch (error) {
        if (piece === folio) throw error;
        most = folio; // what is left lies in small pieces
        continue;
      }
      this.#takenGuests.push({ address: base, pages: piece });
      const last = ranges.at(-1);
      if (last !== undefined && last.base + last.pages * PAGE_SIZE === base) last.pages += piece;
      else ranges.push({ base, pages: piece });
      left -= piece;
    }
    return ranges.sort((a, b) => a.base - b.base);
  }

  #reserveBlobs(registry: Registry, mode: Mode, { subtrees }: SubBlobsProfile): BlobRooms {
    const linked = mode === 'subfdt';
    // The core's own blobs, a page each: kexec-metadata is no FDT.
    const core = subtrees.sized ? [KEXEC_METADATA_NAME, MEMBLOCK_SUBTREE_NAME] : [MEMBLOCK_SUBTREE_NAME];
    return {
      drivers: registry.drivers.map((driver) => {
        if (driver.blob === 'raw') return undefined;
        const bytes = linked ? linksBound(driver, registry) : blobBound(driver, registry);
        return this.#reserveBlob(bytes, { kind: 'blob', name: driver.name });
      }),
      shards: linked ? this.#reserveShardFdts(registry) : [],
      root: this.#takePages(1, CORE_NODE, { kind: 'root', name: 'root FDT' }),
      core: new Map(core.map((name) => [name, this.#takePages(1, CORE_NODE, { kind: 'blob', name })] as const)),
    };
  }

  #reserveShardFdts(registry: Registry): (BlobRoom | undefined)[] {
    return registry.shards.map(({ instance: item, maxBytes }, shard) => {
      const instance = registry.instances[item];
      const driver = registry.drivers[instance?.driver ?? 0];
      if (instance === undefined || driver === undefined || driver.blob === 'raw') return undefined;
      return this.#reserveBlob(frameBound(driver) + maxBytes, {
        kind: 'blob',
        name: driver.name,
        instance: instance.name,
        shard: shard - instance.firstShard,
      });
    });
  }

  /** Whatever of the extents, of the blobs and of `reserve_mem` areas is preserved in the end, these pages can list it. */
  #reserveList(bits: KhoserBitmapBits): PhysicalAddress[] {
    const bound = new KhoserBound(bits);
    for (const { address, pages } of this.#all()) bound.addRange(address, pages, maxOrderIn(pages));
    for (const { address, pages, order } of this.#guests) bound.addRange(address, pages, order, order);
    for (const area of this.#host.reserveMem) {
      const { address, pages } = preservedPages(area);
      for (const folio of naturalOrders(address, pages)) bound.addFolio(folio);
    }
    return Array.from({ length: bound.pages }, () => {
      const address = this.#takeUnowned();
      this.#host.memory.fill(address, PAGE_SIZE, 0);
      return address;
    });
  }

  #reserveBlob(atMost: number, owner: RangeOwner): BlobRoom {
    const bytes = Math.max(align4(atMost), ROOT_FDT_SIZE);
    const order = orderOf(bytes);
    try {
      // A whole power of two, so that the finished blob is aligned to its order whatever its size.
      const pages = order <= MAX_PAGE_ORDER ? 2 ** order : Math.ceil(bytes / PAGE_SIZE);
      return { address: this.#takePages(pages, CORE_NODE, owner), pages };
    } catch (error) {
      const { name: driver, instance, shard } = owner;
      const whose = instance === undefined ? `'${driver}'` : `'${driver}', instance ${instance}, shard ${shard}`;
      throw new KhoError(
        order <= MAX_PAGE_ORDER ? 'KHO_ENOMEM' : 'KHO_E2BIG',
        `no room for the FDT of ${whose}, which may take ${bytes} bytes: ${KhoError.from(error).message}`,
        { driver, size: bytes, ...(instance !== undefined && { instance }), ...(shard !== undefined && { shard }) },
      );
    }
  }

  #buildTracker(): RadixTree {
    const { memory, reserveMem } = this.#host;
    const tracker = RadixTree.create(memory, () => this.#takeUnowned());
    for (const { address, pages: count } of this.#all()) {
      tracker.ensureRange(address, count, maxOrderIn(count));
    }
    for (const { address, pages, order } of this.#guests) {
      // Guest memory is preserved in folios of its order alone: a leaf holds the marks of LEAF_BITS of them.
      const last = after(address, (pages - 2 ** order) * PAGE_SIZE);
      const step = LEAF_BITS * 2 ** order * PAGE_SIZE;
      for (let at = address; at < last; at = after(at, step)) tracker.ensure(at, order);
      tracker.ensure(last, order);
    }
    for (const area of reserveMem) {
      const { address, pages } = preservedPages(area);
      for (const folio of naturalOrders(address, pages)) tracker.ensure(folio.address, folio.order);
    }
    tracker.seal(); // whatever was forgotten shall be an error, not a page that is taken in the blackout
    return tracker;
  }

  /** Everything that could be preserved, but for `reserve_mem` and guests' memory. */
  #all(): PageRange[] {
    const inherited = this.#lent.flatMap(({ ranges }) =>
      ranges.map(({ base: address, pages }) => ({ address, pages })),
    );
    return [...inherited, ...this.#taken];
  }

  /** A page of the core's that is never preserved. */
  #takeUnowned(): PhysicalAddress {
    const address = this.#host.pages.allocPages(0, CORE_NODE);
    this.#taken.push({ address, pages: 1 });
    return address;
  }

  #takePages(pages: number, node: number, owner: RangeOwner, index?: number): PhysicalAddress {
    const { pages: allocator, memory } = this.#host;
    const address =
      pages <= MAX_ORDER_NR_PAGES ? allocator.allocExact(pages, node) : allocator.allocContiguous(pages, node);
    this.#taken.push({ address, pages });
    memory.fill(address, pages * PAGE_SIZE, 0);
    this.#owners.push({
      start: address,
      end: address + pages * PAGE_SIZE,
      owner,
      ...(index !== undefined && { index }),
    });
    return address;
  }
}

/** The largest order that a folio in so many pages may have, or the range that they are in. */
function maxOrderIn(pages: number): number {
  return Math.max(MAX_PAGE_ORDER, Math.floor(Math.log2(pages)));
}

/** The largest FDT that the shards of a driver may make. */
function blobBound(driver: RegisteredDriver, registry: Registry): number {
  let bytes = frameBound(driver);
  for (const shard of registry.shards) {
    if (registry.instances[shard.instance]?.driver === driver.index) bytes += shard.maxBytes;
  }
  return bytes;
}

/** The FDT of a driver in mode `subfdt`: a node for each instance, which links to the FDTs of its shards. */
function linksBound(driver: RegisteredDriver, registry: Registry): number {
  let bytes = frameBound(driver);
  const none = subFdtProperties([]);
  for (const name of none.keys()) bytes += name.length + 1;
  for (const item of driver.instances) {
    const { name, shardCount } = registry.instances[item] as InstanceDescription;
    bytes += nodeSize(name.length) + SUB_FDT_LINK_SIZE * shardCount;
    for (const value of none.values()) bytes += propertySize(value.length);
  }
  return bytes;
}

/** An FDT of a driver without anything that shards wrote. */
function frameBound({ compatible }: RegisteredDriver): number {
  const frame = FDT_HEADER_SIZE + FDT_RESERVATION_SIZE + nodeSize(0) + FDT_END_SIZE;
  return frame + propertySize(compatible.length + 1) + 'compatible'.length + 1;
}
