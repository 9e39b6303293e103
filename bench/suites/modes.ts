import type { ModePlan } from '../handover-runner.js';
import type { Comparison } from '../harness/comparison.js';
import { type Goal, ratioOf } from '../harness/goals.js';
import type { ComparisonResult } from '../harness/rounds.js';
import type { Suite } from '../harness/suite.js';
import { calibrateWork, PROPERTIES_PER_NODE } from '../load.js';
import { modePlans } from '../mode-plans.js';
import type { HandoverParameters } from '../variants/handover.js';

const HANDOVER = new URL('../variants/handover.js', import.meta.url);
const WORKERS = 2;
/** Nanoseconds of work for each property. */
const WORK = [0, 40, 150, 600, 2500];
/** Instances and properties of all of them together. */
const SHAPES: readonly (readonly [instances: number, properties: number])[] = [
  [10, 1000],
  [10, 10_000],
  [100, 10_000],
  [1000, 10_000],
  [10, 100_000],
];
/** Where hash is held against sequential: enough properties that waking threads does not matter. */
const GOAL_SHAPE = [10, 100_000] as const;
/** Small handovers are measured several times in a round. */
const PROPERTIES_PER_ROUND = 20_000;
/** The compiler needs about as many calls. */
const WARM_PROPERTIES = 200_000;

/** The plan of the patch series v5: a hash table that becomes one FDT. */
const ONE_FDT_WORK = [0, 600];
const ONE_FDT_PLANS: readonly ModePlan[] = [
  { mode: 'sequential', workers: WORKERS, profile: 'series-v5' },
  { mode: 'hash', workers: WORKERS, profile: 'series-v5' },
];

const titleOf = (instances: number, properties: number, work: number): string =>
  `${instances} instances, ${properties} properties, ${work} ns of work for each`;

/** Which mode wins where: a grid of instances, properties and work. */
export const modesSuite: Suite = {
  async *comparisons({ quick, rounds }) {
    const plans = await modePlans(WORKERS);
    for (const [instances, properties] of quick ? SHAPES.slice(0, 1) : SHAPES) {
      for (const work of quick ? WORK.slice(0, 2) : WORK)
        yield cell({ instances, properties, work }, plans, rounds(15));
    }
    for (const work of quick ? [] : ONE_FDT_WORK) {
      const [instances, properties] = GOAL_SHAPE;
      yield oneFdt(cell({ instances, properties, work }, ONE_FDT_PLANS, rounds(15)));
    }
  },

  goals({ comparisons }) {
    const overSequential = (work: number, pass: number, aim: number): Goal => {
      const title = titleOf(...GOAL_SHAPE, work);
      return {
        ...{ name: `sequential / hash, ${title}`, unit: 'x', better: 'more', pass, aim },
        ...ratioOf(
          comparisons.find((result) => result.title === title),
          'sequential',
          'hash',
        ),
      };
    };
    return [
      overSequential(150, 1.25, 1.4),
      overSequential(600, 1.5, 1.7),
      overSequential(2500, 1.6, 1.9),
      autoGoal(comparisons.filter(({ variants }) => variants.some(({ name }) => name === 'auto'))),
    ];
  },
};

function oneFdt(comparison: Comparison): Comparison {
  return { ...comparison, title: `one FDT (series-v5): ${comparison.title}` };
}

/** One point of the grid. */
interface Point {
  readonly instances: number;
  readonly properties: number;
  readonly work: number;
}

function cell({ instances, properties, work }: Point, plans: readonly ModePlan[], rounds: number): Comparison {
  const load = {
    nodes: properties / instances / PROPERTIES_PER_NODE,
    properties: PROPERTIES_PER_NODE,
    names: 'strings',
    workSteps: calibrateWork(work),
  } as const;
  const handovers = Math.max(1, PROPERTIES_PER_ROUND / properties);
  return {
    title: titleOf(instances, properties, work),
    unit: 'ns/property',
    variants: plans.map((plan) => {
      const parameters: HandoverParameters = { plan, instances, load, handovers };
      return { name: plan.mode, module: HANDOVER, parameters };
    }),
    rounds,
    warmup: Math.max(5, Math.ceil(WARM_PROPERTIES / (properties * handovers))),
  };
}

/** Auto in the cell in which it is furthest from the best mode. A cell that was contaminated leaves it undecided. */
function autoGoal(cells: readonly ComparisonResult[]): Goal {
  const ratios = cells.map((result) => ({ title: result.title, ...ratioOf(result, 'auto', bestOfOthers(result)) }));
  const unknown = ratios.find(({ value }) => value === undefined);
  const worst = unknown ?? ratios.toSorted((a, b) => (b.value ?? 0) - (a.value ?? 0))[0];
  return {
    name: `auto / best mode, the worst cell${worst === undefined ? '' : ` (${worst.title})`}`,
    ...{ unit: 'x', better: 'less', pass: 1.1, aim: 1.1, value: worst?.value },
    ...(worst?.absent === undefined ? {} : { absent: worst.absent }),
  };
}

/** The mode with the lowest median, auto apart: what it should have chosen. */
function bestOfOthers({ variants }: ComparisonResult): string {
  const others = variants.filter(({ name, spread }) => name !== 'auto' && spread !== undefined);
  return others.toSorted((a, b) => (a.spread?.median ?? 0) - (b.spread?.median ?? 0))[0]?.name ?? '';
}
