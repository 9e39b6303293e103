import { KhoError } from '../errors.js';
import { writeHeader } from './header.js';
import { checkU32, checkU64 } from './integers.js';
import { checkForeignName, checkNodeName, checkPropertyName } from './names.js';
import { StringTable } from './strings.js';
import { putUtf8, utf8Length } from './text.js';
import {
  align4,
  type ByteOrder,
  FDT_ALIGNMENT,
  FDT_BEGIN_NODE_WIRE,
  FDT_END_NODE_WIRE,
  FDT_END_WIRE,
  FDT_HEADER_SIZE,
  FDT_MAX_DEPTH,
  FDT_MAX_SIZE,
  FDT_PROP_WIRE,
  FDT_RESERVATION_SIZE,
  FDT_TOKEN_SIZE,
  nodeSize,
  propertySize,
  swap32,
  wire32,
} from './wire.js';

export interface FdtWriterOptions {
  /**
   * Where to write; without it, the writer grows memory of its own. The blob's first byte must be 8-aligned in the
   * underlying buffer (KHO_EINVAL): Buffers from Node's pool may not be.
   */
  into?: Uint8Array;
  /** Byte position of the blob in `into`; 0 by default. */
  at?: number;
  /**
   * The strings block begins with these names in this order; others are appended as they come. With all names given in
   * sorted order, offsets do not depend on the order in which properties were written.
   */
  strings?: readonly string[];
  /** `false` lets names pass that the specification forbids, for copying foreign trees; true by default. */
  checkNames?: boolean;
}

/** What may be called next; see the drawing at {@link FdtWriter}. */
type State = 'reservations' | 'properties' | 'children' | 'closed' | 'finished';

/** First size of memory that the writer allocates itself: a page, as kho's blobs have. */
const FIRST_SIZE = 4096;
/** What a C string, or UTF-8, cannot hold. */
const NOT_A_STRING = /[\0\p{Cs}]/u;
/** The largest blob in whole words. */
const SIZE_LIMIT = FDT_MAX_SIZE - (FDT_MAX_SIZE % FDT_TOKEN_SIZE);
/** Up to this many bytes, a loop is faster than TypedArray.prototype.set(), which has a fixed cost. */
const LOOP_LIMIT = 32;

/**
 * Writes a flattened device tree from front to back, version 17, blocks in libfdt's order: header, reservation map at
 * byte 40, structure, strings; totalsize is the end of the strings. Each property name is stored once.
 *
 * A state machine; any other call is KHO_FDT_BADSTATE and changes nothing:
 * ```
 *  new ─▶ reservations ──beginNode('')──▶ properties ◀──beginNode(name)── children
 *           ↺ reserve                       ↺ property, u32, …  ──endNode──▶ ↺ endNode
 *                                           ↺ beginNode(name)                │ endNode of the root
 *                                                                            ▼
 *                                              finished ◀──finish()──────  closed
 * ```
 * Properties come before children, since libfdt would not find them behind. A property's name is unique in its node
 * (KHO_EEXIST). Siblings are not compared, which would cost memory for each: FdtTree does.
 *
 * Room: with `into`, a call that does not fit is KHO_FDT_NOSPACE. It counts the strings block and all tokens that still
 * must close the tree, and it changes nothing. So once the root is
 * open, endNode() and finish() never lack room.
 *
 * For one thread at a time; `into` may lie on shared memory.
 */
export class FdtWriter {
  #words: Int32Array<ArrayBufferLike>;
  #bytes: Uint8Array;
  readonly #growing: boolean;
  readonly #checkNames: boolean;
  readonly #strings: StringTable;
  #state: State = 'reservations';
  /** Bytes written so far, from the blob's start. */
  #size = FDT_HEADER_SIZE;
  #structureAt = 0;
  #depth = 0;
  /** Number of the last begun node, by which the string table knows a name that was used twice in it. */
  #node = 0;

  constructor(options: FdtWriterOptions = {}) {
    const { into, at = 0, strings = [], checkNames = true } = options;
    this.#growing = into === undefined;
    this.#checkNames = checkNames;
    this.#strings = new StringTable();
    this.#bytes = into === undefined ? new Uint8Array(FIRST_SIZE) : room(into, at);
    this.#words = wordsOf(this.#bytes);
    for (const name of strings) {
      this.#checkPropertyName(name);
      this.#strings.add(name);
    }
    this.#need(0);
  }

  /**
   * Adds a memory reservation, physical address and size in bytes; only before the root.
   * KHO_EINVAL beyond 64 bits, or for no bytes.
   */
  reserve(address: number | bigint, size: number | bigint): void {
    if (this.#state !== 'reservations') throw this.#badState('reserve');
    checkU64('address of a reservation', address);
    checkU64('size of a reservation', size);
    // libfdt and dtc take an entry of size 0 for the end of the map: whatever followed it would be lost.
    if (Number(size) === 0) throw new KhoError('KHO_EINVAL', 'a memory reservation of 0 bytes would end the map');
    this.#need(FDT_RESERVATION_SIZE);
    this.#put64(address, 'big');
    this.#put64(size, 'big');
  }

  /** Opens a node below the open one; the first is the root, whose name is empty. KHO_EINVAL for a bad name or depth. */
  beginNode(name: string): void {
    if (this.#state === 'closed' || this.#state === 'finished') throw this.#badState('beginNode');
    const root = this.#state === 'reservations';
    if (root) {
      if (name !== '') throw new KhoError('KHO_EINVAL', `the first node is the root, its name is '', not '${name}'`);
    } else if (this.#checkNames) {
      checkNodeName(name);
    } else {
      checkForeignName(name);
    }
    if (this.#depth === FDT_MAX_DEPTH) {
      throw new KhoError('KHO_EINVAL', `node '${name}' would be deeper than ${FDT_MAX_DEPTH} levels`);
    }
    if (root) {
      this.#need(nodeSize(0));
      this.#put64(0, 'big');
      this.#put64(0, 'big');
      this.#structureAt = this.#size;
    } else {
      this.#need(nodeSize(name.length));
    }
    this.#putWord(FDT_BEGIN_NODE_WIRE);
    this.#size += putText(this.#bytes, this.#size, name, align4(name.length + 1));
    this.#depth++;
    this.#node++;
    this.#state = 'properties';
  }

  /** Adds a property to the open node, with these bytes. KHO_EINVAL for a bad name, KHO_EEXIST for one it has. */
  property(name: string, value: Uint8Array): void {
    const { length } = value;
    this.#beginProperty('property', name, length);
    const bytes = this.#bytes;
    const at = this.#size;
    this.#clearPadding(length);
    if (length <= LOOP_LIMIT) for (let i = 0; i < length; i++) bytes[at + i] = value[i];
    else bytes.set(value, at);
    this.#size = at + align4(length);
  }

  /** Adds a property of one 32-bit integer. KHO_EINVAL unless it is an integer in [0, 2^32). */
  u32(name: string, value: number, order: ByteOrder): void {
    checkU32(name, value);
    this.#beginProperty('u32', name, 4);
    this.#put32(value, order);
  }

  /** Adds a property of 32-bit integers, each as {@link u32} wants it. */
  u32s(name: string, values: readonly number[], order: ByteOrder): void {
    for (const value of values) checkU32(name, value);
    this.#beginProperty('u32s', name, values.length * 4);
    for (const value of values) this.#put32(value, order);
  }

  /** Adds a property of one 64-bit integer. KHO_EINVAL unless it is in [0, 2^64), and below 2^53 if it is a number. */
  u64(name: string, value: number | bigint, order: ByteOrder): void {
    checkU64(name, value);
    this.#beginProperty('u64', name, 8);
    this.#put64(value, order);
  }

  /** Adds a property of 64-bit integers, each as {@link u64} wants it. */
  u64s(name: string, values: readonly (number | bigint)[], order: ByteOrder): void {
    for (const value of values) checkU64(name, value);
    this.#beginProperty('u64s', name, values.length * 8);
    for (const value of values) this.#put64(value, order);
  }

  /** Adds a property of one string, in UTF-8 with a NUL at its end. KHO_EINVAL for a NUL or half a surrogate pair in it. */
  string(name: string, value: string): void {
    this.#putStrings('string', name, [value]);
  }

  /** Adds a property of strings, each with its NUL, such as `compatible`; of no strings, an empty property. */
  strings(name: string, values: readonly string[]): void {
    this.#putStrings('strings', name, values);
  }

  /** Adds a property without value, whose presence means yes. */
  empty(name: string): void {
    this.#beginProperty('empty', name, 0);
  }

  /** Closes the open node. Never lacks room. */
  endNode(): void {
    if (this.#state !== 'properties' && this.#state !== 'children') throw this.#badState('endNode');
    this.#putWord(FDT_END_NODE_WIRE);
    this.#state = --this.#depth === 0 ? 'closed' : 'children';
  }

  /** Completes the blob once the root is closed, and returns a view of exactly it. Never lacks room. */
  finish(): Uint8Array {
    if (this.#state !== 'closed') throw this.#badState('finish');
    this.#putWord(FDT_END_WIRE);
    const stringsAt = this.#size;
    const { size: stringsSize } = this.#strings;
    this.#strings.write(this.#bytes, stringsAt);
    const totalSize = stringsAt + stringsSize;
    writeHeader(this.#words, {
      totalSize,
      structureAt: this.#structureAt,
      structureSize: stringsAt - this.#structureAt,
      reservationsAt: FDT_HEADER_SIZE,
      stringsAt,
      stringsSize,
    });
    this.#state = 'finished';
    return this.#bytes.subarray(0, totalSize);
  }

  #putStrings(call: string, name: string, values: readonly string[]): void {
    let length = 0;
    for (const value of values) {
      if (NOT_A_STRING.test(value)) {
        const message = `property '${name}' would have a string with a NUL or half a surrogate pair in it`;
        throw new KhoError('KHO_EINVAL', message, { property: name });
      }
      length += utf8Length(value) + 1;
    }
    this.#beginProperty(call, name, length);
    this.#clearPadding(length);
    let at = this.#size;
    for (const value of values) {
      at += putUtf8(this.#bytes, at, value);
      this.#bytes[at++] = 0;
    }
    this.#size += align4(length);
  }

  /** Everything of a property but its value, once it is certain to succeed. */
  #beginProperty(call: string, name: string, length: number): void {
    if (this.#state !== 'properties') throw this.#badState(call);
    let id = this.#strings.find(name);
    if (id === undefined) {
      this.#checkPropertyName(name);
      this.#need(propertySize(length) + name.length + 1);
      id = this.#strings.add(name);
    } else {
      if (this.#strings.usedBy(id, this.#node)) {
        throw new KhoError('KHO_EEXIST', `the node has a property '${name}' already`, { property: name });
      }
      this.#need(propertySize(length));
    }
    this.#strings.use(id, this.#node);
    this.#putWord(FDT_PROP_WIRE);
    this.#putWord(wire32(length));
    this.#putWord(wire32(this.#strings.offset(id)));
  }

  #checkPropertyName(name: string): void {
    if (this.#checkNames) checkPropertyName(name);
    else checkForeignName(name);
  }

  #badState(call: string): KhoError {
    return new KhoError('KHO_FDT_BADSTATE', `${call}() is not possible ${SITUATION[this.#state]}`, { call });
  }

  /** Makes sure of room for `more` bytes and for all that must still follow them. */
  #need(more: number): void {
    const terminator = this.#state === 'reservations' ? FDT_RESERVATION_SIZE : 0;
    const closing = this.#depth * FDT_TOKEN_SIZE + FDT_TOKEN_SIZE;
    const needed = this.#size + terminator + more + closing + this.#strings.size;
    if (needed <= this.#bytes.length) return;
    if (!this.#growing || needed > SIZE_LIMIT) {
      const there = this.#growing ? SIZE_LIMIT : this.#bytes.length;
      throw new KhoError('KHO_FDT_NOSPACE', `the blob needs ${needed} bytes, ${there} are there`, {
        offset: this.#size,
        size: needed,
      });
    }
    const larger = new Uint8Array(align4(Math.min(Math.max(needed, this.#bytes.length * 2), SIZE_LIMIT)));
    larger.set(this.#bytes.subarray(0, this.#size));
    this.#bytes = larger;
    this.#words = wordsOf(larger);
  }

  /** Zeroes the word in which a value of `length` bytes ends: the room may hold anything. */
  #clearPadding(length: number): void {
    if (length % FDT_TOKEN_SIZE !== 0) this.#words[(this.#size + length) >>> 2] = 0;
  }

  #putWord(wire: number): void {
    this.#words[this.#size >>> 2] = wire;
    this.#size += FDT_TOKEN_SIZE;
  }

  #put32(value: number, order: ByteOrder): void {
    const wire = wire32(value);
    this.#putWord(order === 'big' ? wire : swap32(wire));
  }

  #put64(value: number | bigint, order: ByteOrder): void {
    const high = typeof value === 'bigint' ? Number(value >> 32n) : Math.floor(value / 2 ** 32);
    const low = typeof value === 'bigint' ? Number(value & 0xffffffffn) : value >>> 0;
    this.#put32(order === 'big' ? high : low, order);
    this.#put32(order === 'big' ? low : high, order);
  }
}

/** How a state reads in an error message. */
const SITUATION: Record<State, string> = {
  reservations: "before the root's beginNode('')",
  properties: 'while a node is open',
  children: 'behind a child node: properties come first',
  closed: 'after the end of the root; only finish() is',
  finished: 'after finish()',
};

function room(into: Uint8Array, at: number): Uint8Array {
  if (!Number.isInteger(at) || at < 0 || at > into.length || (into.byteOffset + at) % FDT_ALIGNMENT !== 0) {
    throw new KhoError('KHO_EINVAL', `position ${at} is not an ${FDT_ALIGNMENT}-aligned place in the room`, {
      offset: at,
    });
  }
  return new Uint8Array(into.buffer, into.byteOffset + at, Math.min(into.length - at, SIZE_LIMIT));
}

function wordsOf(bytes: Uint8Array): Int32Array<ArrayBufferLike> {
  return new Int32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / FDT_TOKEN_SIZE));
}

/** Writes a name of one byte per character and fills up to `size` bytes with zeros; returns `size`. */
function putText(bytes: Uint8Array, at: number, text: string, size: number): number {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  for (let i = text.length; i < size; i++) bytes[at + i] = 0;
  return size;
}
