import { checkOneFdtRoom, neverReleased, ONE_FDT_ROOM, type Profile, profileNamed } from '../abi/index.js';
import type { KexecImage } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { ARENA_BYTES, Stage } from '../hashstage/index.js';
import { PAGE_SIZE } from '../memblock/index.js';
import {
  type DescribedRegistration,
  DriverHost,
  type RunDescription,
  ShardFdtTable,
  type SnapshotDigests,
  type TaskRunner,
  WorkerPool,
} from '../workers/index.js';
import { Handover } from './handover.js';
import type { Host } from './host.js';
import { Interrupt } from './interrupt.js';
import { readKexecFiles } from './kexec-files.js';
import { LinkRenderer } from './link-renderer.js';
import { checkOneFdt, OneFdt } from './one-fdt.js';
import type { Finalized, HandoverOutput } from './output.js';
import { PhaseRunner, type PhaseWork, type RunnerLane } from './phase-runner.js';
import type { Budget, DriverRegistration, RunPlan } from './plan.js';
import { buildRegistry, type Registry } from './registry.js';
import type { Renderer } from './renderer.js';
import { Reservations } from './reservations.js';
import { StageRenderer } from './stage-renderer.js';
import { SubBlobs } from './sub-blobs.js';
import { KEXEC_LOAD_STEPS, type Phase, TimelineRecorder } from './timeline.js';
import { WorkerRenderer } from './worker-renderer.js';

export type CoordinatorOptions = Pick<RunPlan, 'mode' | 'workers' | 'seed' | 'profile' | 'fdtMax' | 'kexec'> & {
  readonly budget?: Budget;
  /** A pool to use, and to leave running; without it the coordinator starts one of `workers` threads. */
  readonly pool?: WorkerPool;
};

/** How far a phase is. */
export interface ProgressEvent {
  readonly phase: Phase;
  readonly done: number;
  readonly total: number;
}

export interface HandoverOptions {
  /** Aborting rolls back; the handover rejects with the signal's reason if that is a KhoError, else KHO_ECANCELED. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

let runs = 0;

/**
 * Leads a host's handover: registers drivers, runs prepare → freeze → serialize → finalize on worker threads, and rolls
 * everything back if any of it fails. Driver code never runs on the calling thread.
 *
 * One handover at a time (KHO_EBUSY). The threads live until the coordinator is disposed of.
 */
export class Coordinator implements AsyncDisposable {
  readonly host: Host;
  readonly #options: CoordinatorOptions;
  readonly #registrations: DriverRegistration[] = [];
  /** Mode `hash`: the pool. Mode `sequential`: one host for everything. Made on first use. */
  #main: RunnerLane | undefined;
  readonly #hosts = new Map<string, RunnerLane>();
  readonly #profile: Profile;
  #busy = false;
  #fdtMax: number;
  /** The last handover that came about; it holds the host's memory until it is disposed of. */
  #handedOver: Handover | undefined;

  /**
   * KHO_EINVAL for a profile that is not known, or a room that no FDT can have; KHO_EOPNOTSUPP for a kernel to load where
   * none speaks the profile.
   */
  constructor(host: Host, options: CoordinatorOptions) {
    this.#profile = profileNamed(options.profile);
    this.#fdtMax = options.fdtMax ?? ONE_FDT_ROOM;
    if (options.mode === 'subfdt' && this.#profile.form === 'one-fdt') {
      const text = `mode subfdt links FDTs to each other, and in profile ${this.#profile.name} all is in one`;
      throw new KhoError('KHO_EINVAL', text, { field: 'mode' });
    }
    if (options.fdtMax !== undefined) this.#checkRoom(options.fdtMax);
    if (options.kexec !== undefined && this.#profile.releases === undefined) throw neverReleased(this.#profile);
    this.host = host;
    this.#options = options;
  }

  /** Bytes of room for the one FDT of the series v4 and v5; 10 MiB unless it was set. */
  get fdtMax(): number {
    return this.#fdtMax;
  }

  /**
   * KHO_EBUSY while there is an FDT: during a handover, and until what came of it is disposed of. KHO_EINVAL for what is no
   * room (4 KiB to 256 MiB, a multiple of 4 KiB), and for a profile that has no one FDT.
   */
  set fdtMax(bytes: number) {
    if (this.#busy || this.#handedOver?.released === false) {
      throw new KhoError('KHO_EBUSY', 'the FDT is made: its room cannot be set any more', { field: 'fdtMax' });
    }
    this.#checkRoom(bytes);
    this.#fdtMax = bytes;
  }

  /** Adds instances of a driver. Order matters: it is the order in which state is laid out. */
  register(registration: DriverRegistration): this {
    if (!Number.isSafeInteger(registration.count) || registration.count < 0) {
      throw new KhoError('KHO_EINVAL', `count is ${registration.count}, expected a whole number`, { field: 'count' });
    }
    this.#registrations.push(registration);
    return this;
  }

  /**
   * Runs a handover up to the jump. Rejects with the first failure, after rolling back: every driver that had begun was
   * cancelled, all pages are free again, and the next handover can begin. Failures of rolling back itself are in the
   * error's `cause`.
   */
  async handover({ signal, onProgress }: HandoverOptions = {}): Promise<Handover> {
    if (this.#busy) throw new KhoError('KHO_EBUSY', 'a handover of this coordinator is under way');
    this.#busy = true;
    try {
      this.#handedOver = await this.#handover(signal, onProgress ?? (() => {}));
      return this.#handedOver;
    } finally {
      this.#busy = false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const lanes = [...this.#hosts.values()];
    if (this.#main !== undefined && this.#main.runner !== this.#options.pool) lanes.push(this.#main);
    this.#main = undefined;
    this.#hosts.clear();
    await Promise.all(lanes.map(({ runner }) => runner[Symbol.asyncDispose]()));
  }

  async #handover(signal: AbortSignal | undefined, progress: (event: ProgressEvent) => void): Promise<Handover> {
    const epoch = process.hrtime.bigint();
    const recorder = new TimelineRecorder(epoch);
    using interrupt = new Interrupt(signal);
    interrupt.check();
    let run: HandoverRun | undefined;
    try {
      await recorder.phase('prepare', async () => {
        const registry = await this.#describe(interrupt);
        if (this.#profile.form === 'one-fdt') checkOneFdt(this.#profile, registry);
        const reservations = recorder.step('prepare', 'reserve memory', () => {
          return new Reservations(this.host, registry, this.#profile, this.#options.mode);
        });
        run = new HandoverRun(
          this.host,
          { ...this.#options, fdtMax: this.#fdtMax },
          registry,
          reservations,
          recorder,
          interrupt,
          progress,
          (driver) => this.#laneOf(registry, driver),
        );
        await run.prepare(epoch);
      });
      if (run === undefined) throw new KhoError('KHO_EINVAL', 'the run was not prepared');
      interrupt.startBudget(this.#options.budget);
      await run.blackout();
      interrupt.stopBudget();
      return await run.finish();
    } catch (thrown) {
      interrupt.stopBudget();
      const error = KhoError.from(thrown);
      const failures = await recorder.phase('cancel', () => run?.cancel() ?? []);
      if (failures.length === 0) throw error;
      const cause = new AggregateError(failures, 'rolling back failed too');
      throw new KhoError(error.code, error.message, error.details, { cause });
    }
  }

  #checkRoom(bytes: number): void {
    if (this.#profile.form !== 'one-fdt') {
      const text = `the profile ${this.#profile.name} has no one FDT, whose room fdtMax is`;
      throw new KhoError('KHO_EINVAL', text, { field: 'fdtMax' });
    }
    checkOneFdtRoom(bytes);
  }

  /** Asks the drivers what they are and need. */
  async #describe(interrupt: Interrupt): Promise<Registry> {
    const main = this.#mainLane();
    const registrations = this.#registrations.map(({ module, count, options }) => ({ module, count, options }));
    const answer = await Promise.race([main.runner.run({ kind: 'describe', registrations }), interrupt.promise]);
    const [failure] = answer.failures;
    if (failure !== undefined) {
      const registration = this.#registrations[failure.position];
      const where = registration?.where === undefined ? {} : { file: registration.where };
      throw KhoError.from(failure.error).with(where);
    }
    return buildRegistry(this.#registrations, answer.values as DescribedRegistration[]);
  }

  #mainLane(): RunnerLane {
    if (this.#main !== undefined) return this.#main;
    if (this.#options.mode === 'sequential') {
      this.#main = { runner: new DriverHost('sequential'), threads: 1, role: 'worker' };
    } else {
      const pool = this.#options.pool ?? new WorkerPool({ threads: this.#options.workers });
      this.#main = { runner: pool, threads: pool.threads, role: 'worker' };
    }
    return this.#main;
  }

  /** Where a driver's callbacks run: a hosted driver has a thread to itself, unless all share one. */
  #laneOf(registry: Registry, index: number): RunnerLane {
    const driver = registry.drivers[index];
    if (driver === undefined || !driver.hosted || this.#options.mode === 'sequential') return this.#mainLane();
    let lane = this.#hosts.get(driver.name);
    if (lane === undefined) {
      lane = { runner: new DriverHost(driver.name), threads: 1, role: 'host', driver: driver.name };
      this.#hosts.set(driver.name, lane);
    }
    return lane;
  }
}

/** One handover under way: what it holds, and how far it is. */
class HandoverRun {
  readonly #host: Host;
  readonly #options: CoordinatorOptions;
  readonly #registry: Registry;
  readonly #reservations: Reservations;
  readonly #recorder: TimelineRecorder;
  readonly #interrupt: Interrupt;
  readonly #progress: (event: ProgressEvent) => void;
  readonly #laneOf: (driver: number) => RunnerLane;
  readonly #id = `run-${++runs}`;
  readonly #stage: Stage;
  /** Mode `subfdt` alone. */
  readonly #shardFdts: ShardFdtTable | undefined;
  readonly #phases: PhaseRunner;
  /** What each instance's prepare returned. */
  readonly #prepared = new Map<number, unknown>();
  readonly #digests = new Map<number, SnapshotDigests>();
  #begun = false;
  #kexec: KexecImage | undefined;
  #finalized: Finalized | undefined;

  constructor(
    host: Host,
    options: CoordinatorOptions,
    registry: Registry,
    reservations: Reservations,
    recorder: TimelineRecorder,
    interrupt: Interrupt,
    progress: (event: ProgressEvent) => void,
    laneOf: (driver: number) => RunnerLane,
  ) {
    this.#host = host;
    this.#options = options;
    this.#registry = registry;
    this.#reservations = reservations;
    this.#recorder = recorder;
    this.#interrupt = interrupt;
    this.#progress = progress;
    this.#laneOf = laneOf;
    const maxBytes = registry.shards.reduce((sum, shard) => sum + shard.maxBytes, 0);
    const threads = options.workers + registry.drivers.length;
    this.#stage = Stage.create({ shardCount: registry.shards.length, maxBytes, threads });
    const { shards, instances } = registry;
    if (options.mode === 'subfdt') this.#shardFdts = ShardFdtTable.create(shards.length, instances.length);
    this.#phases = new PhaseRunner({
      runId: this.#id,
      registry,
      recorder,
      interrupt,
      laneOf,
    });
  }

  /** Brownout: threads attach, memory is touched, drivers prepare, the boot record is loaded. */
  async prepare(epoch: bigint): Promise<void> {
    const { maxBytes } = this.#bounds();
    this.#recorder.step('prepare', 'touch the stage', () =>
      this.#stage.touch(2 * maxBytes + (this.#options.workers + 1) * ARENA_BYTES),
    );
    await this.#loadKexec();
    const description = this.#describeRun(epoch);
    const runners = new Set<TaskRunner>(this.#registry.drivers.map((_, driver) => this.#laneOf(driver).runner));
    await Promise.race([
      Promise.all([...runners].map((runner) => runner.attach(description))),
      this.#interrupt.promise,
    ]);
    this.#begun = true;
    await this.#phases.run(this.#hostedWork(), {
      phase: 'create',
      recordAs: 'prepare',
      order: 'none',
      onItem: () => {},
    });
    await this.#phases.run(this.#instanceWork(), {
      phase: 'prepare',
      recordAs: 'prepare',
      order: 'forward',
      onItem: (instance, prepared) => this.#prepared.set(instance, prepared),
      onProgress: this.#reporter('prepare'),
    });
    await Promise.race([this.#sharePrepared(), this.#interrupt.promise]);
  }

  /** Brings to every thread what `prepare` returned, so that no message of the blackout has to carry it. */
  async #sharePrepared(): Promise<void> {
    const byRunner = new Map<TaskRunner, Map<number, unknown>>();
    for (const { index, instances } of this.#registry.drivers) {
      const { runner } = this.#laneOf(index);
      const prepared = byRunner.get(runner) ?? new Map<number, unknown>();
      byRunner.set(runner, prepared);
      for (const item of instances) if (this.#prepared.has(item)) prepared.set(item, this.#prepared.get(item));
    }
    const told = await Promise.allSettled(
      [...byRunner].map(([runner, prepared]) => runner.setPrepared(this.#id, prepared)),
    );
    for (const outcome of told) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** Freeze, serialize, finalize, and put the boot record's first page into place, by which a successor finds it all. */
  async blackout(): Promise<void> {
    await this.#recorder.phase('freeze', () =>
      this.#phases.run(this.#instanceWork(), {
        phase: 'freeze',
        recordAs: 'freeze',
        order: 'forward',
        onItem: () => {},
        onProgress: this.#reporter('freeze'),
      }),
    );
    // Every driver is frozen: their states no longer depend on one another, so all shards are serialized at once.
    await this.#recorder.phase('serialize', () =>
      this.#phases.run(this.#shardWork(), {
        phase: 'serialize',
        recordAs: 'serialize',
        order: 'none',
        onItem: () => {},
        onProgress: this.#reporter('serialize'),
      }),
    );
    this.#finalized = await this.#recorder.phase('finalize', () => this.#output().finalize(this.#renderer()));
    this.#interrupt.check();
    await this.#recorder.phase('jump', () => {
      const { address, bytes } = this.#loaded().record;
      this.#host.memory.write(address, bytes);
    });
  }

  /** After the jump: the digests of the frozen states, which are no part of the blackout. */
  async finish(): Promise<Handover> {
    await this.#recorder.phase('snapshot', () =>
      this.#phases.run(this.#instanceWork(), {
        phase: 'snapshot',
        recordAs: 'snapshot',
        order: 'none',
        onItem: (instance, digests) => this.#digests.set(instance, digests as SnapshotDigests),
      }),
    );
    const finalized = this.#finalized;
    if (finalized === undefined) throw new KhoError('KHO_EINVAL', 'the run was not finalized');
    return new Handover({
      host: this.#host,
      plan: this.#options,
      registry: this.#registry,
      reservations: this.#reservations,
      kexec: this.#loaded(),
      ...finalized,
      digests: this.#digests,
      recorder: this.#recorder,
    });
  }

  /** Undoes everything: cancel callbacks in reverse order, then all memory. Returns what failed on the way. */
  async cancel(): Promise<KhoError[]> {
    // A prepare that failed has told nobody what its instances had returned. A thread that cannot be told is dead: then
    // its cancel fails, too, and says so.
    if (this.#begun) await this.#sharePrepared().catch(() => {});
    const failures = this.#begun
      ? await this.#phases.run(
          this.#instanceWork().map(({ driver, items }) => ({ driver, items: [...items].reverse() })),
          {
            phase: 'cancel',
            recordAs: 'cancel',
            order: 'backward',
            collectFailures: true,
            interruptible: false,
            onItem: () => {},
          },
        )
      : [];
    this.#reservations.release();
    return failures;
  }

  #output(): HandoverOutput {
    const { rooms } = this.#reservations;
    const { fdt } = this.#loaded();
    const parts = {
      host: this.#host,
      profile: profileNamed(this.#options.profile),
      registry: this.#registry,
      reservations: this.#reservations,
      recorder: this.#recorder,
    };
    if (rooms !== undefined) return new SubBlobs({ ...parts, rooms, prepared: this.#prepared });
    if (fdt !== undefined) return new OneFdt({ ...parts, fdt });
    throw new KhoError('KHO_EINVAL', 'neither blobs nor one FDT have room');
  }

  #renderer(): Renderer {
    const { mode } = this.#options;
    if (mode === 'sequential') return new WorkerRenderer(this.#id, this.#laneOf(0), this.#recorder);
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

  /**
   * kexec_file_load(): kernel, initrd and boot record go into scratch, which nothing else uses. All but the record
   * itself is written now; that one is what the jump is: until then no successor finds anything.
   */
  async #loadKexec(): Promise<void> {
    const { arch, firmware, memory, options, scratch } = this.#host;
    const { kexec } = this.#options;
    const [read, load] = KEXEC_LOAD_STEPS;
    const files = kexec && (await this.#recorder.stepAsync('prepare', read, () => readKexecFiles(kexec)));
    this.#kexec = this.#recorder.step('prepare', files ? load : 'load the boot record', () => {
      const image = arch.loadKexec({
        firmware,
        commandLine: kexec?.commandLine ?? options.cmdline,
        root: this.#reservations.rooms?.root ?? { room: this.#options.fdtMax ?? ONE_FDT_ROOM },
        scratch: scratch.areas,
        ...files,
      });
      for (const segment of image.segments) {
        if (segment !== image.record) memory.write(segment.address, segment.bytes);
      }
      // Cleared, and by that touched: what is made there is made in the blackout.
      for (const { address, memorySize } of [image.record, ...(image.fdt ? [image.fdt.segment] : [])]) {
        memory.fill(address, memorySize, 0);
      }
      return image;
    });
  }

  #loaded(): KexecImage {
    if (this.#kexec === undefined) throw new KhoError('KHO_EINVAL', 'the run was not prepared');
    return this.#kexec;
  }

  #describeRun(epoch: bigint): RunDescription {
    const { rooms } = this.#reservations;
    return {
      id: this.#id,
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
      stage: this.#stage.handle,
      tracker: this.#reservations.tracker.root,
    };
  }

  #bounds(): { maxBytes: number } {
    return { maxBytes: this.#registry.shards.reduce((sum, shard) => sum + shard.maxBytes, 0) };
  }

  #instanceWork(): PhaseWork[] {
    return this.#registry.drivers.map(({ index, instances }) => ({ driver: index, items: instances }));
  }

  #hostedWork(): PhaseWork[] {
    return this.#registry.drivers.flatMap(({ index, instances, hosted }) =>
      hosted ? [{ driver: index, items: instances }] : [],
    );
  }

  #shardWork(): PhaseWork[] {
    const work = this.#registry.drivers.map(({ index }) => ({ driver: index, items: [] as number[] }));
    for (const [shard, { instance }] of this.#registry.shards.entries()) {
      work[this.#registry.instances[instance]?.driver ?? 0]?.items.push(shard);
    }
    return work;
  }

  #reporter(phase: Phase): (done: number, total: number) => void {
    return (done, total) => this.#progress({ phase, done, total });
  }
}
