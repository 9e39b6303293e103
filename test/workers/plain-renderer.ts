import { KhoError } from 'khorus';
import { FdtWriter, siblingsConflict } from 'khorus/fdt';
import type { ShardTreeNode } from '#dist/workers/tree-sink.js';

/** A node of an FDT, with the trees of the shards of the instances below it. */
export interface PlainSection {
  readonly name: string;
  readonly compatible: string;
  readonly trees: readonly ShardTreeNode[];
}

/**
 * What renderStructBlocks() is compared with: everything is merged node by node, each child compared with all of its
 * siblings, and written with FdtWriter.
 */
export function renderPlainTrees(sections: readonly PlainSection[]): Uint8Array {
  const root = nodeOf('');
  const names = new Set(['compatible']);
  for (const { name, compatible, trees } of sections) {
    const node = name === '' ? root : nodeOf(name);
    if (node !== root) root.children.set(name, node);
    node.properties.set('compatible', Buffer.from(`${compatible}\0`));
    for (const tree of trees) merge(node, tree, name === '' ? '' : `/${name}`, names);
  }
  const writer = new FdtWriter({ strings: [...names].sort() });
  write(writer, root);
  return writer.finish();
}

function nodeOf(name: string): ShardTreeNode {
  return { name, properties: new Map(), children: new Map(), id: 0 };
}

function merge(parent: ShardTreeNode, node: ShardTreeNode, path: string, names: Set<string>): void {
  const here = `${path}/${node.name}`;
  let target = parent.children.get(node.name);
  if (target === undefined) {
    for (const sibling of parent.children.keys()) {
      if (!siblingsConflict(sibling, node.name)) continue;
      const text = `the node ${here} cannot stand beside '${sibling}': libfdt takes one for the other`;
      throw new KhoError('KHO_EINVAL', text, { path: here });
    }
    target = nodeOf(node.name);
    parent.children.set(node.name, target);
  }
  for (const [name, value] of node.properties) {
    if (target.properties.has(name)) {
      const text = `two shards gave the node ${here} a property '${name}'`;
      throw new KhoError('KHO_EEXIST', text, { path: here, property: name });
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
