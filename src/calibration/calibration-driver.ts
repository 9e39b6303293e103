/** The driver whose handovers calibrate mode `auto`: nodes with properties of 8 bytes, and work for nothing. */
import { defineDriver } from '../driver.js';
import type { CalibrationLoad } from './calibration-load.js';
import { shardBytes } from './calibration-load.js';

const PROPERTIES = 10;

export default defineDriver<CalibrationLoad, null>({
  name: 'calibration',
  compatible: 'calibration-v1',
  shards: (load) => [{ maxBytes: shardBytes(load) }],
  create: () => null,
  serialize(ctx) {
    const { nodes, steps } = ctx.options;
    for (let index = 0; index < nodes; index++) {
      const node = ctx.node(`node${index}`);
      for (let property = 0; property < PROPERTIES; property++) node.u64(`property-${property}`, index);
    }
    if (steps > 0) ctx.root.u32('work', busyWork(steps));
  },
  restore: () => null,
  snapshot: () => null,
});

/** Each step waits for the one before, and the result is needed, so that no compiler leaves it out. */
function busyWork(steps: number): number {
  let state = 1;
  for (let step = 0; step < steps; step++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
  }
  return state >>> 0;
}
