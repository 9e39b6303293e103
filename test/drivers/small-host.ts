import type { Driver, Folio, FdtNode as Node, PageRange, RawPrepared, SubBlob } from '#dist/driver.js';
import { after, type PhysicalAddress, physicalAddress, Random } from '#dist/driver.js';
import { FdtReader, FdtWriter } from '#dist/fdt/index.js';
import { ExtentTable, naturalOrders, PAGE_SIZE } from '#dist/memblock/index.js';
import { CallbackScope } from '#dist/workers/callback-scope.js';
import type { PropertyName } from '#dist/workers/driver.js';
import { SinkNodeWriter } from '#dist/workers/node-writer.js';
import { covers } from '#dist/workers/owned-memory.js';
import { PropertyNames } from '#dist/workers/property-names.js';
import { stateDigest } from '#dist/workers/state-digest.js';
import { type ShardTreeNode, TreeSink } from '#dist/workers/tree-sink.js';

/** Above 4 GiB, so that an address that loses its upper half is noticed; 4 MiB aligned. */
const MEMORY_BASE = 0x1_4000_0000;

/** Guest memory has no bytes. */
const GUEST_BASE = 2 ** 40;

/** A few MiB of memory at {@link MEMORY_BASE}. Reading or writing anywhere else throws. */
export class SmallMemory {
  readonly bytes: Uint8Array;
  readonly base = physicalAddress(MEMORY_BASE);

  /** Filled with `byte`: what drivers allocate has whatever content was there. */
  constructor(pages: number, byte = 0xa5) {
    this.bytes = new Uint8Array(pages * PAGE_SIZE).fill(byte);
  }

  read(address: PhysicalAddress, length: number): Uint8Array {
    return this.#view(address, length).slice();
  }
  readU64(address: PhysicalAddress): bigint {
    return this.#data(address).getBigUint64(0, true);
  }
  readAddress(address: PhysicalAddress): PhysicalAddress {
    const value = this.readU64(address);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`${value} is no address`);
    return Number(value) as PhysicalAddress;
  }
  write(address: PhysicalAddress, bytes: Uint8Array): void {
    this.#view(address, bytes.length).set(bytes);
  }
  writeU64(address: PhysicalAddress, value: bigint | number): void {
    this.#data(address).setBigUint64(0, BigInt(value), true);
  }
  fill(address: PhysicalAddress, length: number, byte: number): void {
    this.#view(address, length).fill(byte);
  }

  #view(address: PhysicalAddress, length: number): Uint8Array {
    const offset = address - this.base;
    if (offset < 0 || offset + length > this.bytes.length) throw new Error(`${address} is outside of the memory`);
    return this.bytes.subarray(offset, offset + length);
  }
  #data(address: PhysicalAddress): DataView {
    const view = this.#view(address, 8);
    return new DataView(view.buffer, view.byteOffset, 8);
  }
}

/** One instance of a driver on one thread: enough of a host to take it through a handover, or to cancel one. */
export class SmallHost {
  readonly driver: Driver;
  readonly memory: SmallMemory;
  readonly shards: readonly { readonly pages: number; readonly maxBytes: number; readonly guestPages: number }[];
  readonly sinks: readonly TreeSink[];
  /** `address/order` of each object that is preserved. */
  readonly preserved = new Set<string>();
  readonly instance: string;
  readonly #options: unknown;
  readonly #extents: ExtentTable;
  readonly #guests: ExtentTable;
  readonly #seed: number;
  readonly #index: number;
  readonly #live: unknown;
  #prepared: unknown;

  constructor(driver: Driver, options: unknown, { seed = 1, index = 0, memoryFill = 0xa5 } = {}) {
    this.driver = driver;
    this.#options = driver.options?.parse(options);
    this.#seed = seed;
    this.#index = index;
    const named = driver.instanceName?.(this.#options, index) ?? `${driver.name}${index}`;
    this.instance = driver.blob === 'raw' ? driver.name : named;
    this.shards = (driver.shards?.(this.#options) ?? [{}]).map(({ pages = 0, maxBytes = 16384, guest }) => ({
      pages,
      maxBytes,
      guestPages: (guest?.size ?? 0) / PAGE_SIZE,
    }));
    // Each shard's pages begin at a multiple of 4 MiB, as the buddy allocator's largest blocks do.
    let end = 0;
    const bases = this.shards.map(({ pages }) => {
      const base = end;
      end += Math.ceil(pages / 1024) * 1024;
      return base;
    });
    this.memory = new SmallMemory(end, memoryFill);
    this.#extents = ExtentTable.create(
      this.shards.map(({ pages }, shard) => ({
        pages,
        ranges: pages === 0 ? [] : [{ base: after(this.memory.base, bases[shard] * PAGE_SIZE), pages }],
      })),
    );
    let guestEnd = GUEST_BASE;
    this.#guests = ExtentTable.create(
      (driver.shards?.(this.#options) ?? [{}]).map(({ guest: { size, order } = { size: 0, order: 0 } }) => {
        const base = physicalAddress(guestEnd);
        guestEnd += size;
        const pages = size / PAGE_SIZE;
        return { pages, order, ranges: pages === 0 ? [] : [{ base, pages }] };
      }),
    );
    const names = new PropertyNames();
    this.sinks = this.shards.map(({ maxBytes }) => new TreeSink(names, this.instance, maxBytes));
    if (driver.hosted) this.#live = this.#create();
  }

  /** Pages that are allocated now, of guest memory too. */
  get allocatedPages(): number {
    return this.shards.reduce((sum, _, shard) => {
      const [extents, guest] = [this.#extents.extent(shard), this.#guests.extent(shard)];
      return sum + extents.declaredPages - extents.freePages + guest.declaredPages - guest.freePages;
    }, 0);
  }

  get state(): unknown {
    return this.#live ?? this.#create();
  }

  snapshotDigest(): string {
    return stateDigest(this.driver.snapshot(this.state));
  }

  async prepare(): Promise<void> {
    this.#prepared = structuredClone(await this.driver.prepare?.(this.#context(0)));
  }

  async freeze(): Promise<void> {
    await this.driver.freeze?.(this.#context(0));
  }

  /** In the order given; whichever it is, the result must be the same. */
  serialize(order: Iterable<number> = this.shards.keys()): void {
    for (const shard of order) this.driver.serialize(this.#context(shard), shard);
  }

  async cancel(): Promise<void> {
    await this.driver.cancel?.(this.#context(0));
    this.#prepared = undefined;
  }

  /** The whole handover; then the blob. */
  async handOver(): Promise<Uint8Array> {
    await this.prepare();
    await this.freeze();
    this.serialize();
    return this.blob();
  }

  /** The driver's blob: its own, or the FDT with this one instance. */
  blob(): Uint8Array {
    if (this.driver.blob !== 'raw') return this.#fdt();
    const { address, size } = this.#raw;
    return this.memory.read(address, size);
  }

  /** Where a raw blob lies. */
  get #raw(): SubBlob {
    return (this.#prepared as RawPrepared).blob;
  }

  /** The content of everything that is preserved, by `address/order`; empty for guest memory. */
  preservedContent(): Map<string, Buffer> {
    const content = (key: string) => {
      const [address, order] = key.split('/');
      if (Number.parseInt(address, 16) >= GUEST_BASE) return Buffer.alloc(0);
      return Buffer.from(
        this.memory.read(physicalAddress(Number.parseInt(address, 16)), PAGE_SIZE * 2 ** Number(order)),
      );
    };
    return new Map([...this.preserved].map((key) => [key, content(key)]));
  }

  #fdt(): Uint8Array {
    const writer = new FdtWriter();
    writer.beginNode('');
    writer.beginNode(this.instance);
    for (const { tree } of this.sinks) for (const [name, value] of tree.properties) writer.property(name, value);
    for (const { tree } of this.sinks) for (const child of tree.children.values()) writeNode(writer, child);
    writer.endNode();
    writer.endNode();
    return writer.finish();
  }

  /**
   * A stranger that has the blob and the memory alone. Claiming anything but what was preserved throws. The pages of a raw
   * blob are the core's to settle.
   */
  async restore(
    blob: Uint8Array,
  ): Promise<{ digest: string; digests: Readonly<Record<string, string>>; unclaimed: ReadonlySet<string> }> {
    const unclaimed = new Set(this.preserved);
    const raw = this.driver.blob === 'raw';
    const { instance } = this;
    if (raw) unclaimed.delete(`${this.#raw.address.toString(16)}/0`);
    const claim = (pages: PageRange | Folio) => {
      for (const key of keysOf(pages)) if (!unclaimed.delete(key)) throw new Error(`${key} is not there to claim`);
    };
    const { name: driver } = this.driver;
    const state = await this.driver.restore({
      driver,
      instance,
      blob: raw ? this.#raw : { address: physicalAddress(0), size: blob.length },
      get node(): Node {
        if (raw) throw new Error('a raw blob has no nodes');
        return FdtReader.open(blob, { strict: true }).root.get(instance);
      },
      memory: this.memory,
      claim,
      claimFolio: (address) => {
        const key = [...unclaimed].find((candidate) => candidate.startsWith(`${address.toString(16)}/`));
        if (key === undefined) throw new Error(`nothing begins at ${address}`);
        unclaimed.delete(key);
        return { address, order: Number(key.split('/')[1]) };
      },
      discard: claim,
    });
    const digests = this.driver.digests?.(state) ?? {};
    return { digest: stateDigest(this.driver.snapshot(state)), digests, unclaimed };
  }

  #create(): unknown {
    return this.driver.create(this.#identity());
  }

  #identity() {
    const { instance, driver } = this;
    return {
      driver: driver.name,
      instance,
      index: this.#index,
      options: this.#options,
      random: (stream = '') => new Random(`${this.#seed}/${driver.name}/${instance}/${stream}`),
    };
  }

  #access(shard: number) {
    const sink = this.sinks[shard];
    const extents = this.#extents.extent(shard);
    const root = new SinkNodeWriter(new CallbackScope('serialize'), sink, sink.root);
    return {
      root,
      node: (name: string) => root.node(name),
      name: (text: string) => sink.nameId(text) as PropertyName,
      alloc: (pages: number) => extents.alloc(pages),
      allocFolio: (order: number) => extents.allocFolio(order),
      allocGuest: () => {
        const guest = this.#guests.extent(shard);
        return guest.allocFolio(guest.order);
      },
      preserve: (pages: PageRange | Folio) => {
        for (const key of keysOf(pages)) {
          if (this.preserved.has(key)) throw new Error(`${key} is preserved already`);
          this.preserved.add(key);
        }
      },
      ...this.#giveBack(),
    };
  }

  #giveBack() {
    return {
      unpreserve: (pages: PageRange | Folio) => {
        for (const key of keysOf(pages)) if (!this.preserved.delete(key)) throw new Error(`${key} is not preserved`);
      },
      free: (pages: PageRange | Folio) => {
        for (const key of keysOf(pages)) if (this.preserved.has(key)) throw new Error(`${key} is preserved`);
        for (const shard of this.shards.keys()) {
          const guest = this.#guests.extent(shard);
          if (covers(guest, pages.address, 1)) return guest.free(pages);
        }
        // A shard's pages begin at 4 MiB boundaries, so the address says whose they are.
        let end = this.memory.base as number;
        for (const [shard, { pages: count }] of this.shards.entries()) {
          end += Math.ceil(count / 1024) * 1024 * PAGE_SIZE;
          if (pages.address < end) return this.#extents.extent(shard).free(pages);
        }
        throw new Error(`${pages.address} belongs to no shard`);
      },
    };
  }

  #context(shard: number) {
    return {
      ...this.#identity(),
      ...this.#access(shard),
      shard: (index: number) => this.#access(index),
      early: (index = 0) => this.#access(index),
      dma: () => {
        throw new Error('no driver here has a device that writes by itself');
      },
      state: this.state,
      prepared: this.#prepared,
      memory: this.memory,
    };
  }
}

function writeNode(writer: FdtWriter, node: ShardTreeNode): void {
  writer.beginNode(node.name);
  for (const [name, value] of node.properties) writer.property(name, value);
  for (const child of node.children.values()) writeNode(writer, child);
  writer.endNode();
}

function keysOf(pages: PageRange | Folio): string[] {
  const objects = 'order' in pages ? [pages] : [...naturalOrders(pages.address, pages.pages)];
  return objects.map(({ address, order }) => `${address.toString(16)}/${order}`);
}
