import type { Mode } from 'khorus';
import type { ComparisonResult } from '../harness/rounds.js';
import type { Suite } from '../harness/suite.js';
import { PROPERTIES_PER_NODE } from '../load.js';
import type { Part, PartParameters } from '../variants/parts.js';

const PARTS = new URL('../variants/parts.js', import.meta.url);
const INSTANCES = 100;
const PROPERTIES = 100_000;
const LOAD = {
  nodes: PROPERTIES / INSTANCES / PROPERTIES_PER_NODE,
  properties: PROPERTIES_PER_NODE,
  names: 'strings',
  workSteps: 0,
} as const;
const TITLES: Record<Part, string> = {
  callbacks: 'time of all callbacks together',
  around: 'serialize, less an even share of the callbacks',
  finalize: 'finalize, on one thread',
};
const PLANS: readonly { mode: Mode; workers: number }[] = [
  { mode: 'sequential', workers: 1 },
  { mode: 'hash', workers: 1 },
  { mode: 'hash', workers: 2 },
  { mode: 'subfdt', workers: 1 },
  { mode: 'subfdt', workers: 2 },
];
/** What the model is asked for: processors, and nanoseconds of work for each property. */
const CORES = [2, 8, 32, 128];
const WORK = [0, 150, 600, 2500];

/** The serial parts and the contention, measured with one and two workers; and a model of more cores made of them. */
export const coresSuite: Suite = {
  async *comparisons({ rounds }) {
    for (const part of Object.keys(TITLES) as Part[]) {
      yield {
        title: `${PROPERTIES} properties in ${INSTANCES} instances: ${TITLES[part]}`,
        unit: 'us',
        rounds: rounds(15),
        variants: PLANS.map((plan) => {
          const parameters: PartParameters = { plan, instances: INSTANCES, load: LOAD, part };
          return { name: nameOf(plan.mode, plan.workers), module: PARTS, parameters };
        }),
      };
    }
  },

  conclusions({ comparisons }) {
    const [callbacks, around, finalize] = comparisons;
    if (callbacks === undefined || around === undefined || finalize === undefined) return [];
    const costs = (mode: Mode): Costs | undefined => {
      const one = medianOf(callbacks, nameOf(mode, 1));
      const two = medianOf(callbacks, nameOf(mode, 2));
      const fixed = medianOf(around, nameOf(mode, 2));
      const serial = medianOf(finalize, nameOf(mode, 2));
      if (one === undefined || two === undefined || fixed === undefined || serial === undefined) return undefined;
      return { callbacks: one, contention: Math.max(1, two / one), fixed, serial };
    };
    const sequential = ['callbacks', 'around', 'finalize'].map((_, index) => {
      const result = comparisons[index];
      return result === undefined ? undefined : medianOf(result, nameOf('sequential', 1));
    });
    if (sequential.some((part) => part === undefined)) return ['no model: the parts were not measured cleanly'];
    const direct = sequential.reduce<number>((sum, part) => sum + (part ?? 0), 0);
    const lines = [
      'A MODEL, not a measurement: milliseconds of serialize and finalize, as many workers as cores, work spread evenly.',
      'More threads contend as two do (first), or each more as much as the second did (last).',
    ];
    for (const work of WORK) {
      const alone = direct + (work * PROPERTIES) / 1000;
      lines.push(`${work} ns of work a property: sequential ${milliseconds(alone)}`);
      for (const mode of ['hash', 'subfdt'] as const) {
        const of = costs(mode);
        if (of === undefined) continue;
        const cells = CORES.map((cores) => {
          const [best, worst] = [of.contention, 1 + (of.contention - 1) * (cores - 1)].map((contention) =>
            milliseconds(of.fixed + of.serial + (of.callbacks * contention + (work * PROPERTIES) / 1000) / cores),
          );
          return `${cores} cores ${best} to ${worst}`;
        });
        lines.push(`  ${mode}: ${cells.join(', ')}`);
      }
    }
    return lines;
  },
};

/** Microseconds. */
interface Costs {
  /** Of all callbacks on one thread, without work. */
  readonly callbacks: number;
  /** How many times longer they are on two threads at once. */
  readonly contention: number;
  /** Messages and threads that wake up. */
  readonly fixed: number;
  readonly serial: number;
}

function nameOf(mode: Mode, workers: number): string {
  return mode === 'sequential' ? mode : `${mode}, ${workers} worker${workers === 1 ? '' : 's'}`;
}

function medianOf({ verdict, variants }: ComparisonResult, name: string): number | undefined {
  if (verdict === 'contaminated') return undefined;
  return variants.find((variant) => variant.name === name)?.spread?.median;
}

function milliseconds(microseconds: number): string {
  return (microseconds / 1000).toFixed(2);
}
