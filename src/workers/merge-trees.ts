import { KhoError } from '../errors.js';
import { SiblingNames } from '../fdt/sibling-names.js';
import type { NodeSink } from './sink.js';
import type { ShardTreeNode } from './tree-sink.js';

/** A node with what all shards wrote of it. */
interface MergedNode {
  readonly properties: Map<string, Uint8Array>;
  readonly children: Map<string, MergedNode>;
  readonly names: SiblingNames;
}

/**
 * Merges the trees of one instance's shards, in their order, and writes the result front to back into `sink`. A node that
 * several shards opened stands where the first of them opened it; what a later shard adds comes at its end.
 *
 * `path` is the instance's, for messages. KHO_EEXIST for a property that two shards gave one node; KHO_EINVAL for siblings
 * that libfdt could not tell apart.
 */
export function mergeTrees(trees: readonly ShardTreeNode[], path: string, sink: NodeSink): void {
  const merged = emptyNode();
  for (const tree of trees) add(merged, tree, path);
  write(merged, sink, sink.root);
}

function emptyNode(): MergedNode {
  return { properties: new Map(), children: new Map(), names: new SiblingNames() };
}

function add(target: MergedNode, node: ShardTreeNode, path: string): void {
  for (const [name, value] of node.properties) {
    if (target.properties.has(name)) {
      throw new KhoError('KHO_EEXIST', `two shards gave the node ${path} a property '${name}'`, {
        path,
        property: name,
      });
    }
    target.properties.set(name, value);
  }
  for (const child of node.children.values()) {
    const here = `${path}/${child.name}`;
    let there = target.children.get(child.name);
    if (there === undefined) {
      target.names.add(child.name, here);
      there = emptyNode();
      target.children.set(child.name, there);
    }
    add(there, child, here);
  }
}

function write(node: MergedNode, sink: NodeSink, ref: number): void {
  for (const [name, value] of node.properties) sink.bytes(ref, sink.nameId(name), value);
  for (const [name, child] of node.children) write(child, sink, sink.open(ref, name));
}
