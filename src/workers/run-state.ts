import { threadId } from 'node:worker_threads';
import { KhoError, type SerializedKhoError } from '../errors.js';
import { type FdtFrame, type RenderedFrame, Stage, shardFrame } from '../hashstage/index.js';
import {
  ExtentTable,
  makeInPlace,
  PAGE_SIZE,
  type PhysicalAddress,
  PreservedPages,
  physicalAddress,
  RadixTree,
  type ShardExtents,
  SharedPhysicalMemory,
} from '../memblock/index.js';
import { type CallbackPhase, CallbackScope } from './callback-scope.js';
import { DmaGate } from './dma-gate.js';
import { DEFAULT_MAX_BYTES, type Driver, type RawPrepared, type SubBlob } from './driver.js';
import { DriverContext, DriverInstanceContext, type ShardResources } from './driver-context.js';
import { EarlyBytes } from './early-bytes.js';
import { FrozenMemory, type LateWrite } from './frozen-memory.js';
import type { LiveStates } from './live-states.js';
import { loadDriver } from './load-driver.js';
import { PropertyNames } from './property-names.js';
import { renderStructBlocks } from './render-struct-blocks.js';
import { replayShard } from './replay-shard.js';
import type { InstanceDescription, RunDescription, ShardDescription } from './run-description.js';
import { ShardFdts } from './shard-fdts.js';
import type { NodeSink } from './sink.js';
import { StageSink } from './stage-sink.js';
import { stateDigest } from './state-digest.js';
import { StructBlockSink } from './struct-block-sink.js';
import { StructBlocks } from './struct-blocks.js';
import { type CallbackTask, isOfShards, type RenderTask, type SnapshotDigests, type TaskAnswer } from './task.js';
import { WorkList } from './work-list.js';

/** A run as one thread sees it: its modules, its views of the shared memory, the live states that it hosts. */
export class RunState {
  readonly description: RunDescription;
  readonly #drivers: readonly Driver[];
  readonly #memory: SharedPhysicalMemory;
  readonly #extents: ExtentTable;
  readonly #guestExtents: ExtentTable;
  /** What each shard may allocate from, once it was asked for: every context of an instance wants all of them. */
  readonly #shardExtents = new Map<number, ShardExtents>();
  readonly #shardGuests = new Map<number, ShardExtents>();
  readonly #preserved: PreservedPages;
  readonly #stage: Stage;
  /** Mode `subfdt` alone. */
  readonly #shardFdts: ShardFdts | undefined;
  /** Ids of the property names that this thread has checked. */
  readonly #nameIds = new Map<string, number>();
  readonly #options = new Map<number, unknown>();
  /** What each instance's `prepare` returned, once that is known. */
  #prepared: ReadonlyMap<number, unknown> = new Map();
  /** The states that live on this thread. */
  readonly #live: LiveStates;
  /** By instance of a hosted driver: the scope of what it writes between callbacks, until it is frozen. */
  readonly #earlyScopes = new Map<number, CallbackScope>();
  readonly #earlyBytes: EarlyBytes;
  readonly #dma: DmaGate;
  /** Absent if nobody looks for late writes. */
  readonly #frozen: FrozenMemory | undefined;
  /** Modes without a stage: what the shards write, and where. */
  readonly #sinks = new Map<number, StructBlockSink>();
  /** Writers on the stage for the shards of hosted drivers: callbacks, and what goes on between them, write by turns. */
  readonly #hostedSinks = new Map<number, StageSink>();
  readonly #blocks: StructBlocks;
  /** What the serialize callback that is running writes to; it is synchronous. */
  #serializing: NodeSink | undefined;

  private constructor(description: RunDescription, drivers: readonly Driver[], live: LiveStates) {
    this.description = description;
    this.#live = live;
    live.enter(description.generation);
    this.#earlyBytes = EarlyBytes.attach(description.early);
    this.#drivers = drivers;
    this.#memory = SharedPhysicalMemory.attach(description.memory);
    this.#extents = ExtentTable.attach(description.extents);
    this.#guestExtents = ExtentTable.attach(description.guestExtents);
    // Nothing of an extent, or of a room for a blob, is scratch.
    this.#preserved = new PreservedPages(RadixTree.attach(this.#memory, description.tracker), this.#memory);
    this.#stage = Stage.attach(description.stage);
    this.#dma = DmaGate.attach(description.dma);
    const { mode, shards, shardFdts, lateWrites } = description;
    if (lateWrites !== undefined) {
      const extentsOf = (shard: number): ShardExtents => this.#extentsOf(shard);
      const views = { memory: this.#memory, tracker: this.#preserved.tracker, extentsOf };
      this.#frozen = new FrozenMemory(description, lateWrites, views);
    }
    // Early nodes are in the stage in mode `subfdt`: a name has one id, whichever of the two a shard writes to.
    const names = new PropertyNames(mode === 'subfdt' ? this.#stage : undefined);
    const declared = shards.reduce((sum, { maxBytes }) => sum + maxBytes, 0);
    this.#blocks = new StructBlocks(mode === 'sequential' ? declared : undefined, names);
    if (shardFdts) this.#shardFdts = new ShardFdts(description, shardFdts, this.#memory, this.#preserved);
  }

  /** `live` are the states on this thread. */
  static async attach(description: RunDescription, live: LiveStates): Promise<RunState> {
    const drivers = await Promise.all(description.drivers.map((driver) => loadDriver(driver.module)));
    return new RunState(description, drivers, live);
  }

  /** What the instances' `prepare` returned. It crosses phases and threads, so it must not change: it is frozen. */
  setPrepared(prepared: ReadonlyMap<number, unknown>): void {
    for (const value of prepared.values()) freezeDeep(value);
    this.#prepared = prepared;
  }

  /** Runs the callbacks of a task, one after another, until none is left or one fails. */
  async run(task: CallbackTask): Promise<TaskAnswer> {
    const list = WorkList.attach(task.list);
    list.enter(task.slot, threadId);
    const positions: number[] = [];
    const spans: number[] = [];
    const failures: { position: number; error: SerializedKhoError }[] = [];
    const values: unknown[] = [];
    for (let position = list.take(task.slot); position !== undefined; position = list.take(task.slot)) {
      const item = task.items[position] as number;
      positions.push(position);
      spans.push(this.#now());
      try {
        const value = await this.#callback(task.phase, item);
        if (value !== undefined) values[positions.length - 1] = value;
        // A thread may be ended in the middle of what follows: the driver has done its part.
        list.finish(position);
        this.#afterCallback(task.phase, item);
      } catch (thrown) {
        const error = KhoError.from(thrown).with(this.#concerning(task.phase, item)).toJSON();
        failures.push({ position, error });
        if (!task.collectFailures) list.close();
      }
      spans.push(this.#now());
    }
    return {
      threadId,
      attached: true,
      positions: Int32Array.from(positions),
      spans: Float64Array.from(spans),
      values,
      failures,
    };
  }

  /** Mode `sequential`: renders FDTs where they are to lie. */
  render({ jobs }: RenderTask): TaskAnswer {
    const spans: number[] = [];
    const values: RenderedFrame[] = [];
    const failures: { position: number; error: SerializedKhoError }[] = [];
    for (const [position, { frame, address, room }] of jobs.entries()) {
      spans.push(this.#now());
      try {
        values.push(this.#renderInto(frame, physicalAddress(address), room));
      } catch (thrown) {
        failures.push({ position, error: KhoError.from(thrown).toJSON() });
      }
      spans.push(this.#now());
      if (failures.length > 0) break;
    }
    return { threadId, attached: true, spans: Float64Array.from(spans), values, failures };
  }

  #renderInto(frame: FdtFrame, address: PhysicalAddress, room: number): RenderedFrame {
    return makeInPlace(this.#memory, address, room, (target) =>
      renderStructBlocks(this.#blocks, frame, (shard) => this.#sinks.get(shard), target),
    );
  }

  #now(): number {
    return Number(process.hrtime.bigint() - this.description.epoch) / 1e6;
  }

  #callback(phase: CallbackTask['phase'], item: number): unknown {
    this.#checkAlive(phase, item);
    switch (phase) {
      case 'create':
        this.#createLive(item);
        return undefined;
      case 'snapshot':
        return this.#snapshot(item);
      case 'serialize':
        return this.#serialize(item);
      case 'check':
        return this.#check(item);
      default:
        return this.#lifecycle(phase, item);
    }
  }

  /** What the core does when a callback has succeeded. */
  #afterCallback(phase: CallbackTask['phase'], item: number): void {
    if (phase === 'freeze') this.#frozen?.freeze(this.#instance(item));
    if (phase === 'serialize') this.#frozen?.serialized(item);
  }

  #snapshot(item: number): SnapshotDigests {
    const instance = this.#instance(item);
    const driver = this.#driver(instance);
    const state = this.#state(item, instance);
    const contents = driver.digests?.(state);
    assertCloneable(contents, 'digests');
    return { state: stateDigest(driver.snapshot(state)), ...(contents && { contents }) };
  }

  /** The state of a hosted driver that was rolled back before lives on. */
  #createLive(item: number): void {
    const key = this.#liveKey(item);
    if (!this.#live.has(key)) this.#live.set(key, this.#create(this.#instance(item)));
  }

  #liveKey(item: number): string {
    const instance = this.#instance(item);
    return `${this.#driver(instance).name}/${instance.name}`;
  }

  /** What a hosted driver writes between callbacks ends when it is frozen, and with the run. */
  #earlyWrites(phase: CallbackPhase, item: number): void {
    const scope = this.#earlyScopes.get(item);
    if (phase === 'freeze') {
      const { name } = this.#instance(item);
      scope?.close((call) => new KhoError('KHO_EBUSY', `${call}: ${name} is frozen`));
    }
    if (phase === 'unfreeze') scope?.reopen();
    if (phase === 'cancel') scope?.close((call) => new KhoError('KHO_EPERM', `${call} after the run was cancelled`));
  }

  async #lifecycle(phase: LifecyclePhase, item: number): Promise<unknown> {
    const instance = this.#instance(item);
    this.#earlyWrites(phase, item);
    if (phase === 'unfreeze') this.#frozen?.forget(instance);
    const callback = this.#driver(instance)[phase];
    if (callback === undefined) return undefined;
    const scope = new CallbackScope(phase, this.#nameIds);
    try {
      const context = this.#context(scope, item, instance, 0);
      const result = await callback.call(this.#driver(instance), context);
      if (phase === 'prepare') {
        assertCloneable(result, 'prepare');
        if (this.#driver(instance).blob === 'raw') assertRawPrepared(result);
      }
      return phase === 'prepare' ? result : undefined; // nobody asked for the others', which might not even be cloneable
    } finally {
      scope.close();
    }
  }

  #check(shard: number): LateWrite[] | undefined {
    return this.#frozen?.check(shard);
  }

  #serialize(shard: number): void {
    this.#callSerialize(shard);
    const { blob, compatible } = this.#driver(this.#instance(this.#shard(shard).instance));
    if (this.#shardFdts === undefined || blob === 'raw') return;
    const frame = shardFrame('', compatible, [shard]);
    this.#shardFdts.finish(shard, ({ address, size }) => this.#renderInto(frame, address, size));
    this.#sinks.delete(shard);
    this.#blocks.clear();
  }

  #callSerialize(shard: number): void {
    const { instance: item } = this.#shard(shard);
    const instance = this.#instance(item);
    const index = shard - instance.firstShard;
    const scope = new CallbackScope('serialize', this.#nameIds);
    const isRaw = this.#driver(instance).blob === 'raw';
    const early = isRaw ? 0 : this.#bytesOf(shard);
    try {
      const context = this.#context(scope, item, instance, index);
      // Every shard has its instance's node, even if the callback writes nothing.
      if (!isRaw) void context.root;
      const sink = this.#serializing;
      const takenOut = sink?.takenOut ?? 0;
      const result: unknown = this.#driver(instance).serialize(context, index);
      if (isThenable(result)) {
        result.then(undefined, () => {}); // its outcome comes too late to matter, and must not end the worker
        throw new KhoError(
          'KHO_EINVAL',
          'serialize returned a promise; it must be synchronous (do what takes waiting in prepare)',
          { call: 'serialize' },
        );
      }
      if (sink === undefined) return;
      this.#earlyBytes.set(shard, Math.max(0, early - (sink.takenOut - takenOut)), sink.usedBytes);
    } finally {
      this.#serializing = undefined;
      scope.close();
    }
  }

  /** Bytes of FDT that a shard has charged, wherever it writes. */
  #bytesOf(shard: number): number {
    return this.#sinks.get(shard)?.usedBytes ?? this.#stage.shardBytes(shard);
  }

  #context(scope: CallbackScope, item: number, instance: InstanceDescription, ownShard: number): DriverContext {
    const shards: ShardResources[] = [];
    for (let index = 0; index < instance.shardCount; index++) {
      const shard = instance.firstShard + index;
      let sink: NodeSink | undefined;
      shards.push({
        extents: this.#extentsOf(shard),
        ...(this.#shard(shard).guest && { guest: this.#guestOf(shard) }),
        sink: () => {
          sink ??= this.#sink(shard, instance, scope.phase);
          if (scope.phase === 'serialize') this.#serializing = sink;
          return sink;
        },
      });
    }
    const frozen = scope.phase === 'serialize' ? this.#frozen : undefined;
    const isHosted = this.#driver(instance).hosted === true;
    return new DriverContext(scope, {
      ...this.#identity(instance, item),
      memory: this.#memory,
      preserved: this.#preserved,
      shards,
      ownShard,
      state: () => this.#state(item, instance),
      prepared: this.#prepared.get(item),
      ...(isHosted && { early: () => this.#earlyScope(item), dma: this.#dma }),
      ...(frozen && { frozen }),
    });
  }

  #earlyScope(item: number): CallbackScope {
    let scope = this.#earlyScopes.get(item);
    if (scope === undefined) {
      scope = new CallbackScope('early', this.#nameIds);
      this.#earlyScopes.set(item, scope);
    }
    return scope;
  }

  #extentsOf(shard: number): ShardExtents {
    let extents = this.#shardExtents.get(shard);
    if (extents === undefined) {
      extents = this.#extents.extent(shard);
      this.#shardExtents.set(shard, extents);
    }
    return extents;
  }

  #guestOf(shard: number): ShardExtents {
    let extents = this.#shardGuests.get(shard);
    if (extents === undefined) {
      extents = this.#guestExtents.extent(shard);
      this.#shardGuests.set(shard, extents);
    }
    return extents;
  }

  #sink(shard: number, instance: InstanceDescription, phase: CallbackPhase): NodeSink {
    if (this.#driver(instance).blob === 'raw') {
      throw new KhoError('KHO_EPERM', 'a driver with a raw blob has no nodes: write its bytes with memory.write', {
        call: 'node',
      });
    }
    const { maxBytes } = this.#shard(shard);
    const { mode } = this.description;
    if (mode === 'hash' || (mode === 'subfdt' && phase !== 'serialize')) {
      const kept = this.#hostedSinks.get(shard);
      if (kept !== undefined) return kept;
      const { driver, name } = instance;
      const sink = new StageSink(this.#stage, { index: shard, driver, instance: name, maxBytes });
      if (this.#driver(instance).hosted === true) this.#hostedSinks.set(shard, sink);
      return sink;
    }
    let sink = this.#sinks.get(shard);
    if (sink === undefined) {
      sink = new StructBlockSink(this.#blocks, instance.name, maxBytes);
      this.#sinks.set(shard, sink);
      if (mode === 'subfdt' && !this.#stage.isShardEmpty(shard)) replayShard(this.#stage, shard, sink);
    }
    return sink;
  }

  /**
   * KHO_EWORKER for a hosted driver whose thread has been replaced, perhaps while nobody asked anything of it: what it had is
   * gone, even if its callbacks never look. Undoing goes on: there is memory to give back.
   */
  #checkAlive(phase: CallbackTask['phase'], item: number): void {
    if (phase === 'create' || phase === 'unfreeze' || phase === 'cancel' || phase === 'check') return;
    const index = phase === 'serialize' ? this.#shard(item).instance : item;
    const instance = this.#instance(index);
    if (this.#driver(instance).hosted === true && !this.#live.has(this.#liveKey(index))) throw lost(instance);
  }

  /** KHO_EWORKER if it was a live one, and its thread is gone. */
  #state(item: number, instance: InstanceDescription): unknown {
    if (this.#driver(instance).hosted !== true) return this.#create(instance, item);
    const key = this.#liveKey(item);
    if (this.#live.has(key)) return this.#live.get(key);
    throw lost(instance);
  }

  #create(instance: InstanceDescription, item = this.description.instances.indexOf(instance)): unknown {
    return this.#driver(instance).create(new DriverInstanceContext(this.#identity(instance, item)));
  }

  #identity(instance: InstanceDescription, item: number) {
    return {
      driver: this.#driver(instance).name,
      instance: instance.name,
      index: instance.index,
      options: this.#parsedOptions(instance, item),
      seed: this.description.seed,
    };
  }

  #parsedOptions(instance: InstanceDescription, item: number): unknown {
    if (!this.#options.has(item)) {
      const parser = this.#driver(instance).options;
      this.#options.set(item, parser === undefined ? instance.options : parser.parse(instance.options ?? {}));
    }
    return this.#options.get(item);
  }

  #instance(item: number): InstanceDescription {
    const instance = this.description.instances[item];
    if (instance === undefined) throw new KhoError('KHO_EINVAL', `there is no instance ${item}`);
    return instance;
  }

  #shard(shard: number): ShardDescription {
    return this.description.shards[shard] ?? { instance: -1, maxBytes: DEFAULT_MAX_BYTES };
  }

  #driver(instance: InstanceDescription): Driver {
    const driver = this.#drivers[instance.driver];
    if (driver === undefined) throw new KhoError('KHO_EINVAL', `there is no driver ${instance.driver}`);
    return driver;
  }

  #concerning(phase: CallbackTask['phase'], item: number) {
    const shard = isOfShards(phase) ? item : undefined;
    const instance = this.description.instances[shard === undefined ? item : this.#shard(shard).instance];
    if (instance === undefined) return { phase };
    return {
      phase,
      driver: this.#driver(instance).name,
      instance: instance.name,
      ...(shard === undefined ? {} : { shard: shard - instance.firstShard }),
    };
  }
}

/** The phases whose callbacks may wait, one an instance. */
type LifecyclePhase = Exclude<CallbackTask['phase'], 'create' | 'serialize' | 'check' | 'snapshot'>;

function lost({ name }: InstanceDescription): KhoError {
  return new KhoError('KHO_EWORKER', `the state of ${name} was lost with its thread`);
}

/** KHO_EINVAL unless it says where the raw blob is. */
function assertRawPrepared(result: unknown): asserts result is RawPrepared {
  const blob = typeof result === 'object' && result !== null && 'blob' in result ? result.blob : undefined;
  const { address, size } = (typeof blob === 'object' && blob !== null ? blob : {}) as Partial<SubBlob>;
  const isPage = typeof address === 'number' && Number.isSafeInteger(address) && address % PAGE_SIZE === 0;
  if (isPage && typeof size === 'number' && Number.isSafeInteger(size) && size > 0) return;
  throw new KhoError(
    'KHO_EINVAL',
    'prepare of a driver with a raw blob must return { blob: { address, size } }: the address of a page, and bytes',
    { call: 'prepare' },
  );
}

/** KHO_EINVAL unless it can go to another thread; found here, where it is known whose it is. */
function assertCloneable(result: unknown, call: 'prepare' | 'digests'): void {
  try {
    structuredClone(result);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new KhoError('KHO_EINVAL', `what ${call} returned cannot go to another thread: ${reason}`, { call });
  }
}

/** Freezes plain objects and arrays all the way down. Views of memory cannot be frozen. */
function freezeDeep(value: unknown): void {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const part of Object.values(value)) freezeDeep(part);
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
