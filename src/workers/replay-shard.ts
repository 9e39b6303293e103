import { wire32 } from '../fdt/index.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_USED,
  NODE_PARENT,
  type NodeRef,
  PROPERTY_LENGTH,
  PROPERTY_NAME,
  PROPERTY_VALUE,
  propertyWords,
  SHARD_FIRST,
  SHARD_WORDS,
  type Stage,
} from '../hashstage/index.js';
import type { NodeSink } from './sink.js';

/**
 * Writes what a shard has in the stage into another sink of the same shard, whose name ids are the stage's: mode `subfdt`
 * keeps early nodes in the stage, because the thread that serializes may be another one. For the thread whose the shard
 * is now. Errors are the sink's.
 */
export function replayShard(stage: Stage, shard: number, sink: NodeSink): void {
  const { words, bytes, geometry } = stage;
  const nodes = new Map<NodeRef, NodeRef>();
  const nodeOf = (ref: NodeRef): NodeRef => {
    let node = nodes.get(ref);
    if (node === undefined) {
      const parent = words[ref + NODE_PARENT] as number;
      // A node is opened after its parent, and the instance's is the sink's own.
      node = parent < 0 ? sink.root : sink.open(nodeOf(parent), stage.nodeName(ref));
      nodes.set(ref, node);
    }
    return node;
  };
  let fragment = words[geometry.shardsAt + shard * SHARD_WORDS + SHARD_FIRST] as number;
  for (; fragment !== 0; fragment = words[fragment + FRAGMENT_NEXT] as number) {
    const ref = words[fragment + FRAGMENT_NODE] as number;
    const node = nodeOf(ref);
    const end = fragment + FRAGMENT_DATA + (words[fragment + FRAGMENT_USED] as number);
    for (let at = fragment + FRAGMENT_DATA; at < end; at += propertyWords(words, at)) {
      const start = (at + PROPERTY_VALUE) * 4;
      const length = wire32(words[at + PROPERTY_LENGTH] as number);
      sink.bytes(node, words[at + PROPERTY_NAME] as number, bytes.subarray(start, start + length));
    }
  }
}
