import type { Comparison, VariantSpec } from '../harness/comparison.js';
import { type Goal, medianOf, ratioOf } from '../harness/goals.js';
import type { Suite } from '../harness/suite.js';
import { INSTANCES, type Load, PROPERTIES_PER_NODE } from '../load.js';
import { LibfdtProgram } from '../peers/libfdt-sequential.js';
import type { CollectParameters } from '../variants/collect.js';
import type { HandoverParameters } from '../variants/handover.js';
import type { LibfdtParameters } from '../variants/libfdt.js';

const SIZES = [100_000, 1_000_000];
const HANDOVER = new URL('../variants/handover.js', import.meta.url);
const DIRECT = new URL('../variants/direct.js', import.meta.url);
const COLLECT = new URL('../variants/collect.js', import.meta.url);
const LIBFDT = new URL('../variants/libfdt.js', import.meta.url);

const HASH_STRINGS = 'hash, 2 workers, strings';
const HASH_IDS = 'hash, 2 workers, ids';
const DIRECT_STRINGS = 'peer: direct writer on the main thread, strings';
const LIBFDT_DEDUP = 'peer: libfdt in C, one thread';

const PEERS: readonly [by: CollectParameters['by'], name: string][] = [
  ['objects', 'peer: structured clone, an object a node'],
  ['property-objects', 'peer: structured clone, an object a property'],
  ['transfer', 'peer: transferred buffers'],
];

/** From the drivers' callbacks to the finished blob on the main thread, by the real path and by its peers. */
export const endToEndSuite: Suite = {
  async *comparisons({ quick, rounds, note }) {
    const libfdt = LibfdtProgram.compile();
    if (typeof libfdt === 'string') note(`libfdt's sequential writer is not here: ${libfdt}`);
    try {
      for (const properties of quick ? SIZES.slice(0, 1) : SIZES) {
        const program = typeof libfdt === 'string' ? undefined : libfdt.file;
        yield comparison(properties, program, rounds(properties > 100_000 ? 7 : 15));
      }
    } finally {
      if (typeof libfdt !== 'string') libfdt[Symbol.dispose]();
    }
  },

  goals({ comparisons }) {
    return comparisons.flatMap((result, index): Goal[] => {
      const at = `${SIZES[index]} properties: `;
      const ratio = (name: string, limits: Pick<Goal, 'better' | 'pass' | 'aim'>, a: string, b: string): Goal => ({
        ...{ name: `${at}${name}`, unit: 'x', ...limits },
        ...ratioOf(result, a, b),
      });
      const time = (variant: string, pass: number, aim: number): Goal => ({
        ...{ name: `${at}${variant}`, unit: 'ns/property', better: 'less', pass, aim },
        ...medianOf(result, variant),
      });
      return [
        ...['property', 'node'].map((each) =>
          ratio(
            `structured clone, an object a ${each} / hash`,
            { better: 'more', pass: 8, aim: 12 },
            `peer: structured clone, an object a ${each}, 2 workers`,
            HASH_STRINGS,
          ),
        ),
        ratio('libfdt with name sharing / hash', { better: 'more', pass: 5, aim: 8 }, LIBFDT_DEDUP, HASH_STRINGS),
        ratio('hash / direct writer', { better: 'less', pass: 1.5, aim: 1.2 }, HASH_STRINGS, DIRECT_STRINGS),
        time(HASH_STRINGS, 45, 38),
        time(HASH_IDS, 35, 28),
      ];
    });
  },
};

function comparison(properties: number, libfdt: string | undefined, rounds: number): Comparison {
  const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
  const strings: Load = { nodes, properties: PROPERTIES_PER_NODE, names: 'strings', workSteps: 0 };
  const variants: VariantSpec[] = [];
  for (const workers of [1, 2]) {
    const threads = `${workers} worker${workers === 1 ? '' : 's'}`;
    for (const names of ['strings', 'ids'] as const) {
      const parameters: HandoverParameters = {
        plan: { mode: 'hash', workers },
        instances: INSTANCES,
        load: { ...strings, names },
        handovers: 1,
      };
      variants.push({ name: `hash, ${threads}, ${names}`, module: HANDOVER, parameters });
    }
    for (const [by, name] of PEERS) {
      const parameters: CollectParameters = { by, workers, load: strings };
      variants.push({ name: `${name}, ${threads}`, module: COLLECT, parameters });
    }
  }
  for (const names of ['strings', 'ids'] as const) {
    const parameters = { load: { ...strings, names } };
    variants.push({ name: `peer: direct writer on the main thread, ${names}`, module: DIRECT, parameters });
  }
  for (const dedup of libfdt === undefined ? [] : [true, false]) {
    const parameters: LibfdtParameters = { program: libfdt ?? '', properties, dedup };
    variants.push({ name: dedup ? LIBFDT_DEDUP : `${LIBFDT_DEDUP}, NO_NAME_DEDUP`, module: LIBFDT, parameters });
  }
  return {
    title: `${properties} properties of 8 bytes, callback to finished blob`,
    unit: 'ns/property',
    reference: HASH_STRINGS,
    variants,
    rounds,
  };
}
