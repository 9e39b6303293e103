import { driverRoot, ShardWriter, Stage } from '#dist/hashstage/index.js';
import { INSTANCES, NAMES, PROPERTIES_PER_NODE } from './load.js';
import { instanceBytes } from './load-size.js';

/** Shards of the one driver in a filled stage. */
export const SHARDS: readonly number[] = Array.from({ length: INSTANCES }, (_, shard) => shard);

/** A stage with one driver's instances in it, of as many properties; with `names` distinct names. */
export function fillStage(properties: number, names = NAMES.length): { stage: Stage; maxBytes: number } {
  const texts = Array.from({ length: names }, (_, index) => `property-${index}`);
  const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
  const nameBytes = texts.reduce((sum, text) => sum + text.length + 1, 0);
  const maxBytes = instanceBytes({ nodes, properties: PROPERTIES_PER_NODE }) + (names > NAMES.length ? nameBytes : 0);
  const stage = Stage.create({ shardCount: INSTANCES, maxBytes: maxBytes * INSTANCES, threads: 1 });
  const ids = texts.map((text) => stage.nameId(text));
  for (const shard of SHARDS) {
    const writer = new ShardWriter(stage, shard, maxBytes);
    const root = writer.open(driverRoot(0), `load${shard}`);
    for (let index = 0; index < nodes; index++) {
      const node = writer.open(root, `node${index}`);
      // With many names each node has its own, with few they take turns.
      const first = names > NAMES.length ? (shard * nodes + index) * PROPERTIES_PER_NODE : index;
      for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
        writer.u64(node, ids[(first + property) % names] as number, 0, index);
      }
    }
  }
  return { stage, maxBytes: maxBytes * INSTANCES };
}
