import { ONE_FDT_ROOM, profileNamed } from '../abi/index.js';
import type { KexecImage } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { ARENA_BYTES, Stage } from '../hashstage/index.js';
import { PAGE_SIZE } from '../memblock/index.js';
import {
  type Mode,
  type RunDescription,
  ShardFdtTable,
  type SnapshotDigests,
  type TaskRunner,
} from '../workers/index.js';
import { Handover } from './handover.js';
import type { Host } from './host.js';
import type { Interrupt } from './interrupt.js';
import { readKexecFiles } from './kexec-files.js';
import { LinkRenderer } from './link-renderer.js';
import { declaredLoad, type ModeChoice } from './mode-choice.js';
import { OneFdt } from './one-fdt.js';
import type { Finalized, HandoverOutput } from './output.js';
import { PhaseRunner, type PhaseWork, type RunnerLane } from './phase-runner.js';
import type { RunPlan } from './plan.js';
import type { Registry } from './registry.js';
import type { Renderer } from './renderer.js';
import type { Reservations } from './reservations.js';
import { StageRenderer } from './stage-renderer.js';
import { SubBlobs } from './sub-blobs.js';
import { KEXEC_LOAD_STEPS, type Phase, type Timeline, type TimelineRecorder } from './timeline.js';
import { WorkerRenderer } from './worker-renderer.js';

/** How far a phase is. */
export interface ProgressEvent {
  readonly phase: Phase;
  readonly done: number;
  readonly total: number;
}

/** A plan without its drivers and host, whose mode is a real one. */
export type RunOptions = Pick<RunPlan, 'workers' | 'seed' | 'profile' | 'fdtMax' | 'budget' | 'kexec'> & {
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
  readonly progress: (event: ProgressEvent) => void;
  readonly laneOf: (driver: number) => RunnerLane;
}

let runs = 0;

/** One handover under way: what it holds, and how far it is. */
export class HandoverRun {
  readonly #host: Host;
  readonly #options: RunOptions;
  readonly #choice: ModeChoice | undefined;
  readonly #registry: Registry;
  readonly #reservations: Reservations;
  readonly #recorder: TimelineRecorder;
  readonly #interrupt: Interrupt;
  readonly #progress: (event: ProgressEvent) => void;
  readonly #laneOf: (driver: number) => RunnerLane;
  readonly #id = `run-${++runs}`;
  /** Of FDT that the shards may write. */
  readonly #maxBytes: number;
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

  constructor(parts: HandoverRunParts) {
    const { host, options, registry, reservations, recorder, interrupt, laneOf } = parts;
    this.#host = host;
    this.#options = options;
    this.#choice = parts.choice;
    this.#registry = registry;
    this.#reservations = reservations;
    this.#recorder = recorder;
    this.#interrupt = interrupt;
    this.#progress = parts.progress;
    this.#laneOf = laneOf;
    this.#maxBytes = declaredLoad(registry.shards).bytes;
    const threads = options.workers + registry.drivers.length;
    this.#stage = Stage.create({ shardCount: registry.shards.length, maxBytes: this.#maxBytes, threads });
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

  /** Brownout: threads attach, memory is touched, drivers prepare, the boot record is loaded. */
  async prepare(epoch: bigint): Promise<void> {
    this.#recorder.step('prepare', 'touch the stage', () =>
      this.#stage.touch(2 * this.#maxBytes + (this.#options.workers + 1) * ARENA_BYTES),
    );
    await this.#loadKexec();
    const description = this.#describeRun(epoch);
    await Promise.race([this.#onRunners((runner) => runner.attach(description)), this.#interrupt.promise]);
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
    // From here on a phase begins at once. Other runs that share the pool wait until this one has jumped.
    await Promise.race([this.#onRunners((runner) => runner.standBy(this.#id)), this.#interrupt.promise]);
  }

  async #onRunners(work: (runner: TaskRunner) => Promise<void>): Promise<void> {
    const runners = new Set(this.#registry.drivers.map((_, driver) => this.#laneOf(driver).runner));
    await Promise.all([...runners].map(work));
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
    await this.#onRunners((runner) => runner.dismiss(this.#id));
    await this.#recorder.phase('snapshot', () =>
      this.#phases.run(this.#instanceWork(), {
        phase: 'snapshot',
        recordAs: 'snapshot',
        order: 'none',
        onItem: (instance, digests) => this.#digests.set(instance, digests as SnapshotDigests),
      }),
    );
    await this.#onRunners((runner) => runner.detach(this.#id));
    const finalized = this.#finalized;
    if (finalized === undefined) throw new KhoError('KHO_EINVAL', 'the run was not finalized');
    return new Handover({
      host: this.#host,
      plan: this.#options,
      ...(this.#choice && { choice: this.#choice }),
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
    await this.#onRunners((runner) => runner.dismiss(this.#id));
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
    await this.#onRunners((runner) => runner.detach(this.#id));
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
