/** The real path: a Coordinator with a Host, warm. From the first callback's dispatch to the finished blob. */
import { type Mode, WorkerPool } from 'khorus';
import { HandoverRunner, loadHost } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';
import { INSTANCES, type Load } from '../load.js';

export interface HandoverParameters {
  readonly mode: Mode;
  readonly workers: number;
  readonly load: Load;
}

export default function handover({ mode, workers, load }: HandoverParameters): Measured {
  const pool = new WorkerPool({ threads: workers });
  const runner = new HandoverRunner(loadHost(), { mode, pool, load });
  const properties = INSTANCES * load.nodes * load.properties;
  return { measure: async () => (await runner.serializeAndFinalize()) / properties };
}
