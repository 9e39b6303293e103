import { KhoError } from '../errors.js';
import { goPath } from './chaos-path.js';
import { type ChaosKind, type ChaosPlan, describePlan } from './chaos-plan.js';
import { judge, kindsStruck } from './chaos-verdict.js';
import { testedModule } from './driver-to-test.js';
import { faultyModule } from './faulty-module.js';
import { HandoverHarness } from './harness.js';
import { describeLeaks } from './leaks.js';
import type { HandedOver, Outcome } from './outcome.js';
import { takePages } from './take-pages.js';
import type { TestThreads } from './test-threads.js';

/** For tests: what spoils something that a run must notice. */
export interface ChaosRunHooks {
  /** After the handover with faults, before anybody looks whether it has left something behind. */
  readonly afterFaults?: (harness: HandoverHarness) => void;
}

/** What came of one run. Plain data. */
export interface ChaosResult {
  readonly state: Outcome['state'];
  /** What did not hold; empty for a run as it should be. */
  readonly violations: readonly string[];
  readonly leakedPages: number;
  /** Kinds of faults that struck. */
  readonly kinds: readonly ChaosKind[];
  /** What the run did, in a line. */
  readonly plan: string;
  readonly milliseconds: number;
}

/**
 * One run: a handover with faults, which ends in a state that is verified, and a clean one by the same coordinator, which
 * must restore everything.
 */
export async function chaosRun(
  plan: ChaosPlan,
  threads: TestThreads,
  { afterFaults }: ChaosRunHooks = {},
): Promise<ChaosResult> {
  const start = performance.now();
  await using harness = await HandoverHarness.create({ ...plan.harness, threads });
  for (const fault of plan.faults) harness.inject(fault);
  const outcome = await faultyHandover(harness, plan);
  const faults = harness.faults();
  const violations = judge(outcome, faults, plan);
  harness.clearFaults().successorDrivers((modules) => modules);
  if (outcome.state === 'handed over' && outcome.failures.length > 0)
    violations.push(...(await restoredAfterAll(harness, outcome)));
  afterFaults?.(harness);
  const leaks = harness.leaks();
  violations.push(...describeLeaks(leaks));
  const again = await cleanHandover(harness);
  return {
    state: outcome.state,
    violations: [...violations, ...again.violations],
    leakedPages: leaks.pages + again.leakedPages,
    kinds: kindsStruck(faults, plan),
    plan: describePlan(plan),
    milliseconds: performance.now() - start,
  };
}

async function faultyHandover(harness: HandoverHarness, { path, outer, outerDriver, pagesLeft = 0 }: ChaosPlan) {
  const concerned = outerDriver && testedModule(outerDriver.entry.use);
  const { url } = concerned === undefined ? { url: '' } : faultyModule(concerned);
  if (outer === 'driver gone in the successor') {
    harness.successorDrivers((modules) => modules.filter((module) => module.url !== url));
  }
  if (outer === 'unknown compatible in the successor' && concerned !== undefined) {
    const other = faultyModule(concerned, 'another-v1');
    harness.successorDrivers((modules) => modules.map((module) => (module.url === url ? other : module)));
  }
  const go = (): Promise<Outcome> => harness.attempt((coordinator, signal) => goPath(path, coordinator, signal));
  if (outer !== 'host out of pages') return await go();
  using _ = takePages(harness.host, pagesLeft);
  return await go();
}

/** What a successor without faults says of an image that one with faults has seen: it is unharmed. */
async function restoredAfterAll(harness: HandoverHarness, outcome: HandedOver): Promise<string[]> {
  try {
    harness.assertHandedOver(await harness.restoreAgain(outcome));
    return [];
  } catch (error) {
    return [`a second successor: ${KhoError.from(error).message}`];
  }
}

async function cleanHandover(harness: HandoverHarness): Promise<{ violations: string[]; leakedPages: number }> {
  const violations: string[] = [];
  try {
    harness.assertHandedOver(await harness.handover());
  } catch (error) {
    violations.push(`the clean handover afterwards: ${KhoError.from(error).message}`);
  }
  const leaks = harness.leaks();
  violations.push(...describeLeaks(leaks).map((leak) => `after the clean handover: ${leak}`));
  return { violations, leakedPages: leaks.pages };
}
