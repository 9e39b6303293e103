import { KhoError } from '../errors.js';
import { type CallbackTask, type TaskAnswer, type TaskPhase, type TaskRunner, WorkList } from '../workers/index.js';
import type { Interrupt } from './interrupt.js';
import type { Registry } from './registry.js';
import type { Phase, TimelineRecorder, TimelineThread } from './timeline.js';

/** How long tasks may go on after a run was interrupted, before their threads are ended. */
const GRACE_MS = 2000;
/** How often progress is looked at, if somebody wants to know. */
const PROGRESS_MS = 100;

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

/** Items that one lane's threads share out among themselves. */
interface Group {
  readonly lane: RunnerLane;
  readonly drivers: readonly number[];
  readonly items: Int32Array;
  readonly list: WorkList;
  readonly slots: number;
}

/** How far a phase is. */
interface PhaseState {
  readonly options: PhaseOptions;
  /** Those that have begun. */
  readonly groups: Group[];
  readonly total: number;
  readonly failures: KhoError[];
  stopped: boolean;
}

/**
 * Spreads a phase's callbacks over threads, in the order that dependencies ask for.
 *
 * All drivers of a lane that wait for nobody make one group; every thread of the lane gets one message for it and takes
 * items until none is left. When the group is done, those that waited for it alone make the next one. So a phase costs a
 * message a thread for each level of dependencies, whatever the number of drivers.
 */
export class PhaseRunner {
  readonly #registry: Registry;
  readonly #recorder: TimelineRecorder;
  readonly #interrupt: Interrupt;
  readonly #laneOf: (driver: number) => RunnerLane;
  readonly #runId: string;

  constructor(options: {
    runId: string;
    registry: Registry;
    recorder: TimelineRecorder;
    interrupt: Interrupt;
    laneOf: (driver: number) => RunnerLane;
  }) {
    this.#runId = options.runId;
    this.#registry = options.registry;
    this.#recorder = options.recorder;
    this.#interrupt = options.interrupt;
    this.#laneOf = options.laneOf;
  }

  /**
   * Runs one phase of all `work`. Resolves with the failures if they are collected; else throws the first one, once
   * every callback that had begun has ended. An interrupt ends it the same way; threads that do not end their callback
   * within the grace period are ended.
   */
  async run(work: readonly PhaseWork[], options: PhaseOptions): Promise<KhoError[]> {
    const total = work.reduce((sum, { items }) => sum + items.length, 0);
    const state: PhaseState = { options, groups: [], failures: [], total, stopped: false };
    using _ = this.#reportProgress(state);
    const all = this.#runAll(work, state);
    await (options.interruptible === false ? all : this.#untilInterrupted(all, state, work));
    const [failure] = state.failures;
    if (failure !== undefined && options.collectFailures !== true) throw failure;
    if (options.interruptible !== false) this.#interrupt.check();
    return state.failures;
  }

  /** Begins a group whenever a lane is free and a driver of it need not wait any more. Rejects never. */
  #runAll(work: readonly PhaseWork[], state: PhaseState): Promise<void> {
    const { order } = state.options;
    const items = new Map(work.map((entry) => [entry.driver, entry.items]));
    const waiting = new Set(order === 'backward' ? [...this.#registry.order].reverse() : this.#registry.order);
    const unfinished = new Set(waiting);
    const busy = new Set<RunnerLane>();
    const isReady = (driver: number): boolean => !this.#before(driver, order).some((other) => unfinished.has(other));
    return new Promise((resolve) => {
      const begin = (): void => {
        const ready = new Map<RunnerLane, number[]>();
        for (const driver of state.stopped ? [] : waiting) {
          const lane = this.#laneOf(driver);
          if (busy.has(lane) || !isReady(driver)) continue;
          ready.set(lane, [...(ready.get(lane) ?? []), driver]);
        }
        for (const [lane, drivers] of ready) {
          busy.add(lane);
          for (const driver of drivers) waiting.delete(driver);
          const group = groupOf(lane, drivers, items);
          state.groups.push(group);
          void this.#runGroup(group, state).then(() => {
            busy.delete(lane);
            for (const driver of drivers) unfinished.delete(driver);
            begin();
          });
        }
        if (busy.size === 0) resolve();
      };
      begin();
    });
  }

  /** The drivers whose part of the phase comes before that of `driver`. */
  #before(driver: number, order: PhaseOptions['order']): readonly number[] {
    const { drivers } = this.#registry;
    if (order === 'none') return [];
    if (order === 'forward') return drivers[driver]?.after ?? [];
    return drivers.filter((other) => other.after.includes(driver)).map((other) => other.index);
  }

  /** Runs what is in a group, and ends when none of its callbacks runs any more. Rejects never. */
  async #runGroup(group: Group, state: PhaseState): Promise<void> {
    const queued = this.#recorder.now();
    const tasks = Array.from({ length: group.slots }, (_, slot) => this.#task(group, slot, state.options));
    const answers = group.lane.runner.runAll(tasks);
    await Promise.all(answers.map((answer, slot) => this.#runSlot(group, slot, answer, queued, state)));
  }

  #task({ items, list }: Group, slot: number, options: PhaseOptions): CallbackTask {
    const { phase, collectFailures = false } = options;
    return { kind: 'callback', runId: this.#runId, phase, items, list: list.handle, slot, collectFailures };
  }

  /** One thread's part of a group. A thread that dies is a failure of the driver that ran on it. */
  async #runSlot(
    group: Group,
    slot: number,
    first: Promise<TaskAnswer>,
    queued: number,
    state: PhaseState,
  ): Promise<void> {
    const { lane, items, list } = group;
    const { phase, collectFailures = false } = state.options;
    for (let answer = first; ; answer = lane.runner.run(this.#task(group, slot, state.options))) {
      try {
        this.#note(await answer, group, queued, state);
        return;
      } catch (error) {
        const position = list.current(slot);
        const lost = KhoError.from(error, 'KHO_EWORKER');
        state.failures.push(lost.with({ phase, ...this.#whose(phase, items[position ?? 0] ?? 0) }));
        if (!collectFailures) this.#stop(state);
        // What it had not begun is another thread's; one that dies before it takes anything would die again.
        if (state.stopped || position === undefined || list.taken === list.length) return;
        list.leave(slot);
      }
    }
  }

  #note(answer: TaskAnswer, group: Group, queued: number, state: PhaseState): void {
    const { options } = state;
    const { positions = new Int32Array(0), spans, values, failures } = answer;
    const failed = new Set(failures.map(({ position }) => position));
    for (const { error } of failures) state.failures.push(KhoError.from(error));
    if (failures.length > 0 && options.collectFailures !== true) this.#stop(state);
    for (const [index, position] of positions.entries()) {
      if (!failed.has(position)) options.onItem(group.items[position] as number, values[index]);
    }
    const { lane } = group;
    const thread = this.#recorder.thread({
      role: lane.role,
      threadId: answer.threadId,
      ...(lane.driver === undefined ? {} : { driver: lane.driver }),
    });
    this.#recorder.addLater(() =>
      Array.from(positions, (position, index) => ({
        phase: options.recordAs,
        ...this.#whose(options.phase, group.items[position] as number),
        thread,
        queued,
        start: spans[index * 2] as number,
        end: spans[index * 2 + 1] as number,
      })),
    );
  }

  /** No new callback begins. */
  #stop(state: PhaseState): void {
    state.stopped = true;
    for (const { list } of state.groups) list.close();
  }

  /** Waits for the phase, or for an interrupt: then no new callback begins, and those that do not end are ended. */
  async #untilInterrupted(all: Promise<unknown>, state: PhaseState, work: readonly PhaseWork[]): Promise<void> {
    try {
      await Promise.race([all, this.#interrupt.promise]);
    } catch (reason) {
      this.#stop(state);
      let timer: NodeJS.Timeout | undefined;
      const grace = new Promise<'late'>((resolve) => {
        timer = setTimeout(resolve, GRACE_MS, 'late');
      });
      const outcome = await Promise.race([all.then(() => 'ended'), grace]).finally(() => clearTimeout(timer));
      if (outcome === 'late') {
        const lanes = new Set(work.map(({ driver }) => this.#laneOf(driver)));
        await Promise.all([...lanes].map((lane) => lane.runner.restart()));
        await all;
      }
      throw reason;
    }
  }

  #reportProgress({ options, groups, total }: PhaseState): Disposable {
    const { onProgress } = options;
    if (onProgress === undefined) return { [Symbol.dispose]() {} };
    const report = (): void =>
      onProgress(
        groups.reduce((sum, { list }) => sum + list.taken, 0),
        total,
      );
    const timer = setInterval(report, PROGRESS_MS);
    return {
      [Symbol.dispose]() {
        clearInterval(timer);
        report();
      },
    };
  }

  #whose(phase: TaskPhase, item: number): { driver: string; instance: string; shard?: number } {
    const index = phase === 'serialize' ? (this.#registry.shards[item]?.instance ?? 0) : item;
    const instance = this.#registry.instances[index];
    return {
      driver: this.#registry.drivers[instance?.driver ?? 0]?.name ?? '',
      instance: instance?.name ?? '',
      ...(phase === 'serialize' ? { shard: item - (instance?.firstShard ?? 0) } : {}),
    };
  }
}

function groupOf(lane: RunnerLane, drivers: readonly number[], items: ReadonlyMap<number, readonly number[]>): Group {
  const all = Int32Array.from(drivers.flatMap((driver) => items.get(driver) ?? []));
  const slots = Math.min(lane.threads, all.length);
  return { lane, drivers, items: all, list: WorkList.create(all.length, slots), slots };
}
