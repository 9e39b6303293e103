import { KhoError } from '../errors.js';
import { align4, FDT_PROP_WIRE, FDT_PROPERTY_HEADER_SIZE, nodeSize, propertySize, swap32 } from '../fdt/wire.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_ROOM,
  FRAGMENT_SAME,
  FRAGMENT_USED,
  NAMES_COUNT,
  NAMES_IDS,
  NAMES_NEXT,
  NAMES_ROOM,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_SHARD,
  NODE_TEXT,
  type NodeRef,
  PARKED,
  PROPERTY_LENGTH,
  PROPERTY_NAME,
  PROPERTY_VALUE,
  SHARD_FIRST,
  SHARD_LAST,
  SHARD_NAME_BYTES,
  SHARD_NAMES,
  SHARD_NODES,
  SHARD_PARKED,
  SHARD_PARKED_BYTES,
  SHARD_SCATTERED,
  SHARD_UNUSED_NAMES,
  SHARD_USED_BYTES,
  SHARD_WORDS,
  UNLINKED,
} from './layout.js';
import { OpenNodes } from './open-nodes.js';
import { hasAtSign } from './packed-text.js';
import { ShardRoom } from './shard-room.js';
import type { Stage } from './stage.js';

// Constants of its own module are part of the code that V8 makes; those of others are loaded each time.
const PROP = FDT_PROP_WIRE;
const LENGTH = PROPERTY_LENGTH;
const NAME = PROPERTY_NAME;
const VALUE = PROPERTY_VALUE;
const USED = FRAGMENT_USED;
const DATA = FRAGMENT_DATA;
const USED_BYTES = SHARD_USED_BYTES;
const PARENT = NODE_PARENT;
const SHARD = NODE_SHARD;
const TEXT = NODE_TEXT;
const LENGTH_4_WIRE = swap32(4);
const LENGTH_8_WIRE = swap32(8);
const BYTES_4 = FDT_PROPERTY_HEADER_SIZE + 4;
const BYTES_8 = FDT_PROPERTY_HEADER_SIZE + 8;
/** Up to this many bytes a loop is faster than a call of set(). */
const SMALL_VALUE = 32;
/** The mark of a name that the shard has used, but in no node that is current. Nodes have marks above it. */
const CHARGED = 1;

/**
 * Writes the nodes and properties of one shard into the stage, and takes nodes out again, at any time before the stage is
 * finalized.
 *
 * A shard is written by one thread at a time. Its next phase may run on another thread: that thread makes a writer of
 * its own, which goes on where the last one ended; that costs a step for each fragment and name, none for a property.
 *
 * Every byte of FDT that the shard will cause (nodes, properties, the first use of each name) is charged against the
 * bound that it declared; exceeding it is KHO_ENOSPC and leaves what is there untouched. A node that is removed gives
 * its bytes back, but for those of names, and its room is used again: a shard may replace, remove and add the same nodes for
 * ever. The names of nodes that it once had may take as many bytes as it declared, beside what it has.
 */
export class ShardWriter {
  readonly #stage: Stage;
  readonly #words: Int32Array;
  readonly #shard: number;
  readonly #record: number;
  readonly #maxBytes: number;
  /** The first fragments of nodes that are open and have it not behind their records. */
  readonly #nodes = new OpenNodes();
  /** The same of nodes that were taken out. */
  readonly #parked = new OpenNodes();
  readonly #room: ShardRoom;
  /** By name id: 0 if the shard has never used it; else the `#mark` of the node that last had it, or CHARGED. */
  #marks = new Int32Array(256);
  #mark = CHARGED;
  #node: NodeRef = 0;
  #fragment = 0;
  /** Where the current fragment's next word goes. */
  #end = 0;
  /** Where the room ends that it has even if it is not the last in the arena. */
  #limit = 0;
  #used = 0;
  /** What names of nodes that the shard never had may take before those that it had are too many. */
  #newNameBytes = 0;

  constructor(stage: Stage, shard: number, maxBytes: number) {
    this.#stage = stage;
    this.#words = stage.words;
    this.#shard = shard;
    this.#record = stage.geometry.shardsAt + shard * SHARD_WORDS;
    this.#maxBytes = maxBytes;
    this.#room = new ShardRoom(stage, this.#record, maxBytes);
    this.#readBack();
  }

  /** FDT bytes charged so far. */
  get usedBytes(): number {
    return this.#words[this.#record + SHARD_USED_BYTES];
  }

  /**
   * Opens the node `name` under `parent` (a node or a driver's root): the existing one or a new one.
   * The caller has checked the name's characters.
   */
  open(parent: NodeRef, name: string): NodeRef {
    const size = nodeSize(name.length);
    const isFull = this.#used + size > this.#maxBytes || size > this.#newNameBytes;
    const ref = isFull ? this.#openFull(parent, name) : this.#stage.openNode(parent, name, this.#shard);
    if (this.#first(ref) !== 0) return ref;
    const words = this.#words;
    const own = this.#ownFragment(ref);
    if (own !== 0 && words[own + FRAGMENT_NODE] === UNLINKED) {
      if (!this.#isNext(ref) || hasAtSign(words, ref + TEXT, name.length)) this.#scatter();
      words[own + FRAGMENT_NODE] = ref;
      this.#link(own, 0);
    } else {
      this.#scatter();
      if (own !== 0 || this.#parked.get(ref) !== 0) this.#unpark(ref, own);
      else this.#nodes.set(ref, this.#startFragment(ref, this.#stage.allocate(FRAGMENT_DATA), 0));
    }
    this.#setUsed(this.#used + size);
    words[this.#record + SHARD_NODES]++;
    this.#node = ref;
    this.#mark++;
    return ref;
  }

  /** The same node, if the shard has it or may have it; nothing is made of a name that is refused. */
  #openFull(parent: NodeRef, name: string): NodeRef {
    const ref = this.#stage.findNode(parent, name);
    if (ref !== 0 && this.#first(ref) !== 0) return ref;
    const size = nodeSize(name.length);
    this.#checkRoom(size);
    const own = ref === 0 ? 0 : this.#ownFragment(ref);
    const wasHere = own !== 0 ? this.#words[own + FRAGMENT_NODE] === PARKED : this.#parked.get(ref) !== 0;
    if (wasHere) return ref;
    throw new KhoError(
      'KHO_ENOSPC',
      `the shard declared maxBytes ${this.#maxBytes}, and the names of nodes that it removed take ${this.#maxBytes - this.#newNameBytes}: there is no room for another one ('${name}'); add nodes of the same names again`,
      { size },
    );
  }

  /** The first fragment of a node that this shard has, else 0. */
  #first(ref: NodeRef): number {
    const own = this.#ownFragment(ref);
    return own !== 0 && this.#words[own + FRAGMENT_NODE] === ref ? own : this.#nodes.get(ref);
  }

  /** The fragment behind the record of a node that was made for this shard, else 0. */
  #ownFragment(ref: NodeRef): number {
    const words = this.#words;
    if (!(ref > 0) || words[ref + SHARD] !== this.#shard) return 0;
    return ref + TEXT + (words[ref + NODE_LENGTH] >>> 2) + 1;
  }

  /** Whether a new node keeps the chain in wire order: if the last node is its parent, or is below it. */
  #isNext(ref: NodeRef): boolean {
    const words = this.#words;
    const parent = words[ref + PARENT];
    const last = words[this.#record + SHARD_LAST];
    if (last === 0 || parent <= 0) return last === 0;
    let at = words[last + FRAGMENT_NODE];
    while (at > 0 && at !== parent) at = words[at + PARENT];
    return at === parent;
  }

  #scatter(): void {
    this.#words[this.#record + SHARD_SCATTERED] = 1;
  }

  /** Whether this shard has the node `name` under `parent`. */
  has(parent: NodeRef, name: string): boolean {
    return this.#find(parent, name) !== 0;
  }

  /**
   * Takes the node `name` under `parent`, and what is below it, out of this shard; false if it has none. What other shards
   * wrote of the same node stays. A node that is added again comes last among its siblings.
   */
  remove(parent: NodeRef, name: string): boolean {
    const ref = this.#find(parent, name);
    if (ref === 0) return false;
    this.#takeOut(ref, false);
    return true;
  }

  /** The node `name` under `parent`, emptied and in the place that it had; or a new one. */
  replace(parent: NodeRef, name: string): NodeRef {
    const ref = this.#find(parent, name);
    if (ref === 0) return this.open(parent, name);
    this.#takeOut(ref, true);
    return ref;
  }

  /** The node `name` under `parent` if this shard has it, else 0. */
  #find(parent: NodeRef, name: string): NodeRef {
    const ref = this.#stage.findNode(parent, name);
    return ref !== 0 && this.#first(ref) !== 0 ? ref : 0;
  }

  /** A 32-bit property, native (little-endian) byte order. */
  u32(node: NodeRef, name: number, value: number): void {
    const at = this.#property(node, name, BYTES_4, VALUE + 1);
    const words = this.#words;
    words[at + LENGTH] = LENGTH_4_WIRE;
    words[at + VALUE] = value;
    this.#commit(at + VALUE + 1);
  }

  /** A 64-bit property from its halves, native (little-endian) byte order. */
  u64(node: NodeRef, name: number, high: number, low: number): void {
    const at = this.#property(node, name, BYTES_8, VALUE + 2);
    const words = this.#words;
    words[at + LENGTH] = LENGTH_8_WIRE;
    words[at + VALUE] = low;
    words[at + VALUE + 1] = high;
    this.#commit(at + VALUE + 2);
  }

  /** A property of any bytes; they are copied. */
  bytes(node: NodeRef, name: number, value: Uint8Array): void {
    const length = value.length;
    const valueWords = align4(length) / 4;
    const at = this.#property(node, name, propertySize(length), VALUE + valueWords);
    this.#words[at + LENGTH] = swap32(length);
    // Arenas may be reused, so the padding is written too: it becomes part of the blob.
    if (valueWords > 0) this.#words[at + VALUE + valueWords - 1] = 0;
    const heap = this.#stage.bytes;
    const to = (at + VALUE) * 4;
    if (length > SMALL_VALUE) heap.set(value, to);
    else for (let index = 0; index < length; index++) heap[to + index] = value[index];
    this.#commit(at + VALUE + valueWords);
  }

  /**
   * Makes room for a property of `node`, which will take `bytes` in the FDT and `count` words here, and fills in its tag and
   * name; `#commit` makes it part of the fragment.
   */
  #property(node: NodeRef, name: number, bytes: number, count: number): number {
    if (node !== this.#node) this.#switchTo(node);
    const mark = this.#marks[name];
    let used = this.#used + bytes;
    if (!(mark >= CHARGED) || mark === this.#mark || used > this.#maxBytes)
      used += this.#admit(node, name, mark, bytes);
    if (!this.#stage.extend(this.#end, count)) this.#continueNode(node, count);
    const words = this.#words;
    const at = this.#end;
    words[at] = PROP;
    words[at + NAME] = name;
    words[this.#record + USED_BYTES] = used;
    this.#used = used;
    this.#marks[name] = this.#mark;
    return at;
  }

  #commit(end: number): void {
    this.#end = end;
    this.#words[this.#fragment + USED] = end - this.#fragment - DATA;
  }

  /**
   * What is not a name that the shard has used, new to the node, and room: `mark` is undefined for an id beyond the array,
   * or that is none. Returns the bytes of the name's text if it is new. KHO_EEXIST if the node has it already.
   */
  #admit(node: NodeRef, name: number, mark: number | undefined, bytes: number): number {
    if (mark === this.#mark) throw this.#duplicate(node, name);
    if (mark !== undefined && mark >= CHARGED) {
      this.#checkRoom(bytes);
      return 0;
    }
    const text = this.#stage.nameText(name); // KHO_EINVAL for a made-up number such as -1 or 0.5
    if (name >= this.#marks.length) this.#growMarks(name);
    const textBytes = text.length + 1;
    this.#checkRoom(bytes + textBytes);
    this.#noteName(name);
    this.#words[this.#record + SHARD_NAME_BYTES] += textBytes;
    return textBytes;
  }

  /** Adds a name to the shard's list of those it uses, from which the finalizer makes the strings block. */
  #noteName(name: number): void {
    const words = this.#words;
    let chunk = words[this.#record + SHARD_NAMES];
    if (chunk === 0 || words[chunk + NAMES_COUNT] === NAMES_ROOM) {
      const next = chunk;
      chunk = this.#stage.allocate(NAMES_IDS + NAMES_ROOM);
      words[chunk + NAMES_NEXT] = next;
      words[chunk + NAMES_COUNT] = 0;
      words[this.#record + SHARD_NAMES] = chunk;
    }
    const count = words[chunk + NAMES_COUNT];
    words[chunk + NAMES_IDS + count] = name;
    words[chunk + NAMES_COUNT] = count + 1;
  }

  /** The node gets one more fragment, unless the current one has room. */
  #continueNode(node: NodeRef, count: number): void {
    if (this.#end + count <= this.#limit) return;
    const words = this.#words;
    const previous = this.#fragment;
    let fragment: number;
    let room = 0;
    try {
      // Once something was taken out, this may be taken out too.
      if (words[this.#record + SHARD_UNUSED_NAMES] === 0) fragment = this.#stage.allocate(FRAGMENT_DATA + count);
      else {
        fragment = this.#room.take(count, words[previous + FRAGMENT_USED]);
        room = words[fragment + FRAGMENT_ROOM];
      }
    } catch (error) {
      words[this.#record + SHARD_UNUSED_NAMES] = 1; // the name that was to come was listed already
      throw error;
    }
    if (words[words[this.#record + SHARD_LAST] + FRAGMENT_NODE] !== node) this.#scatter();
    words[previous + FRAGMENT_SAME] = this.#startFragment(node, fragment, room);
  }

  /** Appends a fragment, which becomes an empty one of `ref`, to the shard's chain; returns it. */
  #startFragment(ref: NodeRef, fragment: number, room: number): number {
    const words = this.#words;
    words[fragment + FRAGMENT_NEXT] = 0;
    words[fragment + FRAGMENT_NODE] = ref;
    words[fragment + FRAGMENT_SAME] = 0;
    words[fragment + FRAGMENT_USED] = 0;
    words[fragment + FRAGMENT_ROOM] = room;
    this.#link(fragment, room);
    return fragment;
  }

  /** Appends a fragment to the shard's chain and makes it the current one. */
  #link(fragment: number, room: number): void {
    const words = this.#words;
    const last = words[this.#record + SHARD_LAST];
    if (last === 0) words[this.#record + SHARD_FIRST] = fragment;
    else words[last + FRAGMENT_NEXT] = fragment;
    words[this.#record + SHARD_LAST] = fragment;
    this.#fragment = fragment;
    this.#end = fragment + DATA;
    this.#limit = this.#end + room;
  }

  /** Makes an earlier node current again: its names are marked anew, so that a duplicate is still seen. */
  #switchTo(ref: NodeRef): void {
    let fragment = this.#first(ref);
    if (fragment === 0) {
      throw new KhoError('KHO_EINVAL', 'the node was not opened by this shard, or was removed since');
    }
    this.#node = ref;
    this.#mark++;
    const words = this.#words;
    for (; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
      this.#fragment = fragment;
      this.#end = fragment + FRAGMENT_DATA + words[fragment + FRAGMENT_USED];
      this.#limit = fragment + FRAGMENT_DATA + words[fragment + FRAGMENT_ROOM];
      for (let at = fragment + FRAGMENT_DATA; at < this.#end; at += propertyWords(words, at)) {
        const name = words[at + PROPERTY_NAME];
        if (name >= this.#marks.length) this.#growMarks(name);
        this.#marks[name] = this.#mark;
      }
    }
  }

  /** Takes out what this shard has of `top` and of all below it; `keep` leaves `top` itself, empty, in its place. */
  #takeOut(top: NodeRef, keep: boolean): void {
    const words = this.#words;
    words[this.#record + SHARD_UNUSED_NAMES] = 1;
    let bytes = 0;
    // Nodes below `top` were opened after it, so they stand behind its first fragment.
    let previous = keep ? this.#first(top) : 0;
    let fragment = words[keep ? previous + FRAGMENT_NEXT : this.#record + SHARD_FIRST];
    if (keep) {
      bytes += this.#room.empty(previous);
      words[previous + FRAGMENT_SAME] = 0;
    }
    while (fragment !== 0) {
      const next = words[fragment + FRAGMENT_NEXT];
      const ref = words[fragment + FRAGMENT_NODE];
      if (this.#isWithin(ref, top)) {
        words[previous === 0 ? this.#record + SHARD_FIRST : previous + FRAGMENT_NEXT] = next;
        const isFirst = this.#first(ref) === fragment;
        if (isFirst) bytes += this.#room.empty(fragment) + this.#park(ref, fragment);
        else bytes += this.#room.free(fragment);
      } else previous = fragment;
      fragment = next;
    }
    words[this.#record + SHARD_LAST] = previous;
    this.#setUsed(this.#used - bytes);
    this.#node = 0;
    this.#fragment = 0;
    this.#end = 0;
    this.#limit = 0;
    this.#mark++;
  }

  /** Keeps the first fragment of a node that was taken out of the chain; returns the bytes that the node itself had. */
  #park(ref: NodeRef, fragment: number): number {
    const words = this.#words;
    words[fragment + FRAGMENT_SAME] = 0;
    if (fragment === this.#ownFragment(ref)) words[fragment + FRAGMENT_NODE] = PARKED;
    else {
      words[fragment + FRAGMENT_NEXT] = words[this.#record + SHARD_PARKED];
      words[this.#record + SHARD_PARKED] = fragment;
      this.#nodes.set(ref, 0);
      this.#parked.set(ref, fragment);
    }
    const size = nodeSize(words[ref + NODE_LENGTH]);
    this.#addParkedBytes(size);
    return size;
  }

  /** A node comes back whose first fragment is `own`, behind its record, or in the list of those that are not. */
  #unpark(ref: NodeRef, own: number): void {
    const words = this.#words;
    const fragment = own !== 0 ? own : this.#parked.get(ref);
    if (own === 0) {
      let at = this.#record + SHARD_PARKED;
      while (words[at] !== fragment) at = words[at] + FRAGMENT_NEXT;
      words[at] = words[fragment + FRAGMENT_NEXT];
      this.#parked.set(ref, 0);
      this.#nodes.set(ref, fragment);
    }
    this.#addParkedBytes(-nodeSize(words[ref + NODE_LENGTH]));
    this.#startFragment(ref, fragment, words[fragment + FRAGMENT_ROOM]);
  }

  #addParkedBytes(bytes: number): void {
    const sum = this.#words[this.#record + SHARD_PARKED_BYTES] + bytes;
    this.#words[this.#record + SHARD_PARKED_BYTES] = sum;
    this.#newNameBytes = this.#maxBytes - sum;
  }

  #isWithin(ref: NodeRef, top: NodeRef): boolean {
    for (let at = ref; at > 0; at = this.#words[at + NODE_PARENT]) if (at === top) return true;
    return false;
  }

  #readBack(): void {
    const words = this.#words;
    this.#used = words[this.#record + SHARD_USED_BYTES];
    this.#addParkedBytes(0);
    for (let chunk = words[this.#record + SHARD_NAMES]; chunk !== 0; chunk = words[chunk + NAMES_NEXT]) {
      for (let index = 0; index < words[chunk + NAMES_COUNT]; index++) {
        const name = words[chunk + NAMES_IDS + index];
        if (name >= this.#marks.length) this.#growMarks(name);
        this.#marks[name] = CHARGED;
      }
    }
    this.#readNodes();
    this.#mark++;
  }

  #readNodes(): void {
    const words = this.#words;
    for (let at = words[this.#record + SHARD_FIRST]; at !== 0; at = words[at + FRAGMENT_NEXT]) {
      const ref = words[at + FRAGMENT_NODE];
      if (this.#first(ref) === 0) this.#nodes.set(ref, at);
    }
    for (let at = words[this.#record + SHARD_PARKED]; at !== 0; at = words[at + FRAGMENT_NEXT]) {
      this.#parked.set(words[at + FRAGMENT_NODE], at);
    }
  }

  #checkRoom(bytes: number): void {
    if (this.#used + bytes <= this.#maxBytes) return;
    throw new KhoError(
      'KHO_ENOSPC',
      `the shard declared maxBytes ${this.#maxBytes} and has used ${this.#used}; ${bytes} more do not fit`,
      { size: bytes },
    );
  }

  #setUsed(bytes: number): void {
    this.#used = bytes;
    this.#words[this.#record + USED_BYTES] = bytes;
  }

  #growMarks(name: number): void {
    const marks = new Int32Array(Math.max(name + 1, this.#marks.length * 2));
    marks.set(this.#marks);
    this.#marks = marks;
  }

  #duplicate(node: NodeRef, name: number): KhoError {
    const path = this.#stage.nodePath(node);
    const property = this.#stage.nameText(name);
    return new KhoError('KHO_EEXIST', `the node ${path} has a property '${property}' already`, { path, property });
  }
}

/** The size in words of the property at `at` in a fragment. */
export function propertyWords(words: Int32Array, at: number): number {
  return PROPERTY_VALUE + ((swap32(words[at + PROPERTY_LENGTH]) + 3) >>> 2);
}
