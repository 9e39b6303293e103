import { type TaskPhase, type TaskRunner, WorkList } from '../workers/index.js';
import type { Phase, TimelineThread } from './timeline.js';

/** A runner with what the coordinator knows of it. */
export interface RunnerLane {
  readonly runner: TaskRunner;
  readonly threads: number;
  readonly role: TimelineThread['role'];
  /** Of a host: the driver that lives there. */
  readonly driver?: string;
}

/** One driver's part of a phase. */
export interface PhaseStep {
  readonly driver: number;
  readonly phase: TaskPhase;
  /** The phase under which the timeline counts it. */
  readonly recordAs: Phase;
  /** Instances, or shards: see isOfShards. */
  readonly items: readonly number[];
  /** The steps that must have ended before it begins. */
  readonly after: readonly PhaseStep[];
  /** True to go on after a failure, and collect it. */
  readonly collectFailures?: boolean;
}

/** Steps of one phase that one lane's threads share out among themselves. */
export class WorkGroup {
  readonly lane: RunnerLane;
  readonly steps: readonly PhaseStep[];
  readonly phase: TaskPhase;
  readonly recordAs: Phase;
  readonly collectFailures: boolean;
  readonly items: Int32Array;
  readonly list: WorkList;
  /** How many threads take part. */
  readonly slots: number;
  /** By slot: the position at which its thread was ended, because it had hung. */
  readonly hung = new Map<number, number>();
  /** Milliseconds since the run began when it could begin. */
  readonly queued: number;

  /** `steps` are of one phase, and at least one. */
  constructor(lane: RunnerLane, steps: readonly PhaseStep[], threads: number, queued: number) {
    const [first] = steps;
    if (first === undefined) throw new RangeError('a group has at least one step');
    this.lane = lane;
    this.steps = steps;
    this.phase = first.phase;
    this.recordAs = first.recordAs;
    this.collectFailures = first.collectFailures === true;
    this.items = Int32Array.from(steps.flatMap(({ items }) => items));
    this.slots = Math.min(threads, this.items.length);
    this.list = WorkList.create(this.items.length, this.slots);
    this.queued = queued;
  }

  /** The driver whose item stands at a position. */
  driverOf(position: number): number {
    let end = 0;
    for (const { driver, items } of this.steps) {
      end += items.length;
      if (position < end) return driver;
    }
    return -1;
  }
}
