/** The real path, warm: from the dispatch of the first callback to the finished blob. */
import { type BenchMode, HandoverRunner, loadInstances, phases } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';
import type { Load } from '../load.js';

export interface HandoverParameters {
  readonly mode: BenchMode;
  readonly workers: number;
  readonly instances: number;
  readonly load: Load;
}

export default function handover({ mode, workers, instances, load }: HandoverParameters): Measured {
  const runner = new HandoverRunner(mode, workers, [loadInstances(load, instances)]);
  const properties = instances * load.nodes * load.properties;
  return {
    measure: () =>
      runner.handOver(({ timeline }) => {
        const { start, end } = phases(timeline, 'serialize', 'finalize');
        return ((end - start) * 1e6) / properties;
      }),
  };
}
