import type { ResourceLimits } from 'node:worker_threads';
import type { WorkerPool } from '../workers/index.js';
import type { Clock } from './clock.js';
import type { ProgressEvent } from './handover-run.js';
import type { RunPlan } from './plan.js';

/** Milliseconds after which a callback has hung, unless said otherwise. */
export const CALLBACK_LIMIT_MS = 30_000;
/** How long callbacks may go on after a run was interrupted, unless said otherwise. */
export const GRACE_MS = 2000;

/** A plan without its drivers and host; mode `auto` needs a calibration for as many workers. */
export type CoordinatorOptions = Pick<
  RunPlan,
  | 'mode'
  | 'calibration'
  | 'workers'
  | 'seed'
  | 'profile'
  | 'fdtMax'
  | 'budget'
  | 'kexec'
  | 'trigger'
  | 'onShutdownFailure'
  | 'lateWrites'
  | 'earlier'
  | 'callbackLimit'
> & {
  /** A pool to use, and to leave running; without it the coordinator starts one of `workers` threads. */
  readonly pool?: WorkerPool;
  /** Limits of the threads that the coordinator starts itself. */
  readonly resourceLimits?: ResourceLimits;
  /** What deadlines are kept by; the timeline is not. Default: the machine's. */
  readonly clock?: Clock;
  /** Milliseconds that callbacks may go on after an interrupt (an abort, a budget), before their threads are ended. Default 2,000. */
  readonly grace?: number;
  /** True to make phases and drivers measures of Node's performance timeline; see {@link HandoverEvents}. */
  readonly performanceMarks?: boolean;
};

export interface HandoverOptions {
  /**
   * Aborting rolls back; what is under way rejects with the signal's reason if that is a KhoError, else KHO_ECANCELED. An
   * abort between two calls takes effect with the next one.
   */
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}
