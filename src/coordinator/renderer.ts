import type { FdtFrame, RenderedFrame } from '../hashstage/index.js';
import type { PhysicalAddress } from '../memblock/index.js';
import type { RegisteredDriver, Registry } from './registry.js';

/** Where an FDT will lie. */
export interface RenderTarget {
  readonly address: PhysicalAddress;
  /** Bytes of room. */
  readonly size: number;
}

/** A mode's way from what the callbacks wrote to FDTs in physical memory. Main thread only, once all are serialized. */
export interface Renderer {
  /**
   * Writes an FDT into its room; `what` names it in the timeline. KHO_EEXIST for a property that two shards gave one node,
   * KHO_EINVAL for siblings that libfdt could not tell apart, KHO_ENOSPC if it does not fit.
   */
  render(frame: FdtFrame, target: RenderTarget, what: string): RenderedFrame | Promise<RenderedFrame>;
}

/** A driver's node of an FDT, or the root of its own with the name '': its compatible, and what its shards wrote. */
export function driverFrame(name: string, { compatible, instances }: RegisteredDriver, registry: Registry): FdtFrame {
  const shards = instances.flatMap((item) => {
    const { firstShard = 0, shardCount = 0 } = registry.instances[item] ?? {};
    return Array.from({ length: shardCount }, (_, shard) => firstShard + shard);
  });
  const properties = new Map([['compatible', new TextEncoder().encode(`${compatible}\0`)]]);
  return { name, properties, children: new Map(), shards };
}
