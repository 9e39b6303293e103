/** libfdt's sequential writer in C. */
import type { Measured } from '../harness/comparison.js';
import { INSTANCES, NAMES, PROPERTIES_PER_NODE } from '../load.js';
import { LibfdtSequential } from '../peers/libfdt-sequential.js';

export interface LibfdtParameters {
  readonly program: string;
  readonly properties: number;
  readonly dedup: boolean;
}

export default function libfdt({ program, properties, dedup }: LibfdtParameters): Measured {
  const writer = new LibfdtSequential(program);
  const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
  const job = { instances: INSTANCES, nodes, properties: PROPERTIES_PER_NODE, names: NAMES.length, dedup };
  return {
    measure: async () => (await writer.build(job)) / properties,
    childCpuTime: () => writer.cpuTime(),
  };
}
