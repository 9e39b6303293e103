import { KhoError } from '../errors.js';
import { checkNodeName, checkPropertyName, siblingsConflict } from './names.js';
import { type FdtNode, FdtReader, type FdtReservation } from './reader.js';
import {
  FDT_HEADER_SIZE,
  FDT_MAX_DEPTH,
  FDT_RESERVATION_SIZE,
  FDT_TOKEN_SIZE,
  nodeSize,
  propertySize,
} from './wire.js';
import { FdtWriter, type FdtWriterOptions } from './writer.js';

/**
 * A node of an {@link FdtTree}: plain maps, in the order of the blob. The methods check what they add; code that fills the
 * maps itself must keep each key equal to its child's name, and is checked by `render()` only as far as the writer can.
 */
export class TreeNode {
  readonly name: string;
  readonly properties = new Map<string, Uint8Array>();
  readonly children = new Map<string, TreeNode>();

  /** The name is not checked here, but when the node is added. */
  constructor(name: string) {
    this.name = name;
  }

  /**
   * Adds an empty child and returns it. KHO_EINVAL for a bad name; KHO_EEXIST for a name that is taken, or that libfdt
   * would confuse with a sibling's ({@link siblingsConflict}). A name without '@' is compared with every sibling.
   */
  addChild(name: string): TreeNode {
    checkNodeName(name);
    const rival = this.#rival(name);
    if (rival !== undefined) {
      const why =
        rival === name ? 'has a child of this name already' : `has '${rival}', which libfdt would confuse with it`;
      throw new KhoError('KHO_EEXIST', `cannot add '${name}': node '${this.name}' ${why}`);
    }
    const child = new TreeNode(name);
    this.children.set(name, child);
    return child;
  }

  /** The child of exactly this name. KHO_ENOENT if there is none: ask `children` where that is no error. */
  getChild(name: string): TreeNode {
    const child = this.children.get(name);
    if (child === undefined) throw new KhoError('KHO_ENOENT', `node '${this.name}' has no child '${name}'`);
    return child;
  }

  /** Removes a child with all below it. KHO_ENOENT if there is none of this name. */
  removeChild(name: string): void {
    if (!this.children.delete(name)) throw new KhoError('KHO_ENOENT', `node '${this.name}' has no child '${name}'`);
  }

  /** Adds a property. The bytes are kept, not copied. KHO_EINVAL for a bad name, KHO_EEXIST for one that is taken. */
  addProperty(name: string, value: Uint8Array): void {
    checkPropertyName(name);
    if (this.properties.has(name)) {
      throw new KhoError('KHO_EEXIST', `node '${this.name}' has a property '${name}' already`, { property: name });
    }
    this.properties.set(name, value);
  }

  /** The bytes of a property. KHO_ENOENT if there is none: ask `properties` where that is no error. */
  getProperty(name: string): Uint8Array {
    const value = this.properties.get(name);
    if (value === undefined) throw this.#noProperty(name);
    return value;
  }

  /** Removes a property. KHO_ENOENT if there is none of this name. */
  removeProperty(name: string): void {
    if (!this.properties.delete(name)) throw this.#noProperty(name);
  }

  #noProperty(name: string): KhoError {
    return new KhoError('KHO_ENOENT', `node '${this.name}' has no property '${name}'`, { property: name });
  }

  /** A sibling that a new child of this name would conflict with. */
  #rival(name: string): string | undefined {
    if (this.children.has(name)) return name;
    const at = name.indexOf('@');
    if (at >= 0) {
      const base = name.slice(0, at);
      return this.children.has(base) ? base : undefined;
    }
    for (const sibling of this.children.keys()) if (siblingsConflict(name, sibling)) return sibling;
    return undefined;
  }
}

export interface FdtRenderOptions extends Omit<FdtWriterOptions, 'strings'> {
  /** Order the strings block by name; else names come in the order of their first use, as dtc writes them. */
  sortStrings?: boolean;
}

/**
 * A flattened device tree that is not flat: maps of nodes and properties, to build, edit and compare.
 *
 * Which type to choose:
 * - to look something up in a blob, or walk it once: {@link FdtReader}. No copy, four numbers per node, and a lookup
 *   walks over the siblings before.
 * - to write a tree whose order is known: {@link FdtWriter}. No memory but the blob.
 * - to change a tree, or look up much in it: this. Two maps per node and an entry per property, lookups in constant
 *   time; `parse` and `render` walk everything. Values read from a blob are views on it, so that it must live on
 *   unchanged.
 */
export class FdtTree {
  readonly root = new TreeNode('');
  readonly reservations: FdtReservation[] = [];

  /**
   * The tree in a blob, or in what a reader has read. Names are taken as they are. Errors as {@link FdtReader.open};
   * KHO_FDT_BADSTRUCTURE too for two children or two properties of one name, which a map cannot hold.
   */
  static parse(blob: Uint8Array | FdtReader): FdtTree {
    // Read anew, strictly, if it is a reader: it may have been opened without.
    const reader = FdtReader.open(blob instanceof FdtReader ? blob.bytes : blob, { strict: true });
    const tree = new FdtTree();
    tree.reservations.push(...reader.reservations());
    const copy = (from: FdtNode, to: TreeNode): void => {
      for (const { name, value } of from.properties()) to.properties.set(name, value);
      for (const child of from.children()) {
        const below = new TreeNode(child.name);
        to.children.set(child.name, below);
        copy(child, below); // at most FDT_MAX_DEPTH deep, the reader made sure
      }
    };
    copy(reader.root, tree.root);
    return tree;
  }

  /**
   * The node at a path from the root, such as `/netdevsim0/port0`; `/` is the root. KHO_ENOENT if there is none.
   */
  get(path: string): TreeNode {
    let node = this.root;
    for (const name of path.split('/')) if (name !== '') node = node.getChild(name);
    return node;
  }

  /** Exact bytes that {@link render} yields. KHO_EINVAL for more than 64 levels. */
  size(): number {
    const names = new Set<string>();
    let size = FDT_HEADER_SIZE + (this.reservations.length + 1) * FDT_RESERVATION_SIZE + FDT_TOKEN_SIZE;
    for (const { node } of this.#nodes()) {
      size += nodeSize(node.name.length);
      for (const [name, value] of node.properties) {
        size += propertySize(value.length);
        names.add(name);
      }
    }
    for (const name of names) size += name.length + 1;
    return size;
  }

  /**
   * The tree as a blob: in `into` from `at` on, or in new memory of exactly {@link size} bytes; returns a view of exactly
   * the blob. Errors as {@link FdtWriter}'s: KHO_FDT_NOSPACE, and KHO_EINVAL for a bad name unless `checkNames` is false.
   */
  render(options: FdtRenderOptions = {}): Uint8Array {
    const { sortStrings = false, into = new Uint8Array(this.size()), ...rest } = options;
    const strings = sortStrings ? this.#propertyNames().sort() : [];
    const writer = new FdtWriter({ ...rest, into, strings });
    for (const { address, size } of this.reservations) writer.reserve(address, size);
    let open = 0;
    for (const { node, depth } of this.#nodes()) {
      for (; open >= depth; open--) writer.endNode();
      writer.beginNode(node.name);
      open = depth;
      for (const [name, value] of node.properties) writer.property(name, value);
    }
    for (; open > 0; open--) writer.endNode();
    return writer.finish();
  }

  /**
   * The first difference of two trees as text for people, or undefined if they are equal: names, values and
   * reservations, but not the order of nodes and properties, which means nothing in a device tree.
   * Mind the sense: `if (FdtTree.equal(a, b) === undefined)` they are equal.
   */
  static equal(a: FdtTree, b: FdtTree): string | undefined {
    const reservations = (tree: FdtTree) => tree.reservations.map((one) => `${one.address}+${one.size}`).join(' ');
    if (reservations(a) !== reservations(b)) {
      return `the reservations differ: ${reservations(a) || 'none'} against ${reservations(b) || 'none'}`;
    }
    return nodeDifference(a.root, b.root, '');
  }

  #propertyNames(): string[] {
    const names = new Set<string>();
    for (const { node } of this.#nodes()) for (const name of node.properties.keys()) names.add(name);
    return [...names];
  }

  /** All nodes in the order of the blob; the root has depth 1. KHO_EINVAL beyond FDT_MAX_DEPTH. */
  *#nodes(): Iterable<{ node: TreeNode; depth: number }> {
    const pending = [{ node: this.root, depth: 1 }];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { node, depth } = next;
      if (depth > FDT_MAX_DEPTH) {
        throw new KhoError('KHO_EINVAL', `node '${node.name}' is deeper than ${FDT_MAX_DEPTH} levels`);
      }
      yield next;
      for (const child of [...node.children.values()].reverse()) pending.push({ node: child, depth: depth + 1 });
    }
  }
}

function nodeDifference(a: TreeNode, b: TreeNode, path: string): string | undefined {
  const here = path === '' ? '/' : path;
  for (const [name, value] of a.properties) {
    const other = b.properties.get(name);
    if (other === undefined) return `${here}: property '${name}' is missing in the second tree`;
    if (!sameBytes(value, other)) return `${here}: property '${name}' differs: ${hex(value)} against ${hex(other)}`;
  }
  for (const name of b.properties.keys()) {
    if (!a.properties.has(name)) return `${here}: property '${name}' is missing in the first tree`;
  }
  for (const name of b.children.keys()) {
    if (!a.children.has(name)) return `${here}: child '${name}' is missing in the first tree`;
  }
  for (const [name, child] of a.children) {
    const other = b.children.get(name);
    if (other === undefined) return `${here}: child '${name}' is missing in the second tree`;
    const difference = nodeDifference(child, other, `${path}/${name}`);
    if (difference !== undefined) return difference;
  }
  return undefined;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** The first bytes of a value, as much as fits into a line. */
function hex(value: Uint8Array): string {
  const shown = Array.from(value.subarray(0, 16), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return value.length > 16 ? `[${shown} … ${value.length} bytes]` : `[${shown}]`;
}
