import { KhoError } from '../errors.js';
import { type ChaosScenario, chaosPlan } from './chaos-plan.js';
import { type ChaosRunHooks, chaosRun } from './chaos-run.js';
import { chaosThreads } from './chaos-threads.js';

/** The first message. */
export interface ChaosStart {
  readonly seed: number;
  readonly scenario?: ChaosScenario;
}

/**
 * Makes this process one that serves runs of chaos: the first message is a {@link ChaosStart}, each other one the index of a
 * run, which is answered with its result.
 */
export function serveChaos(hooks?: ChaosRunHooks): void {
  let start: ChaosStart | undefined;
  process.on('message', (message: ChaosStart | number) => {
    if (typeof message !== 'number') {
      start = message;
      return;
    }
    const { seed = 0, scenario } = start ?? {};
    const plan = chaosPlan(seed, message, scenario);
    chaosRun(plan, chaosThreads(plan.harness.workers), hooks).then(
      (result) => process.send?.({ index: message, result }),
      (thrown: unknown) => process.send?.({ index: message, error: KhoError.from(thrown).toJSON() }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}
