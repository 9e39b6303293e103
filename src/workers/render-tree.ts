import { KhoError } from '../errors.js';
import { FdtWriter, nodeSize, propertySize, siblingsConflict } from '../fdt/index.js';
import type { FdtFrame, RenderedBlob, RenderedFrame } from '../hashstage/index.js';
import { physicalAddress } from '../memblock/index.js';
import type { RenderRoom } from './render-stage.js';
import type { ShardTreeNode, TreeSink } from './tree-sink.js';

/**
 * Writes an FDT from its frame and the trees of shards, in the order of the shards: mode `sequential`'s counterpart of
 * the finalizer. A node that several shards opened stands where the first of them opened it.
 *
 * KHO_EEXIST for a property that two shards gave one node, or that is the frame's to insert; KHO_EINVAL for siblings that
 * libfdt could not tell apart; both name the driver if it is a node of the frame. KHO_ENOSPC if the FDT does not fit.
 */
export function renderShardTrees(
  frame: FdtFrame,
  treeOf: (shard: number) => TreeSink | undefined,
  { memory, address, size }: RenderRoom,
): RenderedFrame {
  const names = new Set<string>();
  const root = join(frame, treeOf, names);
  const start = physicalAddress(address);
  // It may lie across two segments of memory: then it is made elsewhere and copied.
  const direct = memory.isContiguous(start, size);
  const target = direct ? memory.view(start, size) : new Uint8Array(size);
  const parts = new Map<string, RenderedBlob>();
  try {
    const writer = new FdtWriter({ into: target, strings: [...names].sort() });
    const { nodes, properties } = write(writer, root, frame, parts);
    const blob = writer.finish();
    if (!direct) memory.write(start, blob);
    return { size: blob.length, nodes, properties, parts };
  } catch (error) {
    if (!(error instanceof KhoError && error.code === 'KHO_FDT_NOSPACE')) throw error;
    throw new KhoError('KHO_ENOSPC', `the FDT does not fit into the ${size} bytes that were reserved`, { size });
  }
}

/** The frame's node with all that comes below it. */
function join(frame: FdtFrame, treeOf: (shard: number) => TreeSink | undefined, names: Set<string>): ShardTreeNode {
  const node: ShardTreeNode = { name: frame.name, properties: new Map(frame.properties), children: new Map(), id: 0 };
  for (const name of frame.properties.keys()) names.add(name);
  for (const child of frame.children.values()) node.children.set(child.name, join(child, treeOf, names));
  try {
    const top = joinShards(frame, treeOf, names);
    for (const child of top.children.values()) node.children.set(child.name, child);
    return node;
  } catch (error) {
    throw frame.name === '' ? error : KhoError.from(error).with({ driver: frame.name });
  }
}

/** What the shards of a node of the frame wrote, below a node without a name. */
function joinShards(
  { shards = [], insert }: FdtFrame,
  treeOf: (shard: number) => TreeSink | undefined,
  names: Set<string>,
): ShardTreeNode {
  const top: ShardTreeNode = { name: '', properties: new Map(), children: new Map(), id: 0 };
  const written = new Set<string>();
  for (const shard of shards) {
    const sink = treeOf(shard);
    if (sink !== undefined) merge(top, sink.tree, '', written);
  }
  for (const name of written) names.add(name);
  if (insert === undefined) return top;
  if (written.has(insert.name)) {
    const text = `a shard wrote a property '${insert.name}', which only the core may give to a node of this FDT`;
    throw new KhoError('KHO_EEXIST', text, { property: insert.name });
  }
  names.add(insert.name);
  for (const [name, child] of top.children) {
    const value = insert.values.get(name);
    if (value === undefined) continue;
    top.children.set(name, { ...child, properties: new Map([[insert.name, value], ...child.properties]) });
  }
  return top;
}

/** Adds `node` and what is below it to `parent`; a node that is there already gets the new parts at its end. */
function merge(parent: ShardTreeNode, node: ShardTreeNode, path: string, names: Set<string>): void {
  const here = `${path}/${node.name}`;
  let target = parent.children.get(node.name);
  if (target === undefined) {
    for (const sibling of parent.children.keys()) {
      if (siblingsConflict(sibling, node.name)) {
        throw new KhoError(
          'KHO_EINVAL',
          `the node ${here} cannot stand beside '${sibling}': libfdt takes one for the other`,
          { path: here },
        );
      }
    }
    target = { name: node.name, properties: new Map(), children: new Map(), id: 0 };
    parent.children.set(node.name, target);
  }
  for (const [name, value] of node.properties) {
    if (target.properties.has(name)) {
      throw new KhoError('KHO_EEXIST', `two shards gave the node ${here} a property '${name}'`, {
        path: here,
        property: name,
      });
    }
    target.properties.set(name, value);
    names.add(name);
  }
  for (const child of node.children.values()) merge(target, child, here, names);
}

/** Writes a node and all below it, and says what it came to; `frame` is undefined below the frame. */
function write(
  writer: FdtWriter,
  node: ShardTreeNode,
  frame: FdtFrame | undefined,
  parts: Map<string, RenderedBlob>,
): RenderedBlob {
  writer.beginNode(node.name);
  let size = nodeSize(node.name.length);
  let nodes = 1;
  let { size: properties } = node.properties;
  for (const [name, value] of node.properties) {
    writer.property(name, value);
    size += propertySize(value.length);
  }
  for (const child of node.children.values()) {
    const below = write(writer, child, frame?.children.get(child.name), parts);
    size += below.size;
    nodes += below.nodes;
    properties += below.properties;
  }
  writer.endNode();
  const blob = { size, nodes, properties };
  if (frame?.shards !== undefined) parts.set(frame.name, blob);
  return blob;
}
