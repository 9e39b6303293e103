/** The real path, warm: from the dispatch of the first callback to the finished blob. */
import { HandoverRunner, loadInstances, type ModePlan, phases } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';
import type { Load } from '../load.js';

export interface HandoverParameters {
  readonly plan: ModePlan;
  readonly instances: number;
  readonly load: Load;
  /** Handovers of one round, each a sample: a small one is too short to be the only one. */
  readonly handovers: number;
}

export default function handover({ plan, instances, load, handovers }: HandoverParameters): Measured {
  const runner = new HandoverRunner(plan, [loadInstances(load, instances)]);
  const properties = instances * load.nodes * load.properties;
  return {
    async measure() {
      const times: number[] = [];
      for (let handover = 0; handover < handovers; handover++) {
        const { start, end } = await runner.handOver(({ timeline }) => phases(timeline, 'serialize', 'finalize'));
        times.push(((end - start) * 1e6) / properties);
      }
      return times;
    },
    notes: () => runner.choiceLines(),
  };
}
