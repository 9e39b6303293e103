import { KhoError } from '../errors.js';
import { type CallbackTask, isOfShards, type TaskAnswer, type TaskPhase } from '../workers/index.js';
import { CallbackWatch, hungError, type LateCallback } from './callback-watch.js';
import type { Clock } from './clock.js';
import { CANCELLED, type Deadline } from './deadline.js';
import type { HandoverEvents } from './events.js';
import type { Interrupt } from './interrupt.js';
import { instanceOwner, type Registry, shardOwner } from './registry.js';
import type { TimelineRecorder } from './timeline.js';
import { type PhaseStep, type RunnerLane, WorkGroup } from './work-group.js';

/** How often progress is looked at, if somebody wants to know. */
const PROGRESS_MS = 100;

export interface PhaseOptions {
  /**
   * `level`: all steps of a lane that wait for nobody make one list, which all threads of the lane share. `step`: each step
   * has a list of its own and begins as soon as it may, on the threads of its lane that are free.
   */
  readonly grouping: 'level' | 'step';
  /** False where an interrupt must not stop it. */
  readonly interruptible?: boolean;
  readonly onItem: (phase: TaskPhase, item: number, value: unknown) => void;
  /** All items of a step have ended, well or not. */
  readonly onStep?: (step: PhaseStep) => void;
  readonly onProgress?: (done: number, total: number) => void;
}

/** How far a phase is. */
interface PhaseState {
  readonly options: PhaseOptions;
  /** Those that have begun. */
  readonly groups: WorkGroup[];
  readonly total: number;
  readonly failures: KhoError[];
  /** The first failure of a step that does not collect them. */
  failure?: KhoError;
  stopped: boolean;
}

export interface PhaseRunnerParts {
  readonly runId: string;
  readonly registry: Registry;
  readonly recorder: TimelineRecorder;
  readonly interrupt: Interrupt;
  readonly laneOf: (driver: number) => RunnerLane;
  readonly clock: Clock;
  readonly deadline: Deadline;
  readonly events: HandoverEvents;
  /** Milliseconds after which a callback has hung, and its thread is ended. */
  readonly callbackLimit: number;
  /** How long callbacks may go on after a run was interrupted, before their threads are ended. */
  readonly grace: number;
}

/**
 * Spreads callbacks over threads, in the order that dependencies ask for.
 *
 * Every thread gets one message for each group of work and takes items until none is left. By level a phase costs a message
 * a thread for each level of dependencies, whatever the number of drivers.
 */
export class PhaseRunner {
  readonly #parts: PhaseRunnerParts;

  constructor(parts: PhaseRunnerParts) {
    this.#parts = parts;
  }

  /**
   * Runs all steps. Resolves with the failures of those that collect them; throws the first failure of another one, once
   * every callback that had begun has ended. An interrupt ends it the same way; callbacks that do not end within the grace
   * period, or hang, are ended with their threads.
   */
  async run(steps: readonly PhaseStep[], options: PhaseOptions): Promise<KhoError[]> {
    const total = steps.reduce((sum, { items }) => sum + items.length, 0);
    const state: PhaseState = { options, groups: [], failures: [], total, stopped: false };
    using _progress = this.#reportProgress(state);
    using _watch = this.#watch(steps, state);
    const all = this.#runAll(steps, state);
    await (options.interruptible === false ? all : this.#untilInterrupted(all, state));
    if (state.failure !== undefined) throw state.failure;
    if (options.interruptible !== false) this.#parts.interrupt.check();
    return state.failures;
  }

  /** Begins a group whenever threads are free and a step of theirs need not wait any more. Rejects never. */
  #runAll(steps: readonly PhaseStep[], state: PhaseState): Promise<void> {
    const waiting = new Set(steps);
    const unfinished = new Set(steps);
    const busy = new Map<RunnerLane, number>();
    const isReady = ({ after }: PhaseStep): boolean => !after.some((other) => unfinished.has(other));
    const isLevel = state.options.grouping === 'level';
    let running = 0;
    return new Promise((resolve) => {
      const start = (lane: RunnerLane, members: readonly PhaseStep[]): void => {
        const free = lane.threads - (busy.get(lane) ?? 0);
        const group = new WorkGroup(lane, members, free, this.#parts.recorder.now());
        // A level has its lane for itself, even if there is nothing to do.
        const taken = isLevel ? lane.threads : group.slots;
        busy.set(lane, (busy.get(lane) ?? 0) + taken);
        for (const step of members) waiting.delete(step);
        state.groups.push(group);
        running++;
        void this.#runGroup(group, state).then(() => {
          running--;
          busy.set(lane, (busy.get(lane) ?? 0) - taken);
          for (const step of members) {
            unfinished.delete(step);
            this.#stepDone(step, state);
          }
          begin();
        });
      };
      const begin = (): void => {
        const levels = new Map<RunnerLane, PhaseStep[]>();
        for (const step of state.stopped ? [] : [...waiting]) {
          const lane = this.#parts.laneOf(step.driver);
          const taken = busy.get(lane) ?? 0;
          const isFree = isLevel ? taken === 0 : taken < lane.threads || step.items.length === 0;
          if (!isFree || !isReady(step)) continue;
          if (isLevel) levels.set(lane, [...(levels.get(lane) ?? []), step]);
          else start(lane, [step]);
        }
        for (const [lane, members] of levels) start(lane, members);
        if (running === 0) resolve();
      };
      begin();
    });
  }

  /** What comes after a step may find that the run is over: then so is this phase. */
  #stepDone(step: PhaseStep, state: PhaseState): void {
    try {
      state.options.onStep?.(step);
    } catch (error) {
      state.failure ??= KhoError.from(error);
      this.#stop(state);
    }
  }

  /** Runs what is in a group, and ends when none of its callbacks runs any more. Rejects never. */
  async #runGroup(group: WorkGroup, state: PhaseState): Promise<void> {
    const { runner } = group.lane;
    const tasks = Array.from({ length: group.slots }, (_, slot) => this.#task(group, slot));
    const answers = state.options.grouping === 'level' ? runner.runAll(tasks) : tasks.map((task) => runner.run(task));
    await Promise.all(answers.map((answer, slot) => this.#runSlot(group, slot, answer, state)));
    this.#parts.events.driversDone(group, this.#parts.registry, this.#parts.recorder.now());
  }

  #task({ phase, items, list, collectFailures }: WorkGroup, slot: number): CallbackTask {
    return { kind: 'callback', runId: this.#parts.runId, phase, items, list: list.handle, slot, collectFailures };
  }

  /** One thread's part of a group. A thread that dies is a failure of the driver that ran on it. */
  async #runSlot(group: WorkGroup, slot: number, first: Promise<TaskAnswer>, state: PhaseState): Promise<void> {
    const { lane, items, list, phase } = group;
    for (let answer = first; ; answer = lane.runner.run(this.#task(group, slot))) {
      try {
        this.#note(await answer, group, state);
        return;
      } catch (error) {
        const position = list.current(slot);
        this.#noteLost(group, state);
        const whose = this.#whose(phase, items[position ?? 0] ?? 0);
        const isHung = position !== undefined && group.hung.get(slot) === position;
        const lost = isHung
          ? hungError(phase, whose.instance, this.#parts.callbackLimit)
          : KhoError.from(error, 'KHO_EWORKER');
        this.#fail(lost.with({ phase, ...whose }), group, state);
        // What it had not begun is another thread's; one that dies before it takes anything would die again.
        if (state.stopped || position === undefined || list.taken === list.length) return;
        list.leave(slot);
      }
    }
  }

  /** A freeze that had succeeded must be undone, though the thread died before it could tell. */
  #noteLost({ phase, items, list }: WorkGroup, { options }: PhaseState): void {
    if (phase !== 'freeze') return;
    for (const [position, item] of items.entries()) {
      if (list.isFinished(position)) options.onItem(phase, item, undefined);
    }
  }

  #fail(error: KhoError, { collectFailures }: WorkGroup, state: PhaseState): void {
    if (collectFailures) {
      state.failures.push(error);
      return;
    }
    state.failure ??= error;
    this.#stop(state);
  }

  #note(answer: TaskAnswer, group: WorkGroup, state: PhaseState): void {
    const { positions = new Int32Array(0), spans, values, failures } = answer;
    for (const { error } of failures) this.#fail(KhoError.from(error), group, state);
    for (const [index, position] of positions.entries()) {
      if (group.list.isFinished(position))
        state.options.onItem(group.phase, group.items[position] as number, values[index]);
    }
    const { lane } = group;
    const thread = this.#parts.recorder.thread({
      role: lane.role,
      threadId: answer.threadId,
      ...(lane.driver === undefined ? {} : { driver: lane.driver }),
    });
    this.#parts.recorder.addLater(() =>
      Array.from(positions, (position, index) => ({
        phase: group.recordAs,
        ...this.#whose(group.phase, group.items[position] as number),
        thread,
        queued: group.queued,
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
    const { interrupt, clock, grace } = this.#parts;
    try {
      await Promise.race([all, interrupt.promise]);
    } catch (reason) {
      this.#stop(state);
      using _ = clock.timer(grace, () => this.#endAll(state));
      await all;
      throw reason;
    }
  }

  /** Ends the threads whose callbacks have not returned. */
  #endAll({ groups }: PhaseState): void {
    for (const group of groups) {
      for (let slot = 0; slot < group.slots; slot++) {
        const position = group.list.current(slot);
        if (position !== undefined) this.#endThread({ group, slot, position });
      }
    }
  }

  #endThread({ group, slot, position }: LateCallback): void {
    group.hung.set(slot, position);
    void group.lane.runner.endThread(group.list.threadOf(slot));
  }

  #watch(steps: readonly PhaseStep[], state: PhaseState): CallbackWatch {
    const { clock, callbackLimit, deadline, interrupt } = this.#parts;
    const drivers = [...new Set(steps.map(({ driver }) => driver))];
    return new CallbackWatch(state.groups, drivers, {
      clock,
      limit: callbackLimit,
      budgetOf: (driver) => (state.options.interruptible === false ? undefined : deadline.budgetOf(driver)),
      progressEvery: deadline.progressEvery,
      onLook: () => deadline.progress(done(state), state.total),
      onHung: (late) => this.#endThread(late),
      onOverBudget: ({ group, position }) => {
        const whose = this.#whose(group.phase, group.items[position] as number);
        const budget = deadline.budgetOf(group.driverOf(position));
        const text = `${group.phase} of ${whose.instance} took longer than the ${budget} ms that its driver has for a callback${CANCELLED}`;
        interrupt.end(new KhoError('KHO_ETIMEDOUT', text, { phase: group.phase, field: 'budget', ...whose }));
      },
    });
  }

  #reportProgress(state: PhaseState): Disposable {
    const { onProgress } = state.options;
    if (onProgress === undefined) return { [Symbol.dispose]() {} };
    const report = (): void => onProgress(done(state), state.total);
    const timer = setInterval(report, PROGRESS_MS);
    return {
      [Symbol.dispose]() {
        clearInterval(timer);
        report();
      },
    };
  }

  #whose(phase: TaskPhase, item: number): { driver: string; instance: string; shard?: number } {
    const { registry } = this.#parts;
    return isOfShards(phase) ? shardOwner(registry, item) : instanceOwner(registry, item);
  }
}

function done({ groups }: PhaseState): number {
  return groups.reduce((sum, { list }) => sum + list.taken, 0);
}
