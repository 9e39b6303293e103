import type { SerializedKhoError } from '../errors.js';
import type { FdtFrame } from '../hashstage/index.js';
import type { ShardSpec } from './driver.js';
import type { DriverModule, RunDescription } from './run-description.js';

/** The driver callbacks that tasks run; `snapshot` digests the frozen state. */
export type TaskPhase = 'create' | 'prepare' | 'freeze' | 'serialize' | 'snapshot' | 'cancel';

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
}

/** What a driver says of one registration; the values of a {@link DescribeTask}'s answer. */
export interface DescribedRegistration {
  readonly name: string;
  readonly compatible: string;
  readonly hosted: boolean;
  readonly blob: 'fdt' | 'raw';
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
  /** Threads that must have arrived before any returns: so each thread of a pool gets exactly one of these tasks. */
  readonly barrier?: { readonly arrived: SharedArrayBuffer; readonly threads: number };
}

/** Runs one callback for each item, one after another. */
export interface CallbackTask {
  readonly kind: 'callback';
  readonly runId: string;
  readonly phase: TaskPhase;
  /** Instance indexes; shard indexes in `serialize`. */
  readonly items: readonly number[];
  /** For each item what its instance's `prepare` returned. */
  readonly prepared: readonly unknown[];
}

/** Mode `sequential` only: writes an FDT from its frame and the trees of shards into physical memory. */
export interface RenderTask {
  readonly kind: 'render';
  readonly runId: string;
  readonly frame: FdtFrame;
  readonly address: number;
  /** Bytes. */
  readonly room: number;
}

export type Task = DescribeTask | AttachTask | CallbackTask | RenderTask;

/** What came of a task. A driver's error is an answer; a rejected task means that the thread itself failed. */
export interface TaskAnswer {
  readonly threadId: number;
  /** False if the thread does not know the run (it was replaced): attach it and ask again. */
  readonly attached: boolean;
  /** Start and end of each item that ran, in milliseconds since the run's epoch. */
  readonly spans: Float64Array;
  /** What each item returned: `prepared`, a {@link SnapshotDigests}, a {@link RenderedFrame}. */
  readonly values: readonly unknown[];
  /** The item that failed (its position in `items`), after which the rest was not tried. */
  readonly failure?: { readonly position: number; readonly error: SerializedKhoError };
}

/** What `snapshot` of an instance came to. */
export interface SnapshotDigests {
  /** SHA-256 of the snapshot. */
  readonly state: string;
  /** What the driver's `digests` says, if it has one. */
  readonly contents?: Readonly<Record<string, string>>;
}
