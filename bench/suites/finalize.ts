import type { Comparison, VariantSpec } from '../harness/comparison.js';
import { type Goal, medianOf, ratioOf } from '../harness/goals.js';
import type { Suite } from '../harness/suite.js';
import { NAMES } from '../load.js';
import type { FinalizeParameters } from '../variants/finalize.js';

const SIZES = [10_000, 100_000, 300_000, 1_000_000];
const MANY_NAMES = 30_000;
const MODULE = new URL('../variants/finalize.js', import.meta.url);
const TITLE = `finalize, ${NAMES.length} names: new Finalizer and render`;
const MANY_TITLE = `finalize, ${MANY_NAMES} names: new Finalizer and render`;
const RENDER_TITLE = `render alone, ${NAMES.length} names`;

const label = (properties: number): string => `${properties} properties`;

/** Stage to FDT: what a property costs, whether that depends on their number, and the parts of it. */
export const finalizeSuite: Suite = {
  async *comparisons({ quick, rounds: roundsOf }) {
    const rounds = roundsOf(15);
    const sizes = quick ? SIZES.slice(0, 2) : SIZES;
    yield bySize(TITLE, sizes, NAMES.length, 'finalize', rounds);
    yield bySize(RENDER_TITLE, sizes, NAMES.length, 'render', rounds);
    // There are no 30,000 names in 10,000 properties.
    yield bySize(MANY_TITLE, sizes.slice(1), MANY_NAMES, 'finalize', rounds);
    yield parts(rounds);
  },

  goals({ comparisons }) {
    const result = (title: string) => comparisons.find((candidate) => candidate.title === title);
    const goal = (title: string, properties: number): Goal => ({
      name: `${title}, ${label(properties)}`,
      unit: 'ns/property',
      better: 'less',
      pass: 14,
      aim: 8,
      ...medianOf(result(title), label(properties)),
    });
    const linear = (title: string, from: number, to: number): Goal => ({
      name: `${title}: one property of ${to} / one of ${from}`,
      unit: 'x',
      better: 'less',
      pass: 1.5,
      aim: 1.1,
      ...ratioOf(result(title), label(to), label(from)),
    });
    return [
      ...SIZES.map((properties) => goal(TITLE, properties)),
      ...SIZES.slice(1).map((properties) => goal(MANY_TITLE, properties)),
      linear(TITLE, 10_000, 1_000_000),
      linear(MANY_TITLE, 100_000, 1_000_000),
    ];
  },
};

function variant(name: string, parameters: FinalizeParameters): VariantSpec {
  return { name, module: MODULE, parameters };
}

function bySize(
  title: string,
  sizes: readonly number[],
  names: number,
  part: FinalizeParameters['part'],
  rounds: number,
): Comparison {
  return {
    title,
    unit: 'ns/property',
    reference: label(100_000),
    variants: sizes.map((properties) => variant(label(properties), { properties, names, part })),
    rounds,
  };
}

/** What does not depend on the number of properties. */
function parts(rounds: number): Comparison {
  const variants = [NAMES.length, MANY_NAMES].flatMap((names) => [
    variant(`Stage.names(), ${names} names`, { properties: 100_000, names, part: 'names' }),
    variant(`new Finalizer, ${names} names`, { properties: 100_000, names, part: 'new' }),
  ]);
  return {
    title: 'parts whose cost is fixed, or goes by names',
    unit: 'us',
    reference: `Stage.names(), ${NAMES.length} names`,
    variants,
    rounds,
    warmup: 20,
  };
}
