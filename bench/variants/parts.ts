/** One part of what lies between the first callback and the finished blob, of real handovers. */
import { phaseDuration, type Timeline } from 'khorus';
import { HandoverRunner, loadInstances, type ModePlan } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';
import type { Load } from '../load.js';

/** `callbacks`: their time on all threads together; `around`: what serialize takes beside an even share of them. */
export type Part = 'callbacks' | 'around' | 'finalize';

export interface PartParameters {
  readonly plan: ModePlan;
  readonly instances: number;
  readonly load: Load;
  readonly part: Part;
}

export default function parts({ plan, instances, load, part }: PartParameters): Measured {
  const runner = new HandoverRunner(plan, [loadInstances(load, instances)]);
  return { measure: () => runner.handOver(({ timeline }) => microseconds(timeline, part, plan.workers)) };
}

function microseconds(timeline: Timeline, part: Part, workers: number): number {
  if (part === 'finalize') return phaseDuration(timeline, 'finalize') * 1000;
  let callbacks = 0;
  for (const { phase, driver, start, end } of timeline.spans) {
    if (phase === 'serialize' && driver !== undefined) callbacks += end - start;
  }
  if (part === 'callbacks') return callbacks * 1000;
  return Math.max(0, phaseDuration(timeline, 'serialize') - callbacks / workers) * 1000;
}
