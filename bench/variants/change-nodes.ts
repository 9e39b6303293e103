/** Lookup, removal and replacement of the nodes of one shard. */
import { driverRoot, ShardWriter } from '#dist/hashstage/index.js';
import type { Measured } from '../harness/comparison.js';
import { NAMES, PROPERTIES_PER_NODE } from '../load.js';
import { instanceBytes } from '../load-size.js';
import { ReusableStage } from '../reusable-stage.js';

export interface ChangeParameters {
  readonly call: keyof typeof CALLS;
  /** Nodes of the shard. */
  readonly nodes: number;
}

const ROOT = driverRoot(0);
/** What is too short to be timed once is done this often, over all nodes again and again. */
const LOOKUPS = 100_000;

const CALLS = {
  open: (writer: ShardWriter, name: string): unknown => writer.open(ROOT, name),
  has: (writer: ShardWriter, name: string): unknown => writer.has(ROOT, name),
  'has-not': (writer: ShardWriter, name: string): unknown => writer.has(ROOT, name),
  replace: (writer: ShardWriter, name: string): unknown => writer.replace(ROOT, name),
  remove: (writer: ShardWriter, name: string): unknown => writer.remove(ROOT, name),
};

export default function changeNodes({ call, nodes }: ChangeParameters): Measured {
  const maxBytes = 2 * instanceBytes({ nodes, properties: PROPERTIES_PER_NODE });
  const reusable = new ReusableStage({ shardCount: 1, maxBytes, threads: 1 });
  const names = Array.from({ length: nodes }, (_, index) => `node${index}`);
  const wanted = call === 'has-not' ? names.map((name) => `no-${name}`) : names;
  const changes = call === 'replace' || call === 'remove';
  const passes = changes ? 1 : Math.ceil(LOOKUPS / nodes);
  return {
    measure() {
      const writer = fill(reusable, names, maxBytes);
      const start = process.hrtime.bigint();
      for (let pass = 0; pass < passes; pass++) for (const name of wanted) CALLS[call](writer, name);
      return Number(process.hrtime.bigint() - start) / (passes * nodes);
    },
  };
}

function fill(reusable: ReusableStage, names: readonly string[], maxBytes: number): ShardWriter {
  const stage = reusable.rewind();
  const ids = NAMES.map((name) => stage.nameId(name));
  const writer = new ShardWriter(stage, 0, maxBytes);
  for (const [index, name] of names.entries()) {
    const node = writer.open(ROOT, name);
    for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
      writer.u64(node, ids[(index + property) % ids.length] as number, 0, index);
    }
  }
  return writer;
}
