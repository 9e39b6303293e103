import { KhoError } from '../errors.js';
import { readU64 } from './integers.js';
import { FdtProperty } from './property.js';
import { type Layout, readWord, type Structure, structureNode, walkBlob } from './walk.js';
import { align4, FDT_NOP, FDT_PROP, FDT_PROPERTY_HEADER_SIZE, FDT_RESERVATION_SIZE, FDT_TOKEN_SIZE } from './wire.js';

/** One entry of the memory reservation map: physical address and size in bytes. */
export interface FdtReservation {
  address: bigint;
  size: bigint;
}

export interface FdtReaderOptions {
  /** Refuse two nodes, or two properties, of one name in the same node (KHO_FDT_BADSTRUCTURE). libfdt accepts them. */
  strict?: boolean;
}

/**
 * Reads a flattened device tree in place, from any Uint8Array, also on shared memory and at any alignment.
 *
 * {@link FdtReader.open} judges the whole blob once: the header, the reservation map and every token. What it accepts can
 * be read without a further error about the blob's form; only a lookup (KHO_FDT_NOTFOUND) and the interpretation of a
 * value (KHO_FDT_BADVALUE) can fail. It keeps four numbers per node and nothing per property.
 *
 * If another thread changes the blob meanwhile, the reader yields wrong names and values, but it still ends and still
 * reads nothing outside of the blob.
 *
 * | | |
 * |---|---|
 * | `open` | the blob's size |
 * | `root`, `child(name)`, next child | children passed over; what lies below them is skipped |
 * | `property(name)` | the properties before it |
 *
 * @example
 * ```ts
 * import { FdtReader, FdtWriter } from 'khorus/fdt';
 *
 * const writer = new FdtWriter();
 * writer.beginNode('');
 * writer.string('compatible', 'kho-v4');
 * writer.u64('preserved-memory-map', 0x117150000, 'little');
 * writer.endNode();
 *
 * const { root } = FdtReader.open(writer.finish());
 * console.log(root.property('compatible')?.string()); // kho-v4
 * console.log(root.property('preserved-memory-map')?.number64('little').toString(16)); // 117150000
 * ```
 */
export class FdtReader {
  readonly root: FdtNode;
  /** Bytes of the blob; what was given to `open` may be longer. */
  readonly totalSize: number;
  readonly version: number;
  readonly bootCpuid: number;
  /** Exactly the blob. */
  readonly bytes: Uint8Array;
  /** @internal */
  readonly structure: Structure;
  readonly #layout: Layout;
  readonly #names = new Map<number, string>();

  private constructor(layout: Layout, structure: Structure) {
    this.#layout = layout;
    this.structure = structure;
    this.bytes = layout.bytes;
    this.totalSize = layout.bytes.length;
    this.version = layout.version;
    this.bootCpuid = layout.bootCpuid;
    this.root = new FdtNode(this, 0, undefined);
  }

  /**
   * Checks the blob at the start of `bytes`, which may be longer than it.
   *
   * Each error has the byte offset of the finding in `details.offset`.
   * - KHO_FDT_TRUNCATED: `bytes` ends before the header or before totalsize
   * - KHO_FDT_BADMAGIC: not a flattened device tree
   * - KHO_FDT_BADVERSION: older than version 17, or declared unreadable for readers of 17
   * - KHO_FDT_BADLAYOUT: a block outside of the blob or misaligned, or an endless reservation map
   * - KHO_FDT_BADSTRUCTURE: tokens that make no tree, a property behind a child (other readers would not see it), names
   *   without end or longer than 255 bytes, more than 64 levels
   */
  static open(bytes: Uint8Array, options: FdtReaderOptions = {}): FdtReader {
    const { layout, structure } = walkBlob(bytes);
    const reader = new FdtReader(layout, structure);
    if (options.strict) checkDuplicates(reader);
    return reader;
  }

  /** The memory reservation map, without the entry that ends it. */
  *reservations(): Iterable<FdtReservation> {
    const { bytes, reservationsAt, reservationCount } = this.#layout;
    for (let i = 0; i < reservationCount; i++) {
      const at = reservationsAt + i * FDT_RESERVATION_SIZE;
      yield { address: readU64(bytes, at, 'big'), size: readU64(bytes, at + 8, 'big') };
    }
  }

  /** @internal The name at an offset in the strings block. */
  stringAt(offset: number): string {
    const known = this.#names.get(offset);
    if (known !== undefined) return known;
    const { bytes, stringsAt, stringsEnd } = this.#layout;
    const name = latin1Until0(bytes, stringsAt + offset, stringsEnd);
    this.#names.set(offset, name);
    return name;
  }

  /** @internal End of the structure block, in bytes of the blob. */
  get structureEnd(): number {
    return this.#layout.structureEnd;
  }
}

/** A node of a {@link FdtReader}. Cheap to make, and made anew by each access: compare by `offset`, not by identity. */
export class FdtNode {
  /** Byte offset of the node's BEGIN_NODE token in the blob. */
  readonly offset: number;
  /** Undefined for the root. */
  readonly parent: FdtNode | undefined;
  readonly #reader: FdtReader;
  readonly #index: number;
  #name: string | undefined;

  /** @internal */
  constructor(reader: FdtReader, index: number, parent: FdtNode | undefined) {
    this.#reader = reader;
    this.#index = index;
    this.parent = parent;
    this.offset = structureNode(reader.structure, index).offset;
  }

  /** The name with its unit address, one character per byte; empty for the root. */
  get name(): string {
    this.#name ??= latin1Until0(this.#reader.bytes, this.offset + FDT_TOKEN_SIZE, this.#reader.structureEnd);
    return this.#name;
  }

  /** `/` for the root, else the names from the root on, such as `/netdevsim0/port0`. */
  get path(): string {
    if (this.parent === undefined) return '/';
    return this.parent.parent === undefined ? `/${this.name}` : `${this.parent.path}/${this.name}`;
  }

  /** The node's properties, in the order of the blob. */
  *properties(): Iterable<FdtProperty> {
    const { bytes, structureEnd } = this.#reader;
    let at = structureNode(this.#reader.structure, this.#index).propertiesAt;
    while (at < structureEnd) {
      const token = readWord(bytes, at);
      if (token === FDT_PROP) {
        const length = readWord(bytes, at + FDT_TOKEN_SIZE);
        const valueAt = at + FDT_PROPERTY_HEADER_SIZE;
        // The bound matters only if another thread changes the blob meanwhile.
        const value = bytes.subarray(valueAt, Math.min(valueAt + length, structureEnd));
        yield new FdtProperty(this, this.#reader.stringAt(readWord(bytes, at + 2 * FDT_TOKEN_SIZE)), value, at);
        at = valueAt + align4(length);
      } else if (token === FDT_NOP) {
        at += FDT_TOKEN_SIZE;
      } else {
        return;
      }
    }
  }

  /** The first property of this name, if there is one. */
  property(name: string): FdtProperty | undefined {
    for (const property of this.properties()) if (property.name === name) return property;
    return undefined;
  }

  /** The node's children, in the order of the blob. */
  *children(): Iterable<FdtNode> {
    const { structure } = this.#reader;
    const { end } = structureNode(structure, this.#index);
    for (let child = this.#index + 1; child < end; child = structureNode(structure, child).end) {
      yield new FdtNode(this.#reader, child, this);
    }
  }

  /** The first child of exactly this name, unit address included, if there is one. */
  child(name: string): FdtNode | undefined {
    for (const child of this.children()) if (child.name === name) return child;
    return undefined;
  }

  /**
   * The node at a path: from the root where it starts with '/', else from this node; the empty path is this node.
   * Names match exactly. KHO_FDT_NOTFOUND says which name is missing where.
   */
  get(path: string): FdtNode {
    let node: FdtNode = path.startsWith('/') ? this.#reader.root : this;
    for (const name of path.split('/')) {
      if (name === '') continue;
      const child = node.child(name);
      if (child === undefined) {
        throw new KhoError('KHO_FDT_NOTFOUND', `node ${node.path} has no child '${name}', at offset ${node.offset}`, {
          path: node.path,
          offset: node.offset,
        });
      }
      node = child;
    }
    return node;
  }
}

function checkDuplicates(reader: FdtReader): void {
  const pending = [reader.root];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    const taken = new Set<string>();
    for (const property of node.properties()) {
      if (taken.has(property.name)) throw duplicate('properties', property.name, node, property.offset);
      taken.add(property.name);
    }
    taken.clear();
    for (const child of node.children()) {
      if (taken.has(child.name)) throw duplicate('children', child.name, node, child.offset);
      taken.add(child.name);
      pending.push(child);
    }
  }
}

function duplicate(kind: string, name: string, node: FdtNode, offset: number): KhoError {
  const message = `node ${node.path} has two ${kind} of the name '${name}', the second at offset ${offset}`;
  return new KhoError('KHO_FDT_BADSTRUCTURE', message, { path: node.path, offset });
}

/** Text up to the next NUL or `end`, one character per byte: names are ASCII, but foreign blobs may hold anything. */
function latin1Until0(bytes: Uint8Array, at: number, end: number): string {
  let text = '';
  for (let i = at; i < end && bytes[i] !== 0; i++) text += String.fromCharCode(bytes[i]);
  return text;
}
