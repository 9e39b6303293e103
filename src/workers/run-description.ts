import type { StageHandle } from '../hashstage/index.js';
import type { PhysicalAddress, SharedMemoryHandle } from '../memblock/index.js';
import type { GuestSpec } from './driver.js';
import type { ShardFdtRoom } from './shard-fdts.js';

/** Where a driver's module is. Imported anew by every thread and process that needs it. */
export interface DriverModule {
  /** A `file:` or `data:` URL, or a package name. */
  readonly url: string;
  /** How it was named by the user, for messages. */
  readonly origin: string;
}

/** A driver of a run. Its index is the registration order. */
export interface DriverDescription {
  readonly name: string;
  readonly compatible: string;
  readonly hosted: boolean;
  readonly blob: 'fdt' | 'raw';
  readonly module: DriverModule;
}

/** An instance of a run. Its index is the order of registration. */
export interface InstanceDescription {
  readonly driver: number;
  readonly name: string;
  /** 0, 1, … within its driver. */
  readonly index: number;
  /** As the scenario gave them; every thread parses them anew. */
  readonly options: unknown;
  readonly firstShard: number;
  readonly shardCount: number;
}

/** A shard of a run. Its index is the order of (instance, shard). */
export interface ShardDescription {
  readonly instance: number;
  readonly maxBytes: number;
  /** Absent if it has none. */
  readonly guest?: GuestSpec;
  /** Mode `subfdt`: where the shard's FDT is to lie. */
  readonly fdt?: ShardFdtRoom;
}

export const MODES = ['sequential', 'hash', 'subfdt'] as const;

/** How callbacks are spread: see DESIGN in docs/architecture.md. */
export type Mode = (typeof MODES)[number];

/**
 * Everything that a thread needs to take part in a run; structured-cloneable. Shared memory travels by reference.
 * Sent once to every thread, before the blackout.
 */
export interface RunDescription {
  /** Unique in the process. */
  readonly id: string;
  /**
   * Of the live states of hosted drivers: they are kept as long as it is the same, over runs that were rolled back. A new
   * one makes them anew.
   */
  readonly generation: string;
  readonly mode: Mode;
  readonly seed: number;
  /** process.hrtime.bigint() at the start of the run: the zero of every time in the timeline. */
  readonly epoch: bigint;
  readonly drivers: readonly DriverDescription[];
  readonly instances: readonly InstanceDescription[];
  readonly shards: readonly ShardDescription[];
  readonly memory: SharedMemoryHandle;
  /** The ExtentTable's buffer. */
  readonly extents: SharedArrayBuffer;
  /** The same for guest memory: each shard has its folios there, or nothing. */
  readonly guestExtents: SharedArrayBuffer;
  readonly stage: StageHandle;
  /** The {@link DmaGate}'s buffer. */
  readonly dma: SharedArrayBuffer;
  /** Absent if nobody looks for late writes. */
  readonly lateWrites?: {
    /** The FrozenTable's buffer. */
    readonly table: SharedArrayBuffer;
    /** Whether the run goes on when some are found. */
    readonly report: boolean;
  };
  /** Mode `subfdt`: the {@link ShardFdtTable}'s buffer. */
  readonly shardFdts?: SharedArrayBuffer;
  /** The {@link EarlyBytes} table's buffer. */
  readonly early: SharedArrayBuffer;
  /** Root of the preserved-page tracker. */
  readonly tracker: PhysicalAddress;
}
