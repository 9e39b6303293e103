import PQueue from 'p-queue';
import { KhoError } from '../errors.js';
import type { CallbackTask, TaskAnswer, TaskPhase, TaskRunner } from '../workers/index.js';
import type { Interrupt } from './interrupt.js';
import type { Registry } from './registry.js';
import type { Phase, TimelineRecorder, TimelineThread } from './timeline.js';

/** Items of one driver are cut into about this many tasks for each thread, so that threads end at about the same time. */
const TASKS_PER_THREAD = 4;
/** How long tasks may go on after a run was interrupted, before their threads are ended. */
const GRACE_MS = 2000;

/** A runner with the queue in front of it. */
export interface RunnerLane {
  readonly runner: TaskRunner;
  readonly threads: number;
  readonly role: TimelineThread['role'];
  /** Of a host: the driver that lives there. */
  readonly driver?: string;
}

/** Items of one driver that a phase works through. */
export interface PhaseWork {
  readonly driver: number;
  readonly items: readonly number[];
}

export interface PhaseOptions {
  readonly phase: TaskPhase;
  /** The phase under which the timeline counts it. */
  readonly recordAs: Phase;
  /** `forward`: after its dependencies; `backward`: after what depends on it; `none`: all at once. */
  readonly order: 'forward' | 'backward' | 'none';
  /** True to go on with the rest after a failure, and collect all of them: rolling back must reach everyone. */
  readonly collectFailures?: boolean;
  /** False where an interrupt must not stop it. */
  readonly interruptible?: boolean;
  readonly onItem: (item: number, value: unknown) => void;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Spreads a phase's callbacks over threads, in the order that dependencies ask for. */
export class PhaseRunner {
  readonly #registry: Registry;
  readonly #recorder: TimelineRecorder;
  readonly #interrupt: Interrupt;
  readonly #laneOf: (driver: number) => RunnerLane;
  readonly #prepared: ReadonlyMap<number, unknown>;
  readonly #queues = new Map<RunnerLane, PQueue>();
  readonly #runId: string;

  constructor(options: {
    runId: string;
    registry: Registry;
    recorder: TimelineRecorder;
    interrupt: Interrupt;
    laneOf: (driver: number) => RunnerLane;
    prepared: ReadonlyMap<number, unknown>;
  }) {
    this.#runId = options.runId;
    this.#registry = options.registry;
    this.#recorder = options.recorder;
    this.#interrupt = options.interrupt;
    this.#laneOf = options.laneOf;
    this.#prepared = options.prepared;
  }

  /**
   * Runs one phase of all `work`. Resolves with the failures if they are collected; else throws the first one, once
   * every task that had begun has ended. An interrupt ends it the same way; tasks that do not end within the grace
   * period lose their thread.
   */
  async run(work: readonly PhaseWork[], options: PhaseOptions): Promise<KhoError[]> {
    const failures: KhoError[] = [];
    const total = work.reduce((sum, { items }) => sum + items.length, 0);
    const state = { stopped: false, done: 0 };
    const finished = new Map<number, Promise<unknown>>();
    const items = new Map(work.map((entry) => [entry.driver, entry.items]));
    const order = options.order === 'backward' ? [...this.#registry.order].reverse() : this.#registry.order;
    for (const driver of order) {
      const first = options.order === 'none' ? [] : this.#before(driver, options.order);
      const ready = Promise.all(first.map((other) => finished.get(other)));
      finished.set(
        driver,
        ready.then(() => this.#runDriver(driver, items.get(driver) ?? [], options, state, failures, total)),
      );
    }
    const all = Promise.all(finished.values());
    await (options.interruptible === false ? all : this.#untilInterrupted(all, state, work));
    if (failures[0] !== undefined && options.collectFailures !== true) throw failures[0];
    if (options.interruptible !== false) this.#interrupt.check();
    return failures;
  }

  /** The drivers whose part of the phase comes before that of `driver`. */
  #before(driver: number, order: 'forward' | 'backward'): readonly number[] {
    const { drivers } = this.#registry;
    if (order === 'forward') return drivers[driver]?.after ?? [];
    return drivers.filter((other) => other.after.includes(driver)).map((other) => other.index);
  }

  async #runDriver(
    driver: number,
    items: readonly number[],
    options: PhaseOptions,
    state: { stopped: boolean; done: number },
    failures: KhoError[],
    total: number,
  ): Promise<void> {
    const lane = this.#laneOf(driver);
    const queued = this.#recorder.now();
    const size = Math.max(1, Math.ceil(items.length / (lane.threads * TASKS_PER_THREAD)));
    const batches: number[][] = [];
    for (let start = 0; start < items.length; start += size) batches.push(items.slice(start, start + size));
    const priority = this.#registry.drivers[driver]?.priority ?? 0;
    await Promise.all(
      batches.map((batch) =>
        this.#queue(lane).add(
          async () => {
            let rest = batch;
            while (rest.length > 0 && !state.stopped) {
              const answer = await this.#runBatch(lane, rest, options, failures);
              if (answer === undefined) break;
              this.#note(answer, rest, options, lane, queued);
              state.done += answer.spans.length / 2;
              options.onProgress?.(state.done, total);
              if (answer.failure === undefined) break;
              failures.push(KhoError.from(answer.failure.error));
              if (options.collectFailures !== true) state.stopped = true;
              rest = rest.slice(answer.failure.position + 1);
            }
          },
          { priority },
        ),
      ),
    );
    if (failures.length > 0 && options.collectFailures !== true) state.stopped = true;
  }

  /** One task; a thread that dies is a failure of the driver that ran on it. */
  async #runBatch(
    lane: RunnerLane,
    items: readonly number[],
    options: PhaseOptions,
    failures: KhoError[],
  ): Promise<TaskAnswer | undefined> {
    const task: CallbackTask = {
      kind: 'callback',
      runId: this.#runId,
      phase: options.phase,
      items,
      prepared: items.map((item) => this.#prepared.get(this.#instanceOf(options.phase, item))),
    };
    try {
      return await lane.runner.run(task);
    } catch (error) {
      const driver = this.#registry.instances[this.#instanceOf(options.phase, items[0] ?? 0)]?.driver ?? 0;
      const name = this.#registry.drivers[driver]?.name ?? '';
      failures.push(KhoError.from(error, 'KHO_EWORKER').with({ driver: name, phase: options.phase }));
      return undefined;
    }
  }

  #note(answer: TaskAnswer, items: readonly number[], options: PhaseOptions, lane: RunnerLane, queued: number): void {
    const thread = this.#recorder.thread({
      role: lane.role,
      threadId: answer.threadId,
      ...(lane.driver === undefined ? {} : { driver: lane.driver }),
    });
    const failed = answer.failure?.position;
    for (const [position, item] of items.entries()) {
      if (position * 2 >= answer.spans.length) break;
      const index = this.#instanceOf(options.phase, item);
      const instance = this.#registry.instances[index];
      if (instance === undefined) continue;
      this.#recorder.add({
        phase: options.recordAs,
        driver: this.#registry.drivers[instance.driver]?.name ?? '',
        instance: instance.name,
        ...(options.phase === 'serialize' ? { shard: item - instance.firstShard } : {}),
        thread,
        queued,
        start: answer.spans[position * 2] as number,
        end: answer.spans[position * 2 + 1] as number,
      });
      if (position !== failed) options.onItem(item, answer.values[position]);
    }
  }

  /** Waits for the phase, or for an interrupt: then no new task begins, and those that do not end are ended. */
  async #untilInterrupted(
    all: Promise<unknown>,
    state: { stopped: boolean },
    work: readonly PhaseWork[],
  ): Promise<void> {
    try {
      await Promise.race([all, this.#interrupt.promise]);
    } catch (reason) {
      state.stopped = true;
      let timer: NodeJS.Timeout | undefined;
      const grace = new Promise<'late'>((resolve) => {
        timer = setTimeout(resolve, GRACE_MS, 'late');
      });
      const outcome = await Promise.race([all.then(() => 'ended'), grace]).finally(() => clearTimeout(timer));
      if (outcome === 'late') {
        await Promise.all(
          [...new Set(work.map(({ driver }) => this.#laneOf(driver)))].map((lane) => lane.runner.restart()),
        );
        await all;
      }
      throw reason;
    }
  }

  #instanceOf(phase: TaskPhase, item: number): number {
    return phase === 'serialize' ? (this.#registry.shards[item]?.instance ?? 0) : item;
  }

  #queue(lane: RunnerLane): PQueue {
    let queue = this.#queues.get(lane);
    if (queue === undefined) {
      queue = new PQueue({ concurrency: lane.threads });
      this.#queues.set(lane, queue);
    }
    return queue;
  }
}
