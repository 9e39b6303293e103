import type { ModePlan } from '../handover-runner.js';
import type { Comparison } from '../harness/comparison.js';
import type { ComparisonResult } from '../harness/rounds.js';
import type { Suite } from '../harness/suite.js';
import { modePlans } from '../mode-plans.js';
import type { BlackoutParameters } from '../variants/blackout.js';

const BLACKOUT = new URL('../variants/blackout.js', import.meta.url);
const WORKERS = 2;
/**
 * Instances of all six drivers, how many handovers of each mode are measured by default, and how many of them make a round.
 * A handover takes many times its blackout, for it prepares everything anew; hence fewer of the large ones.
 */
const SIZES: readonly { readonly instances: number; readonly handovers: number; readonly each: number }[] = [
  { instances: 10, handovers: 1000, each: 25 },
  { instances: 100, handovers: 300, each: 10 },
  { instances: 1000, handovers: 60, each: 3 },
  { instances: 10_000, handovers: 8, each: 1 },
];
/** Not even `--rounds` makes more handovers of the largest host. */
const MOST_OF_LARGEST = 20;
/** Milliseconds that a blackout may take. */
const BUDGETS = [10, 50, 100];

/** How long the machines stand still in the host itself, freeze to finalized, by the number of instances. */
export const blackoutSuite: Suite = {
  async *comparisons({ quick, rounds, note }) {
    const plans = await modePlans(WORKERS);
    for (const { instances, handovers, each } of quick ? SIZES.slice(0, 1) : SIZES) {
      // Here --rounds counts handovers.
      const wanted = Math.min(rounds(handovers), instances < 10_000 ? Number.POSITIVE_INFINITY : MOST_OF_LARGEST);
      const size = { instances, each: Math.min(each, wanted), rounds: Math.ceil(wanted / each) };
      note(`${instances} instances: ${size.rounds * size.each} handovers of each mode`);
      yield comparison(size, plans);
    }
  },

  conclusions: ({ comparisons }) => (comparisons[0]?.variants ?? []).map(({ name }) => fits(name, comparisons)),
};

const titleOf = (instances: number): string => `the six drivers, ${instances} instances: freeze to finalized`;

interface Size {
  readonly instances: number;
  /** Handovers of a round. */
  readonly each: number;
  readonly rounds: number;
}

function comparison({ instances, each, rounds }: Size, plans: readonly ModePlan[]): Comparison {
  return {
    title: titleOf(instances),
    unit: 'ms',
    variants: plans.map((plan) => {
      const parameters: BlackoutParameters = { plan, instances, handovers: each };
      return { name: plan.mode, module: BLACKOUT, parameters };
    }),
    rounds,
    warmup: instances > 1000 ? 2 : 4,
    show: 'tail',
  };
}

/** What a mode can hand over within the budgets. */
function fits(mode: string, comparisons: readonly ComparisonResult[]): string {
  const measured = SIZES.flatMap(({ instances }) => {
    const result = comparisons.find(({ title }) => title === titleOf(instances));
    const spread = result?.variants.find(({ name }) => name === mode)?.spread;
    if (result === undefined || result.verdict === 'contaminated' || spread === undefined) return [];
    return [{ instances, p99: spread.p99 }];
  });
  const hosts = BUDGETS.map((budget) => `${budget} ms: ${largestHost(budget, measured)}`);
  return `largest host of ${mode} at p99, interpolated between measured sizes: ${hosts.join(', ')}`;
}

/** How many instances take `budget` milliseconds. Between two sizes it is a straight line on logarithmic scales. */
export function largestHost(
  budget: number,
  measured: readonly { readonly instances: number; readonly p99: number }[],
): string {
  const above = measured.findIndex(({ p99 }) => p99 > budget);
  const [small, large] = [measured[above - 1], measured[above]];
  if (large === undefined) return measured.length === 0 ? 'not judged' : `${measured.at(-1)?.instances} or more`;
  if (small === undefined) return `fewer than ${large.instances}`;
  const share = Math.log(budget / small.p99) / Math.log(large.p99 / small.p99);
  return String(Math.floor(small.instances * (large.instances / small.instances) ** share));
}
