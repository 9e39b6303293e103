import { KhoError } from '../errors.js';
import type { FdtNode } from '../fdt/index.js';
import type { Folio, PageRange, PhysicalAddress } from '../memblock/index.js';
import type { Random } from './random.js';

declare const propertyName: unique symbol;
/** A property name that was looked up once (`ctx.name('rx-bytes')`); in a hot loop it saves about 20 ns a property. */
export type PropertyName = number & { readonly [propertyName]: true };

/** Memory of a guest: tracked and handed over, but without bytes in this model. */
export interface GuestSpec {
  /** Bytes, a multiple of the size of a folio. */
  readonly size: number;
  /** Each of its folios has 2^order pages: 9 is 2 MiB, 18 is 1 GiB. */
  readonly order: number;
}

/** What one shard of an instance may use at most. The coordinator reserves it before the blackout. */
export interface ShardSpec {
  /** Pages that the shard may allocate, prepare and serialize together; default 0. */
  readonly pages?: number;
  /** Bytes of FDT that the shard's nodes, properties and names may take; default {@link DEFAULT_MAX_BYTES}. */
  readonly maxBytes?: number;
  /** Of the host's `guestMemory`; default none. */
  readonly guest?: GuestSpec;
}

export const DEFAULT_MAX_BYTES = 16 * 1024;

/** Which instance a callback is for. */
export interface InstanceContext<Options> {
  /** The driver's name. */
  readonly driver: string;
  /** The instance's name: its node below the root of the driver's FDT. */
  readonly instance: string;
  /** 0, 1, … in order of registration. */
  readonly index: number;
  readonly options: Options;
  /** A generator that depends only on the run's seed, the instance and `stream`: the same on every thread and run. */
  random(stream?: string): Random;
}

/** Reads of the modelled physical memory. Addresses outside of it are KHO_EFAULT. */
export interface MemoryReader {
  /** A copy of `length` bytes. */
  read(address: PhysicalAddress, length: number): Uint8Array;
  /** A 64-bit little-endian word. */
  readU64(address: PhysicalAddress): bigint;
  /** A 64-bit little-endian word that must be exact as a number (at most 2^53-1), such as an address. */
  readAddress(address: PhysicalAddress): PhysicalAddress;
}

/** Writes too; only pages that the instance allocated may be written, anything else is KHO_EPERM. */
export interface MemoryWriter extends MemoryReader {
  write(address: PhysicalAddress, bytes: Uint8Array): void;
  /** A 64-bit little-endian word. */
  writeU64(address: PhysicalAddress, value: bigint | number): void;
  fill(address: PhysicalAddress, length: number, byte: number): void;
}

/**
 * A node of the state tree while its shard is being written. Values are stored in the architecture's native byte order.
 *
 * Property names are checked on their first use, node names always (KHO_EINVAL says what is wrong and what would be
 * right). A property that the node has already is KHO_EEXIST; more bytes than the shard declared, KHO_ENOSPC.
 */
export interface NodeWriter {
  /** The child `name`: a new one, or the one that is there. */
  node(name: string): NodeWriter;
  /** Whether this shard has written the child `name`. */
  has(name: string): boolean;
  /**
   * Takes the child `name`, and all below it, out again; false if this shard has none. What other shards wrote of the same
   * node stays. Its bytes can be used again, except those of property names. A child that is added again comes last.
   */
  remove(name: string): boolean;
  /** The child `name` without anything in it, in the place that it had; or a new one. */
  replace(name: string): NodeWriter;
  /** A 32-bit value, 0 to 2^32-1; otherwise KHO_EINVAL. */
  u32(name: string | PropertyName, value: number): NodeWriter;
  /** A 64-bit value, 0 to 2^64-1; a number must be a safe integer. */
  u64(name: string | PropertyName, value: bigint | number): NodeWriter;
  /** An array of 32-bit values. */
  u32s(name: string | PropertyName, values: ArrayLike<number>): NodeWriter;
  /** An array of 64-bit values. */
  u64s(name: string | PropertyName, values: ArrayLike<bigint | number>): NodeWriter;
  /** Text, stored as UTF-8 with a NUL; it may hold none itself. */
  string(name: string | PropertyName, text: string): NodeWriter;
  /** Any bytes; they are copied. */
  bytes(name: string | PropertyName, value: Uint8Array): NodeWriter;
  /** A property without a value: its presence is the information. */
  flag(name: string | PropertyName): NodeWriter;
}

/** What a shard may write and allocate. */
export interface ShardAccess {
  /** The instance's own node. */
  readonly root: NodeWriter;
  /** A child of the instance's node; short for `root.node(name)`. */
  node(name: string): NodeWriter;
  /** Looks a property name up once, for hot loops. */
  name(text: string): PropertyName;
  /** Contiguous pages from the shard's extents; their content is whatever was there. KHO_ENOMEM when none fit. */
  alloc(pages: number): PageRange;
  /** 2^order naturally aligned pages from the shard's extents. */
  allocFolio(order: number): Folio;
  /**
   * A folio of the guest memory that the shard declared, of the order that it declared. It is handed over as any other,
   * but nothing of it can be read or written: KHO_EFAULT. KHO_ENOMEM when none is left, KHO_EPERM if none was declared.
   */
  allocGuest(): Folio;
  /** Gives pages back; they must have been allocated as one and must not be preserved. */
  free(pages: PageRange | Folio): void;
  /**
   * Marks pages of this shard as handed over. A range is split to natural orders, a folio is one object. Of guest memory
   * only folios as they were allocated (else KHO_EINVAL): the tracker has no room for smaller ones.
   */
  preserve(pages: PageRange | Folio): void;
  /** Takes the mark off again. */
  unpreserve(pages: PageRange | Folio): void;
}

/**
 * Pages of an instance as its device sees them. Unlike `ctx.memory` it writes at any time, from the driver's own thread: as
 * a device does that goes on with DMA, also after freeze. What it writes then is a late write, which the jump or the
 * successor finds.
 */
export interface DmaWindow {
  /** Bytes of the window. */
  readonly size: number;
  /** KHO_EINVAL for bytes outside of the window; KHO_EPERM once the run is over: rolled back, or its memory given back. */
  write(offset: number, bytes: Uint8Array): void;
  /** The same errors. */
  fill(offset: number, length: number, byte: number): void;
}

export interface PrepareContext<Options, State> extends InstanceContext<Options>, ShardAccess {
  readonly state: State;
  readonly memory: MemoryWriter;
  /** Another of the instance's shards; the context itself is shard 0. */
  shard(index: number): ShardAccess;
  /**
   * Hosted drivers alone (else KHO_EPERM): the same access to a shard, which stays open after the callback has returned.
   * Timers and messages of the driver may add, replace and remove nodes until the instance is frozen, so that the blackout
   * sees only what changed last. From then on a call is KHO_EBUSY, and after the run KHO_EPERM; {@link Driver.unfreeze}
   * opens it again.
   */
  early(shard?: number): ShardAccess;
  /**
   * Hosted drivers alone (else KHO_EPERM): lets the device write to pages of the instance, in a row, at any time from now
   * on. Its writes are the driver's to order; nothing stops them in freeze but the driver.
   */
  dma(pages: PageRange | Folio): DmaWindow;
}

/** Brownout again: {@link Driver.update}. */
export interface UpdateContext<Options, State, Prepared> extends PrepareContext<Options, State> {
  readonly prepared: Prepared;
}

export interface FreezeContext<Options, State, Prepared> extends InstanceContext<Options> {
  readonly state: State;
  /** What `prepare` returned, frozen: it is the same on every thread. */
  readonly prepared: Prepared;
  readonly memory: MemoryWriter;
}

/** As in freeze: the device may write its state to memory, nothing is allocated any more. */
export type ShutdownContext<Options, State, Prepared> = FreezeContext<Options, State, Prepared>;

/** The freeze is undone. */
export interface UnfreezeContext<Options, State, Prepared> extends InstanceContext<Options> {
  readonly state: State;
  readonly prepared: Prepared;
  readonly memory: MemoryReader;
}

export interface SerializeContext<Options, State, Prepared> extends InstanceContext<Options>, ShardAccess {
  readonly state: State;
  readonly prepared: Prepared;
  readonly memory: MemoryWriter;
}

export interface CancelContext<Options, State, Prepared> extends InstanceContext<Options> {
  readonly state: State;
  /** What `prepare` returned; undefined when it failed or never ran. */
  readonly prepared: Prepared | undefined;
  readonly memory: MemoryReader;
  free(pages: PageRange | Folio): void;
  unpreserve(pages: PageRange | Folio): void;
}

/** Bytes in memory that the root FDT points to under a driver's name: `preserved-data` and `blob-size`. */
export interface SubBlob {
  /** First byte, a multiple of the page size. */
  readonly address: PhysicalAddress;
  /** Bytes, at least 1. */
  readonly size: number;
}

/** What `prepare` of a driver with a raw blob returns, beside whatever else the driver needs later. */
export interface RawPrepared {
  readonly blob: SubBlob;
}

/** The successor's side: no options and no seed, only what was handed over. */
export interface RestoreContext {
  readonly driver: string;
  readonly instance: string;
  /**
   * The driver's sub-blob, or in a profile of a patch series the one FDT. Its own pages are given back by the core; the
   * driver settles everything else.
   */
  readonly blob: SubBlob;
  /** The instance's node in the driver's FDT, or in the one FDT. KHO_EPERM for a driver with a raw blob. */
  readonly node: FdtNode;
  readonly memory: MemoryReader;
  /** Takes over preserved memory. KHO_ENOENT unless exactly this was preserved, KHO_EBUSY if it was claimed before. */
  claim(pages: PageRange | Folio): void;
  /**
   * Takes over the object that begins at `address` and tells its order, as kho_restore_folio() does: for formats that do
   * not say it. KHO_ENOENT unless one begins there, KHO_EBUSY if it was claimed before.
   */
  claimFolio(address: PhysicalAddress): Folio;
  /** Gives preserved memory back to the page allocator; the same errors. */
  discard(pages: PageRange | Folio): void;
}

export interface FinishContext<State> {
  readonly driver: string;
  readonly instance: string;
  readonly state: State;
}

/** Turns the options of a scenario into the driver's own, or throws; any Zod schema is one. */
export interface OptionsParser<Options> {
  parse(raw: unknown): Options;
}

/**
 * A driver: what is saved, and how it comes back.
 *
 * Callbacks run per instance, `serialize` per shard. A stateless driver's callbacks run on any worker thread, and its
 * `create` must give the same state each time; a hosted driver lives on one thread, where its state is created once
 * and may change in the background until `freeze`.
 *
 * Module globals are not state: another callback may see another thread's copy of them.
 */
export interface Driver<Options = unknown, State = unknown, Prepared = unknown> {
  /** Names the driver's FDT under `kho/out/sub_fdts`; at most 31 characters, no '@'. */
  readonly name: string;
  /** The format of the state. The successor looks drivers up by it. */
  readonly compatible: string;
  /** True if the state lives: see above. */
  readonly hosted?: boolean;
  /**
   * `fdt` (the default): the nodes that shards write become an FDT. `raw`: bytes of the driver's own format in pages that
   * it allocates, preserves and fills itself, as every kho_add_subtree() may have since kho-v3. Such a driver has one
   * instance, named as the driver; its `prepare` returns a {@link RawPrepared}; calls on nodes are KHO_EPERM. The
   * successor finds it by the driver's name, for raw bytes have no `compatible` in a known place.
   */
  readonly blob?: 'fdt' | 'raw';
  /** Checks and completes the options of an instance; without it they are passed as they are. */
  readonly options?: OptionsParser<Options>;
  /** The name of the instance's node; default is the driver's name and the index. */
  instanceName?(options: Options, index: number): string;
  /** What each shard may use. Pure: it depends on the options alone. Default: one shard with no pages. */
  shards?(options: Options): readonly ShardSpec[];
  /** The device's state before the handover. */
  create(ctx: InstanceContext<Options>): State;
  /** Brownout, the machines still run: allocate, preserve, write memory, write early nodes. Its result is `prepared`. */
  prepare?(ctx: PrepareContext<Options, State>): Prepared | Promise<Prepared>;
  /**
   * Brownout again, on Coordinator.update(): bring the early nodes and pages up to date, so that serialize has less to do.
   * As often as the embedder asks, between prepare and freeze.
   */
  update?(ctx: UpdateContext<Options, State, Prepared>): void | Promise<void>;
  /**
   * The blackout begins with the shutdown of devices: quiet this one. After the drivers that come after it (`after`); its
   * own freeze and serialize follow at once, while others still shut down. Not called where a handover is activated.
   */
  shutdown?(ctx: ShutdownContext<Options, State, Prepared>): void | Promise<void>;
  /** The blackout begins: stop changing state. Memory may be written, nothing allocated. */
  freeze?(ctx: FreezeContext<Options, State, Prepared>): void | Promise<void>;
  /** Synchronous, on any worker: nodes, properties, memory, pages of this shard. */
  serialize(ctx: SerializeContext<Options, State, Prepared>, shard: number): void;
  /** The freeze is undone: go on changing state. On rolling back, before cancel; or because it was frozen early in vain. */
  unfreeze?(ctx: UnfreezeContext<Options, State, Prepared>): void | Promise<void>;
  /** Roll back: the machines go on running here. A hosted driver's state lives on, and prepare comes again next time. */
  cancel?(ctx: CancelContext<Options, State, Prepared>): void | Promise<void>;
  /** In the successor: rebuild the state, claim or discard the memory. */
  restore(ctx: RestoreContext): State | Promise<State>;
  /** What of the state must survive, as plain data: its digest is compared on both sides. */
  snapshot(state: State): unknown;
  /**
   * SHA-256 (64 hexadecimal digits) of contents that user space of the next kernel can name, by that name. They stand in
   * run.json; `khorus kexec` compares them with what a guest found.
   */
  digests?(state: State): Readonly<Record<string, string>>;
  /** In the successor, after every driver restored. */
  finish?(ctx: FinishContext<State>): void | Promise<void>;
}

/**
 * Declares a driver; the default export of a driver's module.
 *
 * @example
 * ```ts
 * import { defineDriver } from 'khorus/driver';
 *
 * export default defineDriver({
 *   name: 'clock',
 *   compatible: 'clock-v1',
 *   create: (ctx) => ({ ticks: ctx.random().u64() }),
 *   serialize: (ctx) => void ctx.root.u64('ticks', ctx.state.ticks),
 *   restore: (ctx) => ({ ticks: ctx.node.property('ticks')?.u64('little') ?? 0n }),
 *   snapshot: (state) => state,
 * });
 * ```
 *
 * KHO_EINVAL if it is not a driver: names what is missing.
 */
export function defineDriver<Options = unknown, State = unknown, Prepared = void>(
  driver: Driver<Options, State, Prepared>,
): Driver<Options, State, Prepared> {
  assertDriver(driver, 'defineDriver');
  return driver;
}

const OPTIONAL_CALLBACKS = [
  ...['instanceName', 'shards', 'prepare', 'update', 'shutdown', 'freeze', 'unfreeze', 'cancel', 'digests', 'finish'],
];

/** KHO_EINVAL unless `value` has the shape of a driver; `origin` says where it came from. */
export function assertDriver(value: unknown, origin: string): asserts value is Driver {
  const bad = (what: string): never => {
    throw new KhoError('KHO_EINVAL', `${origin}: ${what}; see the driver API in docs/drivers.md`);
  };
  if (typeof value !== 'object' || value === null) {
    bad(
      `expected a driver made by defineDriver({ name, compatible, … }), found ${value === null ? 'null' : typeof value}`,
    );
  }
  const driver = value as Record<string, unknown>;
  for (const field of ['name', 'compatible']) {
    const text = driver[field];
    if (typeof text !== 'string' || text === '') bad(`the driver's '${field}' must be a non-empty string`);
  }
  const name = driver.name as string;
  if (!/^[0-9A-Za-z,._+-]{1,31}$/.test(name)) {
    bad(`the driver name '${name}' must be 1 to 31 of the characters A-Z a-z 0-9 , . _ + -`);
  }
  for (const required of ['create', 'serialize', 'restore', 'snapshot']) {
    if (typeof driver[required] !== 'function') bad(`driver '${name}' has no ${required}() callback`);
  }
  for (const optional of OPTIONAL_CALLBACKS) {
    const callback = driver[optional];
    if (callback !== undefined && typeof callback !== 'function')
      bad(`driver '${name}': ${optional} is not a function`);
  }
  if (driver.blob !== undefined && driver.blob !== 'fdt' && driver.blob !== 'raw') {
    bad(`driver '${name}': blob is '${String(driver.blob)}', expected 'fdt' or 'raw'`);
  }
  if (driver.blob === 'raw' && typeof driver.prepare !== 'function') {
    bad(`driver '${name}' has a raw blob but no prepare() callback that returns { blob: { address, size } }`);
  }
}
