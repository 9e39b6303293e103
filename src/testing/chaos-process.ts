/** A process that makes runs of chaos, one after another: what a run does to its process does no harm to the others. */
import { KhoError } from '../errors.js';
import { type ChaosScenario, chaosPlan } from './chaos-plan.js';
import { chaosRun } from './chaos-run.js';
import { chaosThreads } from './chaos-threads.js';

/** The first message. */
export interface ChaosStart {
  readonly seed: number;
  readonly scenario?: ChaosScenario;
}

let start: ChaosStart | undefined;

process.on('message', (message: ChaosStart | number) => {
  if (typeof message !== 'number') {
    start = message;
    return;
  }
  const { seed = 0, scenario } = start ?? {};
  const plan = chaosPlan(seed, message, scenario);
  chaosRun(plan, chaosThreads(plan.harness.workers)).then(
    (result) => process.send?.({ index: message, result }),
    (thrown: unknown) => process.send?.({ index: message, error: KhoError.from(thrown).toJSON() }),
  );
});
process.on('disconnect', () => process.exit(0));
