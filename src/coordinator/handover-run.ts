import { profileNamed } from '../abi/index.js';
import type { KexecImage } from '../arch/index.js';
import { KhoError, type SerializedKhoError } from '../errors.js';
import { ARENA_BYTES, Stage } from '../hashstage/index.js';
import { PAGE_SIZE } from '../memblock/index.js';
import {
  EarlyBytes,
  type LateWrite,
  type Mode,
  type RunDescription,
  ShardFdtTable,
  type SnapshotDigests,
  type TaskPhase,
  type TaskRunner,
} from '../workers/index.js';
import type { Clock } from './clock.js';
import type { Deadline } from './deadline.js';
import type { HandoverEvents } from './events.js';
import { FrozenDrivers } from './frozen-drivers.js';
import { Handover } from './handover.js';
import type { Host } from './host.js';
import type { Interrupt } from './interrupt.js';
import { kexecFileLoad } from './kexec-load.js';
import { LateWrites } from './late-writes.js';
import { LinkRenderer } from './link-renderer.js';
import { declaredLoad, type ModeChoice } from './mode-choice.js';
import { OneFdt } from './one-fdt.js';
import type { Finalized, HandoverOutput } from './output.js';
import { type PhaseOptions, PhaseRunner } from './phase-runner.js';
import { backward, forward, inParallel, type StepPlan, shutdownSteps } from './phase-steps.js';
import type { RunPlan } from './plan.js';
import type { Registry } from './registry.js';
import type { Renderer } from './renderer.js';
import type { Reservations } from './reservations.js';
import type { RollbackReport } from './rollback-report.js';
import { StageRenderer } from './stage-renderer.js';
import { SubBlobs } from './sub-blobs.js';
import type { Phase, Timeline, TimelineRecorder } from './timeline.js';
import type { RunnerLane } from './work-group.js';
import { WorkerRenderer } from './worker-renderer.js';

/** How far a phase is. */
export interface ProgressEvent {
  readonly phase: Phase;
  readonly done: number;
  readonly total: number;
}

/** A plan without its drivers and host, whose mode is a real one. */
export type RunOptions = Pick<
  RunPlan,
  'workers' | 'seed' | 'profile' | 'fdtMax' | 'budget' | 'kexec' | 'trigger' | 'onShutdownFailure' | 'lateWrites'
> & {
  readonly mode: Mode;
};

/** What a {@link HandoverRun} is made from. */
export interface HandoverRunParts {
  readonly host: Host;
  readonly options: RunOptions;
  /** Why that mode, if it was chosen. */
  readonly choice?: ModeChoice;
  readonly registry: Registry;
  readonly reservations: Reservations;
  readonly recorder: TimelineRecorder;
  readonly interrupt: Interrupt;
  readonly deadline: Deadline;
  readonly events: HandoverEvents;
  readonly clock: Clock;
  readonly callbackLimit: number;
  readonly grace: number;
  /** Of the hosted drivers' live states. */
  readonly generation: string;
  readonly progress: (event: ProgressEvent) => void;
  readonly laneOf: (driver: number) => RunnerLane;
}

/** The failures that cost a thread. */
const LOST_THREAD: ReadonlySet<string> = new Set(['KHO_EWORKER', 'KHO_ETIMEDOUT']);

let runs = 0;

/** One handover under way: what it holds, and how far it is. Its calls come in the order of the lifecycle. */
export class HandoverRun {
  readonly #parts: HandoverRunParts;
  readonly #host: Host;
  readonly #options: RunOptions;
  readonly #registry: Registry;
  readonly #reservations: Reservations;
  readonly #recorder: TimelineRecorder;
  readonly #interrupt: Interrupt;
  readonly #id = `run-${++runs}`;
  /** Of FDT that the shards may write. */
  readonly #maxBytes: number;
  readonly #stage: Stage;
  /** Mode `subfdt` alone. */
  readonly #shardFdts: ShardFdtTable | undefined;
  readonly #early: EarlyBytes;
  /** Undefined if nobody looks for them. */
  readonly #lateWrites: LateWrites | undefined;
  readonly #phases: PhaseRunner;
  /** What each instance's prepare returned. */
  readonly #prepared = new Map<number, unknown>();
  readonly #digests = new Map<number, SnapshotDigests>();
  readonly #frozen: FrozenDrivers;
  readonly #shutdownFailures: SerializedKhoError[] = [];
  #begun = false;
  #kexec: KexecImage | undefined;
  #finalized: Finalized | undefined;

  constructor(parts: HandoverRunParts) {
    this.#parts = parts;
    const { host, options, registry, reservations, recorder, interrupt } = parts;
    this.#host = host;
    this.#options = options;
    this.#registry = registry;
    this.#reservations = reservations;
    this.#recorder = recorder;
    this.#interrupt = interrupt;
    this.#maxBytes = declaredLoad(registry.shards).bytes;
    const threads = options.workers + registry.drivers.length;
    this.#stage = Stage.create({ shardCount: registry.shards.length, maxBytes: this.#maxBytes, threads });
    const { shards, instances } = registry;
    if (options.mode === 'subfdt') this.#shardFdts = ShardFdtTable.create(shards.length, instances.length);
    this.#early = EarlyBytes.create(shards.length);
    this.#frozen = new FrozenDrivers(registry);
    this.#lateWrites = LateWrites.of(options.lateWrites ?? 'cancel', registry);
    this.#phases = new PhaseRunner({ ...parts, runId: this.#id });
  }

  get mode(): Mode {
    return this.#options.mode;
  }

  get registry(): Registry {
    return this.#registry;
  }

  get timeline(): Timeline {
    return this.#recorder.timeline;
  }

  /** Bytes of FDT that hold the drivers' state. */
  get stateBytes(): number {
    return this.#finalized?.stateBytes ?? 0;
  }

  /** A copy of the root FDT, or the one FDT, if it is finalized. */
  fdt(): Uint8Array | undefined {
    const root = this.#finalized?.root;
    return root && this.#host.memory.read(root.address, root.size);
  }

  /** Brownout: threads attach, memory is touched, drivers prepare, the boot record is loaded. */
  async prepare(epoch: bigint): Promise<void> {
    this.#recorder.step('prepare', 'touch the stage', () =>
      this.#stage.touch(2 * this.#maxBytes + (this.#options.workers + 1) * ARENA_BYTES),
    );
    const lateWrites = this.#lateWrites;
    if (lateWrites) this.#recorder.step('prepare', 'touch the digests of pages', () => lateWrites.touch());
    this.#kexec = await kexecFileLoad(this.#host, this.#options, this.#reservations, this.#recorder);
    const description = this.#describeRun(epoch);
    await Promise.race([this.#onRunners((runner) => runner.attach(description)), this.#interrupt.promise]);
    this.#begun = true;
    const { drivers } = this.#registry;
    const hosted = drivers.filter((driver) => driver.hosted).map(({ index }) => index);
    await this.#run('prepare', inParallel(this.#registry, 'create', hosted));
    await this.#run('prepare', forward(this.#registry, 'prepare'), {
      onItem: (_phase, instance, prepared) => this.#prepared.set(instance, prepared),
      onProgress: this.#reporter('prepare'),
    });
    await Promise.race([this.#sharePrepared(), this.#interrupt.promise]);
  }

  /** Brownout again: drivers bring their early state up to date. */
  async update(drivers: readonly number[]): Promise<void> {
    const plan = forward(
      this.#registry,
      'update',
      drivers.filter((driver) => this.#has(driver, 'update')),
    );
    await this.#phase('update', () => this.#run('update', plan, { onProgress: this.#reporter('update') }));
  }

  /** What the arguments of a call on single drivers must be, before it begins: the errors of {@link FrozenDrivers.check}. */
  checkCall(call: string, drivers: readonly number[]): void {
    this.#frozen.check(call, drivers);
  }

  /** Freezes drivers before the blackout, in parallel as far as `after` lets them; later they are skipped. */
  async freezeEarly(drivers: readonly number[]): Promise<void> {
    await this.#phase('early freeze', () =>
      this.#run('early freeze', forward(this.#registry, 'freeze', drivers), { onItem: this.#noteFrozen }),
    );
    this.#frozen.addEarly(drivers);
  }

  /** Undoes {@link freezeEarly}. */
  async unfreeze(drivers: readonly number[]): Promise<void> {
    await this.#phase('early freeze', () => this.#run('early freeze', backward(this.#registry, 'unfreeze', drivers)));
    this.#frozen.release(drivers);
  }

  /** The threads of the pool wait for the phases of the blackout, each of which then begins at once. */
  async standBy(): Promise<void> {
    // Other runs that share the pool wait until this one has jumped.
    await Promise.race([this.#onRunners((runner) => runner.standBy(this.#id)), this.#interrupt.promise]);
  }

  async freeze(): Promise<void> {
    const left = this.#registry.drivers.flatMap(({ index }) => (this.#frozen.early.has(index) ? [] : [index]));
    await this.#phase('freeze', () =>
      this.#run('freeze', forward(this.#registry, 'freeze', left), {
        onItem: this.#noteFrozen,
        onProgress: this.#reporter('freeze'),
      }),
    );
  }

  /** Every driver is frozen: their states no longer depend on one another, so all shards are serialized at once. */
  async serialize(): Promise<void> {
    await this.#phase('serialize', () =>
      this.#run('serialize', inParallel(this.#registry, 'serialize'), { onProgress: this.#reporter('serialize') }),
    );
  }

  /**
   * The other trigger: devices are shut down, dependents first, and each driver freezes and serializes as soon as it is
   * down. Failures of shutdown that do not end it are kept for the record.
   */
  async shutdown(): Promise<void> {
    // Not in step with each other: every piece of work is a task of its own.
    await this.#onRunners((runner) => runner.dismiss(this.#id));
    const proceed = this.#options.onShutdownFailure === 'proceed';
    const steps = shutdownSteps(this.#registry, {
      proceed,
      isDown: (driver) => this.#frozen.early.has(driver),
      hasShutdown: (driver) => this.#has(driver, 'shutdown'),
    });
    let up = steps.filter(({ phase }) => phase === 'shutdown').length;
    let underWay = this.#recorder.startPhase('shutdown');
    let watched = this.#parts.deadline.phase('shutdown');
    try {
      const failures = await this.#phases.run(steps, {
        grouping: 'step',
        onItem: this.#noteFrozen,
        onStep: ({ phase }) => {
          if (phase !== 'shutdown' || --up > 0) return;
          watched[Symbol.dispose]();
          underWay = this.#recorder.startPhase('serialize', underWay.end());
          watched = this.#parts.deadline.phase('serialize');
        },
        onProgress: this.#reporter('shutdown'),
      });
      // What was written early in mode `sequential` is gone with the thread that wrote it.
      const lost = this.mode === 'sequential' && failures.find(({ code }) => LOST_THREAD.has(code));
      if (lost) throw lost;
      this.#shutdownFailures.push(...failures.map((failure) => failure.toJSON()));
      underWay.end();
    } catch (error) {
      underWay.end(error);
      throw error;
    } finally {
      watched[Symbol.dispose]();
    }
  }

  async finalize(): Promise<void> {
    await this.#phase('finalize', async () => {
      this.#finalized = await this.#output().finalize(this.#renderer());
    });
  }

  /**
   * Looks for late writes, and puts the boot record's first page into place, by which a successor finds it all. Then come the
   * digests of the frozen states, which are no part of the blackout.
   */
  async jump(): Promise<Handover> {
    const { deadline } = this.#parts;
    const finalized = this.#finalized;
    if (finalized === undefined) throw new KhoError('KHO_EINVAL', 'the run was not finalized');
    await this.#phase('jump', async () => {
      if (this.#lateWrites !== undefined) await this.#findLateWrites(this.#lateWrites);
      const { address, bytes } = this.#loaded().record;
      this.#host.memory.write(address, bytes);
    });
    deadline[Symbol.dispose]();
    await this.#onRunners((runner) => runner.dismiss(this.#id));
    await this.#recorder.phase('snapshot', () =>
      this.#run('snapshot', inParallel(this.#registry, 'snapshot'), {
        onItem: (_phase, instance, digests) => this.#digests.set(instance, digests as SnapshotDigests),
      }),
    );
    await this.#onRunners((runner) => runner.detach(this.#id));
    return new Handover({
      host: this.#host,
      plan: this.#options,
      ...(this.#parts.choice && { choice: this.#parts.choice }),
      registry: this.#registry,
      reservations: this.#reservations,
      kexec: this.#loaded(),
      ...finalized,
      digests: this.#digests,
      recorder: this.#recorder,
      early: this.#early,
      frozenEarly: this.#frozen.early,
      shutdownFailures: this.#shutdownFailures,
      ...(this.#lateWrites && { lateWrites: this.#lateWrites }),
    });
  }

  /** Every page that is handed over, and was frozen, is compared with its digests, on all threads. */
  async #findLateWrites(lateWrites: LateWrites): Promise<void> {
    await this.#run('jump', inParallel(this.#registry, 'check'), {
      onItem: (_phase, shard, found) => lateWrites.note(shard, found as LateWrite[] | undefined),
    });
    lateWrites.check();
  }

  /**
   * Undoes everything: what was frozen is unfrozen, then every driver cancelled, dependents first; then all memory is free
   * again, and no successor finds anything. Never rejects: what failed on the way is in the report.
   */
  async cancel(): Promise<Pick<RollbackReport, 'failures' | 'reclaimed'>> {
    await this.#onRunners((runner) => runner.dismiss(this.#id));
    const failures: KhoError[] = [];
    if (this.#begun) {
      // A prepare that failed has told nobody what its instances had returned. A thread that cannot be told is dead: then
      // its cancel fails, too, and says so.
      await this.#sharePrepared().catch(() => {});
      const undo = async (plan: StepPlan): Promise<void> => {
        const options = { grouping: 'level', interruptible: false, onItem: () => {} } as const;
        failures.push(...(await this.#phases.run(plan('cancel', true), options)));
      };
      // An instance whose freeze failed, or never ended, was never frozen.
      await undo(
        backward(this.#registry, 'unfreeze', this.#with('unfreeze'), (instance) => this.#frozen.has(instance)),
      );
      await undo(backward(this.#registry, 'cancel'));
    }
    await this.#onRunners((runner) => runner.detach(this.#id));
    const record = this.#kexec?.record;
    if (record !== undefined) this.#host.memory.fill(record.address, record.memorySize, 0);
    const reclaimed = this.#reservations.reclaim(this.#registry);
    this.#reservations.release();
    return { failures: failures.map((failure) => failure.toJSON()), reclaimed };
  }

  readonly #noteFrozen = (phase: TaskPhase, instance: number): void => {
    if (phase === 'freeze') this.#frozen.add(instance);
  };

  async #run(recordAs: Phase, plan: StepPlan, options: Partial<PhaseOptions> = {}): Promise<void> {
    const steps = plan(recordAs);
    await this.#phases.run(steps, { grouping: 'level', onItem: () => {}, ...options });
  }

  /** Runs `work` as a phase that may have a budget. */
  async #phase(phase: Phase, work: () => Promise<void> | void): Promise<void> {
    await this.#recorder.phase(phase, async () => {
      using _ = this.#parts.deadline.phase(phase);
      await work();
    });
  }

  #has(driver: number, callback: 'update' | 'shutdown' | 'unfreeze'): boolean {
    return this.#registry.drivers[driver]?.callbacks.includes(callback) === true;
  }

  #with(callback: 'update' | 'shutdown' | 'unfreeze'): number[] {
    return this.#registry.drivers.flatMap(({ index }) => (this.#has(index, callback) ? [index] : []));
  }

  async #onRunners(work: (runner: TaskRunner) => Promise<void>): Promise<void> {
    const runners = new Set(this.#registry.drivers.map((_, driver) => this.#parts.laneOf(driver).runner));
    await Promise.all([...runners].map(work));
  }

  /** Brings to every thread what `prepare` returned, so that no message of the blackout has to carry it. */
  async #sharePrepared(): Promise<void> {
    const byRunner = new Map<TaskRunner, Map<number, unknown>>();
    for (const { index, instances } of this.#registry.drivers) {
      const { runner } = this.#parts.laneOf(index);
      const prepared = byRunner.get(runner) ?? new Map<number, unknown>();
      byRunner.set(runner, prepared);
      for (const item of instances) if (this.#prepared.has(item)) prepared.set(item, this.#prepared.get(item));
    }
    const told = await Promise.allSettled(
      [...byRunner].map(([runner, prepared]) => runner.setPrepared(this.#id, prepared)),
    );
    for (const outcome of told) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #output(): HandoverOutput {
    const { rooms } = this.#reservations;
    const { fdt } = this.#loaded();
    const profile = profileNamed(this.#options.profile);
    const parts = {
      host: this.#host,
      registry: this.#registry,
      reservations: this.#reservations,
      recorder: this.#recorder,
    };
    if (profile.form === 'sub-blobs' && rooms !== undefined) {
      return new SubBlobs({ ...parts, profile, rooms, prepared: this.#prepared });
    }
    if (profile.form === 'one-fdt' && fdt !== undefined) return new OneFdt({ ...parts, profile, fdt });
    throw new KhoError('KHO_EINVAL', 'neither blobs nor one FDT have room');
  }

  #renderer(): Renderer {
    const { mode } = this.#options;
    if (mode === 'sequential') return new WorkerRenderer(this.#id, this.#parts.laneOf(0), this.#recorder);
    if (this.#shardFdts !== undefined) {
      return new LinkRenderer({
        memory: this.#host.memory,
        registry: this.#registry,
        rooms: this.#reservations.rooms?.shards ?? [],
        table: this.#shardFdts,
        recorder: this.#recorder,
      });
    }
    return new StageRenderer(this.#stage, this.#host.memory, this.#recorder);
  }

  #loaded(): KexecImage {
    if (this.#kexec === undefined) throw new KhoError('KHO_EINVAL', 'the run was not prepared');
    return this.#kexec;
  }

  #describeRun(epoch: bigint): RunDescription {
    const { rooms } = this.#reservations;
    return {
      id: this.#id,
      generation: this.#parts.generation,
      mode: this.#options.mode,
      seed: this.#options.seed,
      epoch,
      drivers: this.#registry.drivers.map(({ name, compatible, hosted, blob, module }) => ({
        name,
        compatible,
        hosted,
        blob,
        module,
      })),
      instances: this.#registry.instances,
      shards: this.#registry.shards.map((shard, index) => {
        const room = rooms?.shards[index];
        return room === undefined ? shard : { ...shard, fdt: { address: room.address, size: room.pages * PAGE_SIZE } };
      }),
      ...(this.#shardFdts && { shardFdts: this.#shardFdts.buffer }),
      memory: this.#host.memory.handle,
      extents: this.#reservations.extents.handle,
      guestExtents: this.#reservations.guestExtents.handle,
      early: this.#early.buffer,
      dma: this.#reservations.dma.handle,
      ...(this.#lateWrites && { lateWrites: this.#lateWrites.description }),
      stage: this.#stage.handle,
      tracker: this.#reservations.tracker.root,
    };
  }

  #reporter(phase: Phase): (done: number, total: number) => void {
    return (done, total) => this.#parts.progress({ phase, done, total });
  }
}
