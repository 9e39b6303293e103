import { type FdtFrame, type RenderedFrame, shardFrame } from '../hashstage/index.js';
import type { PhysicalAddress } from '../memblock/index.js';
import type { RegisteredDriver, Registry } from './registry.js';

/** Where an FDT will lie. */
export interface RenderTarget {
  readonly address: PhysicalAddress;
  /** Bytes of room. */
  readonly size: number;
}

/** One FDT to be rendered. */
export interface RenderJob {
  readonly frame: FdtFrame;
  readonly target: RenderTarget;
  /** Names it in the timeline. */
  readonly what: string;
  /** Whose it is, for errors. */
  readonly driver?: string;
}

/** A mode's way from what the callbacks wrote to FDTs in physical memory. Main thread only, once all are serialized. */
export interface Renderer {
  /**
   * Writes FDTs, each into its room, in this order. KHO_EEXIST for a property that two shards gave one node, KHO_EINVAL for
   * siblings that libfdt could not tell apart, KHO_ENOSPC for one that does not fit.
   */
  render(jobs: readonly RenderJob[]): readonly RenderedFrame[] | Promise<readonly RenderedFrame[]>;
  /** Bytes of FDT that hold state, so far; links to them do not count. */
  readonly stateBytes: number;
}

/** A driver's node of an FDT, or the root of its own with the name '': its compatible, and what its shards wrote. */
export function driverFrame(name: string, { compatible, instances }: RegisteredDriver, registry: Registry): FdtFrame {
  const shards = instances.flatMap((item) => {
    const { firstShard = 0, shardCount = 0 } = registry.instances[item] ?? {};
    return Array.from({ length: shardCount }, (_, shard) => firstShard + shard);
  });
  return shardFrame(name, compatible, shards);
}
