import PQueue from 'p-queue';
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
  readonly priority: number;
}

/** How far a phase is. */
interface PhaseState {
  readonly options: PhaseOptions;
  readonly groups: readonly Group[];
  readonly failures: KhoError[];
  stopped: boolean;
}

/**
 * Spreads a phase's callbacks over threads, in the order that dependencies ask for.
 *
 * Drivers that wait for nobody, and nobody for them, make one group for each lane; every thread of the lane gets one
 * message for it and takes items until none is left. So a phase costs a message a thread, whatever the number of drivers.
 */
export class PhaseRunner {
  readonly #registry: Registry;
  readonly #recorder: TimelineRecorder;
  readonly #interrupt: Interrupt;
  readonly #laneOf: (driver: number) => RunnerLane;
  readonly #queues = new Map<RunnerLane, PQueue>();
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
    const groups = this.#groups(work, options.order);
    const state: PhaseState = { options, groups, failures: [], stopped: false };
    using _ = this.#reportProgress(state);
    const finished = new Map<number, Promise<void>>();
    for (const group of groups) {
      const before =
        options.order === 'none' ? [] : group.drivers.flatMap((driver) => this.#before(driver, options.order));
      const ready = Promise.all(before.map((other) => finished.get(other)));
      const done = ready.then(() => this.#runGroup(group, state));
      for (const driver of group.drivers) finished.set(driver, done);
    }
    const all = Promise.all(finished.values());
    await (options.interruptible === false ? all : this.#untilInterrupted(all, state));
    const [failure] = state.failures;
    if (failure !== undefined && options.collectFailures !== true) throw failure;
    if (options.interruptible !== false) this.#interrupt.check();
    return state.failures;
  }

  /** In an order in which each comes after all that it waits for. */
  #groups(work: readonly PhaseWork[], order: PhaseOptions['order']): Group[] {
    const items = new Map(work.map((entry) => [entry.driver, entry.items]));
    const drivers = order === 'backward' ? [...this.#registry.order].reverse() : this.#registry.order;
    const free = new Map<RunnerLane, number[]>();
    const alone: number[] = [];
    for (const driver of drivers) {
      if (order !== 'none' && this.#isConnected(driver)) {
        alone.push(driver);
        continue;
      }
      const lane = this.#laneOf(driver);
      free.set(lane, [...(free.get(lane) ?? []), driver]);
    }
    const members = [...free.values(), ...alone.map((driver) => [driver])];
    return members.map((group) => {
      const [first = 0] = group;
      const lane = this.#laneOf(first);
      const positions = Int32Array.from(group.flatMap((driver) => [...(items.get(driver) ?? [])]));
      const slots = Math.min(lane.threads, positions.length);
      const priority = this.#registry.drivers[first]?.priority ?? 0;
      return {
        lane,
        drivers: group,
        items: positions,
        list: WorkList.create(positions.length, slots),
        slots,
        priority,
      };
    });
  }

  #isConnected(driver: number): boolean {
    return this.#before(driver, 'forward').length > 0 || this.#before(driver, 'backward').length > 0;
  }

  /** The drivers whose part of the phase comes before that of `driver`. */
  #before(driver: number, order: PhaseOptions['order']): readonly number[] {
    const { drivers } = this.#registry;
    if (order === 'forward') return drivers[driver]?.after ?? [];
    return drivers.filter((other) => other.after.includes(driver)).map((other) => other.index);
  }

  async #runGroup(group: Group, state: PhaseState): Promise<void> {
    const queued = this.#recorder.now();
    const queue = this.#queue(group.lane);
    const { priority } = group;
    const slots = Array.from({ length: group.slots }, (_, slot) => slot);
    await Promise.all(slots.map((slot) => queue.add(() => this.#runSlot(group, slot, queued, state), { priority })));
  }

  /** One thread's part of a group. A thread that dies is a failure of the driver that ran on it. */
  async #runSlot(group: Group, slot: number, queued: number, state: PhaseState): Promise<void> {
    const { lane, items, list } = group;
    const { phase, collectFailures = false } = state.options;
    const { handle } = list;
    const task: CallbackTask = {
      kind: 'callback',
      runId: this.#runId,
      phase,
      items,
      list: handle,
      slot,
      collectFailures,
    };
    while (!state.stopped) {
      try {
        this.#note(await lane.runner.run(task), group, queued, state);
        return;
      } catch (error) {
        const position = list.current(slot);
        const lost = KhoError.from(error, 'KHO_EWORKER');
        state.failures.push(lost.with({ phase, ...this.#whose(phase, items[position ?? 0] ?? 0) }));
        if (!collectFailures) this.#stop(state);
        // What it had not begun is another thread's; one that dies before it takes anything would die again.
        if (position === undefined || list.taken === list.length) return;
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
  async #untilInterrupted(all: Promise<unknown>, state: PhaseState): Promise<void> {
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
        await Promise.all([...new Set(state.groups.map(({ lane }) => lane))].map((lane) => lane.runner.restart()));
        await all;
      }
      throw reason;
    }
  }

  #reportProgress({ options, groups }: PhaseState): Disposable {
    const { onProgress } = options;
    if (onProgress === undefined) return { [Symbol.dispose]() {} };
    const total = groups.reduce((sum, { list }) => sum + list.length, 0);
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

  #queue(lane: RunnerLane): PQueue {
    let queue = this.#queues.get(lane);
    if (queue === undefined) {
      queue = new PQueue({ concurrency: lane.threads });
      this.#queues.set(lane, queue);
    }
    return queue;
  }
}
