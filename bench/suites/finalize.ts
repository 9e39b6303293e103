import { driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';
import type { Comparison, Variant } from '../harness/comparison.js';
import { type Goal, medianOf, ratioOf } from '../harness/goals.js';
import type { Suite } from '../harness/suite.js';
import { INSTANCES, NAMES, PROPERTIES_PER_NODE } from '../load.js';

const SIZES = [10_000, 100_000, 300_000, 1_000_000];
const MANY_NAMES = 30_000;
/** FDT bytes of a property of 8 bytes and its share of a node, with room for names. */
const BYTES_PER_PROPERTY = 40;
const TITLE = 'finalize: new Finalizer and render';
const MANY_TITLE = `finalize with ${MANY_NAMES} distinct names`;
const RENDER_TITLE = 'render alone';

const label = (properties: number): string => `${properties} properties`;

/** Stage to FDT: what a property costs, whether that depends on their number, and the parts of it. */
export const finalizeSuite: Suite = {
  async *comparisons({ quick }) {
    const sizes = quick ? SIZES.slice(0, 2) : SIZES;
    const stages = sizes.map((properties) => new FilledStage(properties, NAMES));
    yield comparison(TITLE, stages, (stage) => stage.finalize());
    yield comparison(RENDER_TITLE, stages, (stage) => stage.render());
    const names = Array.from({ length: MANY_NAMES }, (_, index) => `property-${index}`);
    const many = sizes.slice(1).map((properties) => new FilledStage(properties, names));
    yield comparison(MANY_TITLE, many, (stage) => stage.finalize());
    yield parts(stages, many);
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
      name: `${title}: a property of ${to} costs this much of one of ${from}`,
      unit: 'x',
      better: 'less',
      pass: 1.5,
      aim: 1.1,
      ...ratioOf(result(title), label(to), label(from)),
    });
    return [
      goal(TITLE, 100_000),
      goal(TITLE, 1_000_000),
      goal(MANY_TITLE, 1_000_000),
      linear(TITLE, 10_000, 1_000_000),
      linear(MANY_TITLE, 100_000, 1_000_000),
    ];
  },
};

function comparison(
  title: string,
  stages: readonly FilledStage[],
  measure: (stage: FilledStage) => bigint,
): Comparison {
  return {
    title,
    unit: 'ns/property',
    reference: label(100_000),
    variants: stages.map((stage): Variant => {
      // A small render is too short for one sample.
      const repeat = Math.max(1, Math.floor(100_000 / stage.properties));
      return {
        name: label(stage.properties),
        measure() {
          let time = 0n;
          for (let pass = 0; pass < repeat; pass++) time += measure(stage);
          return Number(time) / (repeat * stage.properties);
        },
      };
    }),
    rounds: 15,
  };
}

/** What does not depend on the number of properties. */
function parts(stages: readonly FilledStage[], many: readonly FilledStage[]): Comparison {
  const variants = (what: string, [stage]: readonly FilledStage[]): Variant[] =>
    stage === undefined
      ? []
      : [
          { name: `Stage.names(), ${what}`, measure: () => microseconds(() => stage.stage.names()) },
          { name: `new Finalizer, ${what}`, measure: () => microseconds(() => new Finalizer(stage.stage)) },
        ];
  return {
    title: 'parts whose cost is fixed, or goes by names',
    unit: 'us',
    reference: `Stage.names(), ${NAMES.length} names`,
    variants: [...variants(`${NAMES.length} names`, stages), ...variants(`${MANY_NAMES} names`, many)],
    rounds: 15,
  };
}

function microseconds(work: () => unknown): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1000;
}

/** A stage with one driver's instances in it, and memory for its FDT. */
class FilledStage {
  readonly properties: number;
  readonly stage: Stage;
  readonly #shards = Array.from({ length: INSTANCES }, (_, shard) => shard);
  readonly #target: Uint8Array;
  readonly #finalizer: Finalizer;

  constructor(properties: number, names: readonly string[]) {
    this.properties = properties;
    const maxBytes = properties * BYTES_PER_PROPERTY;
    this.stage = Stage.create({ shardCount: INSTANCES, maxBytes, threads: 1 });
    const ids = names.map((name) => this.stage.nameId(name));
    const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
    for (const shard of this.#shards) {
      const writer = new ShardWriter(this.stage, shard, maxBytes);
      const root = writer.open(driverRoot(0), `load${shard}`);
      for (let index = 0; index < nodes; index++) {
        const node = writer.open(root, `node${index}`);
        // With many names each node has its own, with few they take turns.
        const first = names.length > NAMES.length ? (shard * nodes + index) * PROPERTIES_PER_NODE : index;
        for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
          writer.u64(node, ids[(first + property) % ids.length] as number, 0, index);
        }
      }
    }
    // As physical memory is: shared, and touched before the blackout.
    this.#target = new Uint8Array(new SharedArrayBuffer(maxBytes)).fill(1);
    this.#finalizer = new Finalizer(this.stage);
  }

  /** As the coordinator does it: a new finalizer for each handover. Nanoseconds. */
  finalize(): bigint {
    const start = process.hrtime.bigint();
    new Finalizer(this.stage).render(this.#shards, 'load-v1', this.#target);
    return process.hrtime.bigint() - start;
  }

  render(): bigint {
    const start = process.hrtime.bigint();
    this.#finalizer.render(this.#shards, 'load-v1', this.#target);
    return process.hrtime.bigint() - start;
  }
}
