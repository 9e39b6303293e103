import { KhoError } from '../errors.js';
import { nodeSize, propertySize } from '../fdt/index.js';
import type { PropertyNames } from './property-names.js';
import type { NodeSink } from './sink.js';

/** One node of a shard's tree. `id` is its index in the shard. */
export interface ShardTreeNode {
  readonly name: string;
  readonly properties: Map<string, Uint8Array>;
  readonly children: Map<string, ShardTreeNode>;
  /** Children that were taken out, empty: they come back with the same id. */
  readonly removed: Map<string, ShardTreeNode>;
  readonly id: number;
}

/**
 * A shard's nodes as a plain tree, in the memory of one thread: where {@link StructBlockSink} goes on when a callback
 * does not write front to back. Nodes are numbered in the order of opening; one that is removed and added again keeps its number, so
 * that a shard may do so for ever. The names of nodes that it once had may take as many bytes as it declared, beside what it
 * has: as in the stage.
 */
export class TreeSink implements NodeSink {
  readonly root = 0;
  /** By id; undefined while removed. */
  readonly #nodes: (ShardTreeNode | undefined)[];
  readonly #names: PropertyNames;
  readonly #maxBytes: number;
  readonly #charged = new Set<string>();
  takenOut = 0;
  #usedBytes: number;
  /** What the nodes of `removed` took without what was in them. */
  #removedBytes = 0;

  constructor(names: PropertyNames, instance: string, maxBytes: number) {
    this.#names = names;
    this.#maxBytes = maxBytes;
    this.#usedBytes = 0;
    this.#nodes = [{ name: instance, properties: new Map(), children: new Map(), removed: new Map(), id: 0 }];
    this.#charge(nodeSize(instance.length));
  }

  /** The instance's node with everything that this shard wrote below it. */
  get tree(): ShardTreeNode {
    return this.#at(0);
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  open(parent: number, name: string): number {
    const node = this.#at(parent);
    const there = node.children.get(name);
    if (there !== undefined) return there.id;
    const size = nodeSize(name.length);
    this.#checkRoom(size);
    const child = node.removed.get(name) ?? this.#make(name, size);
    if (node.removed.delete(name)) this.#removedBytes -= size;
    this.#usedBytes += size;
    this.#nodes[child.id] = child;
    node.children.set(name, child);
    return child.id;
  }

  has(parent: number, name: string): boolean {
    return this.#at(parent).children.has(name);
  }

  remove(parent: number, name: string): boolean {
    const node = this.#at(parent);
    const child = node.children.get(name);
    if (child === undefined) return false;
    this.#takeOut(child, node);
    return true;
  }

  replace(parent: number, name: string): number {
    const child = this.#at(parent).children.get(name);
    if (child === undefined) return this.open(parent, name);
    this.#empty(child);
    return child.id;
  }

  nameId(name: string): number {
    return this.#names.id(name);
  }

  u32(node: number, name: number, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.#set(node, name, bytes);
  }

  u64(node: number, name: number, high: number, low: number): void {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, low, true);
    view.setUint32(4, high, true);
    this.#set(node, name, bytes);
  }

  bytes(node: number, name: number, value: Uint8Array): void {
    this.#set(node, name, Uint8Array.from(value));
  }

  #set(ref: number, nameId: number, value: Uint8Array): void {
    const node = this.#at(ref);
    const name = this.#names.text(nameId);
    if (node.properties.has(name)) {
      const path = this.#path(ref);
      throw new KhoError('KHO_EEXIST', `the node ${path} has a property '${name}' already`, { path, property: name });
    }
    this.#charge(propertySize(value.length) + (this.#charged.has(name) ? 0 : name.length + 1));
    this.#charged.add(name);
    node.properties.set(name, value);
  }

  /** A node that the shard never had, which takes `size` bytes. */
  #make(name: string, size: number): ShardTreeNode {
    if (this.#removedBytes + size > this.#maxBytes) {
      throw new KhoError(
        'KHO_ENOSPC',
        `the shard declared maxBytes ${this.#maxBytes}, and the names of nodes that it removed take ${this.#removedBytes}: there is no room for another one ('${name}'); add nodes of the same names again`,
        { size },
      );
    }
    return { name, properties: new Map(), children: new Map(), removed: new Map(), id: this.#nodes.length };
  }

  /** Takes a node and all below it out, and gives back what they took. */
  #takeOut(node: ShardTreeNode, parent: ShardTreeNode): void {
    this.#empty(node);
    const size = nodeSize(node.name.length);
    this.#usedBytes -= size;
    this.#removedBytes += size;
    this.#nodes[node.id] = undefined;
    parent.children.delete(node.name);
    parent.removed.set(node.name, node);
  }

  #empty(node: ShardTreeNode): void {
    for (const value of node.properties.values()) this.#usedBytes -= propertySize(value.length);
    node.properties.clear();
    for (const child of node.children.values()) this.#takeOut(child, node);
  }

  #charge(bytes: number): void {
    this.#checkRoom(bytes);
    this.#usedBytes += bytes;
  }

  #checkRoom(bytes: number): void {
    if (this.#usedBytes + bytes <= this.#maxBytes) return;
    throw new KhoError(
      'KHO_ENOSPC',
      `the shard declared maxBytes ${this.#maxBytes} and has used ${this.#usedBytes}; ${bytes} more do not fit`,
      { size: bytes },
    );
  }

  #at(ref: number): ShardTreeNode {
    const node = this.#nodes[ref];
    if (node === undefined)
      throw new KhoError('KHO_EINVAL', 'the node was not opened by this shard, or was removed since');
    return node;
  }

  /** The path of a node; only for messages, so it is found by searching. */
  #path(ref: number): string {
    const find = (node: ShardTreeNode, path: string): string | undefined => {
      if (node.id === ref) return path;
      for (const child of node.children.values()) {
        const found = find(child, `${path}/${child.name}`);
        if (found !== undefined) return found;
      }
      return undefined;
    };
    return find(this.tree, `/${this.tree.name}`) ?? '/';
  }
}
