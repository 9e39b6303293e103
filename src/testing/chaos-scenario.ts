import type { RunPlan } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { CHAOS_RUN_LIMIT_MS } from './chaos.js';
import type { ChaosScenario } from './chaos-plan.js';
import { testedModule } from './driver-to-test.js';
import { faultyModule } from './faulty-module.js';
import { HandoverHarness } from './harness.js';

/** So many times what a clean handover takes, a run may take. */
const PATIENCE = 20;

/**
 * A user's plan, made ready for chaos by a clean handover: it tells the drivers' names, and how long a run may take
 * (milliseconds). Rejects with what went wrong if not even that comes about.
 */
export async function chaosScenario(plan: RunPlan): Promise<{ scenario: ChaosScenario; limit: number }> {
  const { host, profile, seed, fdtMax, drivers, mode } = plan;
  const taken = { profile, seed, ...(fdtMax !== undefined && { fdtMax }) };
  const entries = drivers.map(({ module, where: _, ...rest }) => ({ use: module, ...rest }));
  await using harness = await HandoverHarness.create({
    ...taken,
    host,
    workers: plan.workers,
    ...(mode !== 'auto' && { mode }),
    drivers: entries,
  });
  const start = performance.now();
  const outcome = await harness.handover();
  if (outcome.state === 'rolled back') throw outcome.error;
  const [failure] = outcome.failures;
  if (failure !== undefined) {
    throw new KhoError('KHO_EIMAGE', `without any fault the scenario is not restored: ${failure.message}`);
  }
  const limit = Math.max(CHAOS_RUN_LIMIT_MS, PATIENCE * (performance.now() - start));
  const described = entries.map(({ use }) => {
    const { url } = faultyModule(testedModule(use));
    const { name, hosted } = outcome.record.drivers.find(({ module }) => module.url === url) ?? {
      name: use.origin,
      hosted: false,
    };
    return { name, hosted };
  });
  return { scenario: { host, plan: taken, drivers, described }, limit };
}
