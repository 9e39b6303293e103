import type { MessagePort } from 'node:worker_threads';
import type { SerializedKhoError } from '../errors.js';
import type { FdtFrame } from '../hashstage/index.js';
import type { ShardSpec } from './driver.js';
import type { DriverModule, RunDescription } from './run-description.js';
import type { WorkListHandle } from './work-list.js';

/** The driver callbacks that tasks run; `snapshot` digests the frozen state, `check` looks for late writes. */
export type TaskPhase =
  | 'create'
  | 'prepare'
  | 'update'
  | 'shutdown'
  | 'freeze'
  | 'serialize'
  | 'check'
  | 'snapshot'
  | 'unfreeze'
  | 'cancel';

/** Whether a phase's items are shards, not instances. */
export function isOfShards(phase: TaskPhase): boolean {
  return phase === 'serialize' || phase === 'check';
}

/** Callbacks that a driver may leave out, and that are then not asked for. */
export const SKIPPED_CALLBACKS = ['update', 'shutdown', 'unfreeze'] as const;
export type SkippedCallback = (typeof SKIPPED_CALLBACKS)[number];

/**
 * Imports the drivers' modules and asks them what their instances are and need. It runs on a worker, as all code of
 * drivers does, so that a module that hangs cannot take the main thread with it.
 */
export interface DescribeTask {
  readonly kind: 'describe';
  readonly registrations: readonly {
    readonly module: DriverModule;
    readonly count: number;
    readonly options: unknown;
  }[];
  /** A word: the registration that is asked at the moment. Written by the worker; read when it does not answer. */
  readonly current: SharedArrayBuffer;
}

/** What a driver says of one registration; the values of a {@link DescribeTask}'s answer. */
export interface DescribedRegistration {
  readonly name: string;
  readonly compatible: string;
  readonly hosted: boolean;
  readonly blob: 'fdt' | 'raw';
  /** Which of {@link SKIPPED_CALLBACKS} it has. */
  readonly callbacks: readonly SkippedCallback[];
  readonly instances: readonly {
    readonly name: string;
    readonly index: number;
    readonly shards: readonly ShardSpec[];
  }[];
}

/** Makes a thread take part in a run: loads the drivers' modules, maps the shared memory. */
export interface AttachTask {
  readonly kind: 'attach';
  readonly description: RunDescription;
  /** Ids of the runs that are not over, this one too; the thread forgets all others and what they hold. */
  readonly alive: readonly string[];
  /** Threads that must have arrived before any returns: so each thread of a pool gets exactly one of these tasks. */
  readonly barrier?: { readonly arrived: SharedArrayBuffer; readonly threads: number };
}

/** Tells a thread what every instance's `prepare` returned; later callbacks of the run find it there. */
export interface PreparedTask {
  readonly kind: 'prepared';
  readonly runId: string;
  readonly prepared: ReadonlyMap<number, unknown>;
  readonly barrier?: AttachTask['barrier'];
}

/** Runs one callback for each item that this thread takes from a list which other threads may share. */
export interface CallbackTask {
  readonly kind: 'callback';
  readonly runId: string;
  readonly phase: TaskPhase;
  /** Instance indexes, or shard indexes where {@link isOfShards}. By position in the list. */
  readonly items: Int32Array;
  readonly list: WorkListHandle;
  /** The thread's slot in the list. */
  readonly slot: number;
  /** True to go on after a failure; else it closes the list for all. */
  readonly collectFailures: boolean;
}

/** Keeps a thread at hand for the tasks that its port brings, a round of the gate for each. */
export interface StandByTask {
  readonly kind: 'stand-by';
  readonly runId: string;
  readonly gate: SharedArrayBuffer;
  readonly slot: number;
  readonly port: MessagePort;
  readonly barrier: NonNullable<AttachTask['barrier']>;
}

/** An FDT to be written into physical memory, from its frame and what shards wrote. */
export interface RoomToRender {
  readonly frame: FdtFrame;
  readonly address: number;
  /** Bytes. */
  readonly room: number;
}

/** Mode `sequential` only: writes FDTs, one after another, until one fails. */
export interface RenderTask {
  readonly kind: 'render';
  readonly runId: string;
  readonly jobs: readonly RoomToRender[];
}

export type Task = StandByTask | DescribeTask | AttachTask | PreparedTask | CallbackTask | RenderTask;

/** What came of a task. A driver's error is an answer; a rejected task means that the thread itself failed. */
export interface TaskAnswer {
  readonly threadId: number;
  /** False if the thread does not know the run (it was replaced): attach it and ask again. */
  readonly attached: boolean;
  /** Of a {@link CallbackTask}: the positions that the thread took, in that order. */
  readonly positions?: Int32Array;
  /** Start and end of each of them (else of the task), in milliseconds since the run's epoch. */
  readonly spans: Float64Array;
  /** What each of them returned: `prepared`, {@link SnapshotDigests}, {@link RenderedFrame}, {@link LateWrite}s. Empty if nothing did. */
  readonly values: readonly unknown[];
  /** Positions that failed: in the list, or of the registration that was described. */
  readonly failures: readonly { readonly position: number; readonly error: SerializedKhoError }[];
}

/** What `snapshot` of an instance came to. */
export interface SnapshotDigests {
  /** SHA-256 of the snapshot. */
  readonly state: string;
  /** What the driver's `digests` says, if it has one. */
  readonly contents?: Readonly<Record<string, string>>;
}
