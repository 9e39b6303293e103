/** Stage to FDT, as a whole and in parts. */
import { Finalizer } from '#dist/hashstage/index.js';
import { fillStage, SHARDS } from '../filled-stage.js';
import type { Measured } from '../harness/comparison.js';

export interface FinalizeParameters {
  readonly properties: number;
  /** How many distinct names. */
  readonly names: number;
  /**
   * `finalize`: as the coordinator does it, a new finalizer and a blob of it; `render`: the blob alone. Nanoseconds a
   * property. `names`, `new`: one call of Stage.names() and of the constructor, in microseconds.
   */
  readonly part: 'finalize' | 'render' | 'names' | 'new';
}

/** A small render is too short for one sample. */
const PROPERTIES_PER_ROUND = 100_000;
const COMPATIBLE = 'load-v1';

export default function finalize({ properties, names, part }: FinalizeParameters): Measured {
  const { stage, maxBytes } = fillStage(properties, names);
  // As physical memory is: shared, and touched before the blackout.
  const target = new Uint8Array(new SharedArrayBuffer(maxBytes + 4096)).fill(1);
  const finalizer = new Finalizer(stage);
  const whole = (): unknown => new Finalizer(stage).render(SHARDS, COMPATIBLE, target);
  const render = (): unknown => finalizer.render(SHARDS, COMPATIBLE, target);
  const passes = Math.max(1, Math.floor(PROPERTIES_PER_ROUND / properties));
  switch (part) {
    case 'finalize':
      return { measure: () => timed(whole, passes, properties) };
    case 'render':
      return { measure: () => timed(render, passes, properties) };
    case 'names':
      return { measure: () => timed(() => stage.names(), 1, 1000) };
    case 'new':
      return { measure: () => timed(() => new Finalizer(stage), 1, 1000) };
  }
}

/** Each pass is a sample: nanoseconds for each `unit`. */
function timed(work: () => unknown, passes: number, unit: number): number[] {
  return Array.from({ length: passes }, () => {
    const start = process.hrtime.bigint();
    work();
    return Number(process.hrtime.bigint() - start) / unit;
  });
}
