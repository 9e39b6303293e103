import { KhoError } from '../errors.js';
import {
  type Folio,
  hex,
  MAX_FOLIO_ORDER,
  PAGE_SIZE,
  type PageRange,
  type PhysicalAddress,
  type PhysicalMemory,
  type PreservedPages,
  type ShardExtents,
} from '../memblock/index.js';
import type { CallbackScope } from './callback-scope.js';
import type { DmaGate } from './dma-gate.js';
import { OpenDmaWindow } from './dma-window.js';
import type {
  CancelContext,
  DmaWindow,
  FreezeContext,
  InstanceContext,
  MemoryWriter,
  NodeWriter,
  PrepareContext,
  PropertyName,
  SerializeContext,
  ShardAccess,
  UpdateContext,
} from './driver.js';
import type { FrozenMemory } from './frozen-memory.js';
import { propertyId, SinkNodeWriter } from './node-writer.js';
import { covers, FrozenOwnedMemory, OwnedMemory, ownerOf } from './owned-memory.js';
import { Random } from './random.js';
import type { NodeSink } from './sink.js';

/** One shard as its context sees it. `sink` is made when the first node is written. */
export interface ShardResources {
  readonly extents: ShardExtents;
  /** Absent unless the shard declared guest memory. */
  readonly guest?: ShardExtents;
  readonly sink: () => NodeSink;
}

/** What a context is made from; `shards` are those of the instance that the callback may use. */
export interface ContextResources {
  readonly driver: string;
  readonly instance: string;
  readonly index: number;
  readonly options: unknown;
  readonly seed: number;
  readonly memory: PhysicalMemory;
  readonly preserved: PreservedPages;
  readonly shards: readonly ShardResources[];
  /** Which of them the context itself stands for. */
  readonly ownShard: number;
  readonly state: () => unknown;
  readonly prepared: unknown;
  /** Hosted drivers alone: the scope of what is written between callbacks. */
  readonly early?: () => CallbackScope;
  /** Hosted drivers alone: what lets their devices write as long as there is a run. */
  readonly dma?: DmaGate;
  /** In serialize, if late writes are looked for. */
  readonly frozen?: FrozenMemory;
}

/** The context that `create` gets, and the beginning of every other. */
export class DriverInstanceContext implements InstanceContext<unknown> {
  readonly driver: string;
  readonly instance: string;
  readonly index: number;
  readonly options: unknown;
  readonly #seed: number;

  constructor(resources: Pick<ContextResources, 'driver' | 'instance' | 'index' | 'options' | 'seed'>) {
    this.driver = resources.driver;
    this.instance = resources.instance;
    this.index = resources.index;
    this.options = resources.options;
    this.#seed = resources.seed;
  }

  random(stream = ''): Random {
    return new Random(`${this.#seed}/${this.driver}/${this.instance}/${stream}`);
  }
}

/**
 * The context of every callback between create and the jump. TypeScript shows a callback only what its phase allows;
 * at run time the scope refuses the rest, so that plain JavaScript is held to the same rules.
 */
export class DriverContext
  extends DriverInstanceContext
  implements
    PrepareContext<unknown, unknown>,
    UpdateContext<unknown, unknown, unknown>,
    FreezeContext<unknown, unknown, unknown>,
    SerializeContext<unknown, unknown, unknown>,
    CancelContext<unknown, unknown, unknown>
{
  readonly prepared: unknown;
  readonly memory: MemoryWriter;
  readonly #scope: CallbackScope;
  readonly #resources: ContextResources;
  readonly #own: ShardContext;
  #state: { value: unknown } | undefined;

  constructor(scope: CallbackScope, resources: ContextResources) {
    super(resources);
    this.#scope = scope;
    this.#resources = resources;
    this.prepared = resources.prepared;
    const { frozen } = resources;
    this.memory =
      frozen === undefined ? new OwnedMemory(scope, resources) : new FrozenOwnedMemory(scope, resources, frozen);
    this.#own = this.#shard(resources.ownShard);
  }

  /** Made on first use: a callback that does not need the state does not pay for it. */
  get state(): unknown {
    this.#state ??= { value: this.#resources.state() };
    return this.#state.value;
  }

  get root(): NodeWriter {
    return this.#own.root;
  }

  shard(index: number): ShardAccess {
    this.#scope.check('shard');
    return this.#shard(index);
  }

  early(shard = 0): ShardAccess {
    this.#scope.check('early');
    const { early, driver } = this.#resources;
    if (early === undefined) {
      const text = `early: the driver '${driver}' is not hosted, so nothing of it goes on between callbacks; use update()`;
      throw new KhoError('KHO_EPERM', text, { call: 'early' });
    }
    return this.#shard(shard, early());
  }

  dma(pages: PageRange | Folio): DmaWindow {
    this.#scope.check('dma');
    const { dma, driver, memory, shards, ownShard } = this.#resources;
    if (dma === undefined) {
      const text = `dma: the driver '${driver}' is not hosted, so no device of it goes on between callbacks`;
      throw new KhoError('KHO_EPERM', text, { call: 'dma' });
    }
    const range = 'order' in pages ? { address: pages.address, pages: 2 ** pages.order } : pages;
    if (!(range.pages > 0) || ownerOf(shards, ownShard, range.address, range.pages * PAGE_SIZE) === undefined) {
      const text = `dma: the ${range.pages} pages at ${hex(range.address)} are not pages of this instance`;
      throw new KhoError('KHO_EPERM', text, { call: 'dma', address: range.address });
    }
    return new OpenDmaWindow(memory, range, dma);
  }

  node(name: string): NodeWriter {
    return this.#own.node(name);
  }

  name(text: string): PropertyName {
    return this.#own.name(text);
  }

  alloc(pages: number): PageRange {
    return this.#own.alloc(pages);
  }

  allocFolio(order: number): Folio {
    return this.#own.allocFolio(order);
  }

  allocGuest(): Folio {
    return this.#own.allocGuest();
  }

  free(pages: PageRange | Folio): void {
    this.#owner(pages).free(pages);
  }

  preserve(pages: PageRange | Folio): void {
    this.#owner(pages).preserve(pages);
  }

  unpreserve(pages: PageRange | Folio): void {
    this.#owner(pages).unpreserve(pages);
  }

  #shard(index: number, scope = this.#scope): ShardContext {
    const shard = this.#resources.shards[index];
    if (shard === undefined) {
      throw new KhoError('KHO_EINVAL', `there is no shard ${index}; the instance has ${this.#resources.shards.length}`);
    }
    return new ShardContext(scope, shard, this.#resources);
  }

  /** The shard that `pages` belong to: in serialize only the callback's own, elsewhere any of the instance. */
  #owner(pages: PageRange | Folio): ShardContext {
    if (this.#scope.phase !== 'serialize') {
      for (const shard of this.#resources.shards) {
        const { extents, guest } = shard;
        const isOwner = covers(extents, pages.address, 1) || (guest && covers(guest, pages.address, 1));
        if (isOwner) return new ShardContext(this.#scope, shard, this.#resources);
      }
    }
    return this.#own;
  }
}

class ShardContext implements ShardAccess {
  readonly #scope: CallbackScope;
  readonly #shard: ShardResources;
  readonly #preserved: PreservedPages;
  readonly #frozen: FrozenMemory | undefined;

  constructor(scope: CallbackScope, shard: ShardResources, resources: Pick<ContextResources, 'preserved' | 'frozen'>) {
    this.#scope = scope;
    this.#shard = shard;
    this.#preserved = resources.preserved;
    this.#frozen = resources.frozen;
  }

  get root(): NodeWriter {
    this.#scope.check('node');
    const sink = this.#shard.sink();
    return new SinkNodeWriter(this.#scope, sink, sink.root);
  }

  node(name: string): NodeWriter {
    return this.root.node(name);
  }

  name(text: string): PropertyName {
    this.#scope.check('name');
    return propertyId(this.#scope, this.#shard.sink(), text) as PropertyName;
  }

  alloc(pages: number): PageRange {
    this.#scope.check('alloc');
    this.#frozen?.allocated(this.#shard.extents.shard);
    return this.#shard.extents.alloc(pages);
  }

  allocFolio(order: number): Folio {
    this.#scope.check('allocFolio');
    this.#frozen?.allocated(this.#shard.extents.shard);
    return this.#shard.extents.allocFolio(order);
  }

  allocGuest(): Folio {
    this.#scope.check('allocGuest');
    const { guest } = this.#shard;
    if (guest === undefined) {
      throw new KhoError('KHO_EPERM', 'allocGuest: the shard declared no guest memory', { call: 'allocGuest' });
    }
    return guest.allocFolio(guest.order);
  }

  free(pages: PageRange | Folio): void {
    this.#scope.check('free');
    const guest = this.#guestOf(pages, 'free');
    if (guest !== undefined) {
      const { address, order } = guest.folio;
      if (this.#preserved.tracker.test(address, order)) throw preserved(address);
      guest.extents.free(guest.folio);
      return;
    }
    this.#assertOwn(pages, 'free');
    const count = 'order' in pages ? 2 ** pages.order : pages.pages;
    const busy = this.#preserved.objectIn(pages.address, count, MAX_FOLIO_ORDER)?.address;
    if (busy !== undefined) throw preserved(busy);
    const { extents } = this.#shard;
    extents.free('order' in pages ? { address: pages.address, pages: count } : pages);
    this.#frozen?.shard(extents.shard).forget(pages.address, count);
  }

  preserve(pages: PageRange | Folio): void {
    this.#scope.check('preserve');
    if (this.#guestOf(pages, 'preserve') === undefined) this.#assertOwn(pages, 'preserve');
    if ('order' in pages) this.#preserved.preserveFolio(pages.address, pages.order);
    else this.#preserved.preservePages(pages.address, pages.pages);
  }

  unpreserve(pages: PageRange | Folio): void {
    this.#scope.check('unpreserve');
    if (this.#guestOf(pages, 'unpreserve') === undefined) this.#assertOwn(pages, 'unpreserve');
    if ('order' in pages) this.#preserved.unpreserveFolio(pages.address, pages.order);
    else this.#preserved.unpreservePages(pages.address, pages.pages);
  }

  /** The folio, if it is guest memory of this shard. KHO_EINVAL if it is only a part of a folio, or several. */
  #guestOf(pages: PageRange | Folio, call: string): { extents: ShardExtents; folio: Folio } | undefined {
    const extents = this.#shard.guest;
    const { address } = pages;
    if (extents === undefined || !covers(extents, address, 1)) return undefined;
    const { order } = extents;
    if (!('order' in pages) || pages.order !== order || address % (PAGE_SIZE * 2 ** order) !== 0) {
      const text = `${call}: guest memory at ${hex(address)} comes in folios of order ${order}, and goes in no other way`;
      throw new KhoError('KHO_EINVAL', text, { call, address });
    }
    return { extents, folio: pages };
  }

  #assertOwn(pages: PageRange | Folio, call: string): void {
    const count = 'order' in pages ? 2 ** pages.order : pages.pages;
    if (!covers(this.#shard.extents, pages.address, count)) {
      throw new KhoError(
        'KHO_EPERM',
        `${call}: the ${count} pages at ${hex(pages.address)} were not granted to this shard`,
        { call, address: pages.address },
      );
    }
  }
}

function preserved(address: PhysicalAddress): KhoError {
  return new KhoError('KHO_EBUSY', `the pages at ${hex(address)} are preserved; unpreserve them first`, { address });
}
