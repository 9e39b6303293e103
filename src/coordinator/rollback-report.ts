import type { SerializedKhoError } from '../errors.js';
import type { LifecycleState } from './lifecycle.js';

/** What a shard still had when its driver had been cancelled, and the core took back. */
export interface ReclaimedMemory {
  readonly driver: string;
  readonly instance: string;
  readonly shard: number;
  /** Pages that were still allocated. */
  readonly pages: number;
  /** Objects that were still preserved. */
  readonly objects: number;
}

/** What came of rolling back. In each case every page is free again, the tracker is empty, and the state is `normal`. */
export interface RollbackReport {
  /** Why. */
  readonly reason: SerializedKhoError;
  /** The state in which the run was, or from which it was on its way. */
  readonly from: LifecycleState;
  /** Callbacks of `unfreeze` and `cancel` that failed; all others were called nevertheless. */
  readonly failures: readonly SerializedKhoError[];
  /** What drivers did not give back themselves. In a kernel these would be leaks. */
  readonly reclaimed: readonly ReclaimedMemory[];
}
