import { KhoError } from 'khorus';
import { FdtWriter, siblingsConflict } from 'khorus/fdt';
import type { FdtFrame } from '#dist/hashstage/index.js';
import type { ShardTreeNode } from '#dist/workers/tree-sink.js';

/**
 * What renderStructBlocks() is compared with: an FDT of a frame and the trees of shards, merged node by node, each child
 * compared with all of its siblings, and written with FdtWriter.
 */
export function renderPlainTrees(frame: FdtFrame, treeOf: (shard: number) => ShardTreeNode): Uint8Array {
  const names = new Set<string>();
  const root = join(frame, treeOf, names);
  const writer = new FdtWriter({ strings: [...names].sort() });
  write(writer, root);
  return writer.finish();
}

function nodeOf(name: string, properties: ReadonlyMap<string, Uint8Array> = new Map()): ShardTreeNode {
  return { name, properties: new Map(properties), children: new Map(), removed: new Map(), id: 0 };
}

function join(frame: FdtFrame, treeOf: (shard: number) => ShardTreeNode, names: Set<string>): ShardTreeNode {
  const node = nodeOf(frame.name, frame.properties);
  for (const name of frame.properties.keys()) names.add(name);
  for (const child of frame.children.values()) node.children.set(child.name, join(child, treeOf, names));
  const top = nodeOf('');
  const written = new Set<string>();
  for (const shard of frame.shards ?? []) merge(top, treeOf(shard), '', written);
  const { name = '', values = new Map<string, Uint8Array>() } = frame.insert ?? {};
  if (written.has(name)) {
    throw new KhoError(
      'KHO_EEXIST',
      `a shard wrote a property '${name}', which only the core may give to a node of this FDT`,
    );
  }
  if (name !== '') names.add(name);
  for (const each of written) names.add(each);
  for (const child of top.children.values()) {
    const value = values.get(child.name);
    const first: [string, Uint8Array][] = value === undefined ? [] : [[name, value]];
    node.children.set(child.name, { ...child, properties: new Map([...first, ...child.properties]) });
  }
  return node;
}

function merge(parent: ShardTreeNode, node: ShardTreeNode, path: string, names: Set<string>): void {
  const here = `${path}/${node.name}`;
  let target = parent.children.get(node.name);
  if (target === undefined) {
    for (const sibling of parent.children.keys()) {
      if (!siblingsConflict(sibling, node.name)) continue;
      throw new KhoError(
        'KHO_EINVAL',
        `the node ${here} cannot stand beside '${sibling}': libfdt takes one for the other`,
      );
    }
    target = nodeOf(node.name);
    parent.children.set(node.name, target);
  }
  for (const [name, value] of node.properties) {
    if (target.properties.has(name)) {
      throw new KhoError('KHO_EEXIST', `two shards gave the node ${here} a property '${name}'`);
    }
    target.properties.set(name, value);
    names.add(name);
  }
  for (const child of node.children.values()) merge(target, child, here, names);
}

function write(writer: FdtWriter, node: ShardTreeNode): void {
  writer.beginNode(node.name);
  for (const [name, value] of node.properties) writer.property(name, value);
  for (const child of node.children.values()) write(writer, child);
  writer.endNode();
}
