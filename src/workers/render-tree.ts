import { KhoError } from '../errors.js';
import { FdtWriter, siblingsConflict } from '../fdt/index.js';
import type { RenderedBlob } from '../hashstage/index.js';
import { type PhysicalAddress, physicalAddress, type SharedPhysicalMemory } from '../memblock/index.js';
import type { ShardTreeNode, TreeSink } from './tree-sink.js';

const encoder = new TextEncoder();

/**
 * Writes a driver's FDT from the trees of its shards, in the order of the shards: mode `sequential`'s counterpart of
 * the finalizer. A node that several shards opened stands where the first of them opened it.
 *
 * KHO_EEXIST for a property that two shards gave one node; KHO_EINVAL for siblings that libfdt could not tell apart;
 * KHO_ENOSPC if the FDT does not fit into `room` bytes at `address`.
 */
export function renderShardTrees(
  shards: readonly TreeSink[],
  compatible: string,
  memory: SharedPhysicalMemory,
  address: number,
  room: number,
): RenderedBlob {
  const root: ShardTreeNode = { name: '', properties: new Map(), children: new Map(), id: 0 };
  root.properties.set('compatible', encoder.encode(`${compatible}\0`));
  const names = new Set(['compatible']);
  for (const shard of shards) merge(root, shard.tree, '', names);

  const target = memory.view(physicalAddress(address) as PhysicalAddress, room);
  const writer = new FdtWriter({ into: target, strings: [...names].sort() });
  const counts = { nodes: 0, properties: 0 };
  write(writer, root, counts);
  return { size: writer.finish().length, ...counts };
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

function write(writer: FdtWriter, node: ShardTreeNode, counts: { nodes: number; properties: number }): void {
  writer.beginNode(node.name);
  counts.nodes++;
  counts.properties += node.properties.size;
  for (const [name, value] of node.properties) writer.property(name, value);
  for (const child of node.children.values()) write(writer, child, counts);
  writer.endNode();
}
