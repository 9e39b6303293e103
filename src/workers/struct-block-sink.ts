import {
  FDT_BEGIN_NODE_WIRE,
  FDT_END_NODE_WIRE,
  FDT_PROP_WIRE,
  FDT_PROPERTY_HEADER_SIZE,
  nodeSize,
  propertySize,
  wire32,
} from '../fdt/index.js';
import { kindOfName, MIXED_KINDS, packedWords, packName, wordsOfName } from './packed-name.js';
import type { NodeSink } from './sink.js';
import { PROPERTY_LENGTH, PROPERTY_NAME, PROPERTY_VALUE, propertyWords, type StructBlock } from './struct-block.js';
import type { BlockWriter, StructBlocks } from './struct-blocks.js';
import { treeOf } from './tree-of-block.js';
import { type ShardTreeNode, TreeSink } from './tree-sink.js';

// Constants of its own module are part of the code that V8 makes; those of others are loaded each time, which costs a
// property 2 ns.
const PROP = FDT_PROP_WIRE;
const BEGIN_NODE = FDT_BEGIN_NODE_WIRE;
const END_NODE = FDT_END_NODE_WIRE;
const LENGTH = PROPERTY_LENGTH;
const NAME = PROPERTY_NAME;
const VALUE = PROPERTY_VALUE;
const BYTES_4 = FDT_PROPERTY_HEADER_SIZE + 4;
const BYTES_8 = FDT_PROPERTY_HEADER_SIZE + 8;
const LENGTH_4_WIRE = wire32(4);
const LENGTH_8_WIRE = wire32(8);
/** Up to this many bytes a loop is faster than a call of set(). */
const SMALL_VALUE = 32;
/** Reading a block back takes time in proportion to its size, so it is not done for shards that are written by turns. */
const MAX_RESUMPTIONS = 8;
const NO_NODE = -1;
const NOWHERE = -1;
const NOT_OPEN = -1;

/**
 * The sink of modes without a stage: appends the shard's nodes to the thread's struct blocks as they come, so that
 * rendering is a copy. It shares no code with the stage, so that equal bytes of both modes prove something.
 *
 * That works as long as nodes are written front to back, as libfdt's sequential writer demands it: a node's properties
 * before its children, and nothing in a node that was left for its sibling. Whatever does not fit in (and whatever is an
 * error, to be told) turns what is there into a plain tree, where the shard goes on. A node's ref is its number in the
 * order of opening, in both.
 *
 * For one thread. Shards that are written by turns pass the end of the blocks to one another: the one that goes on is
 * copied there and read back.
 */
export class StructBlockSink implements NodeSink, BlockWriter, StructBlock {
  readonly root = 0;
  readonly instance: string;
  readonly #blocks: StructBlocks;
  readonly #maxBytes: number;
  #start: number;
  #end: number;
  #used: number;
  /** The node that takes properties: the last that was opened, while this shard appends. */
  #node = 0;
  /** What the names of that node are marked with. */
  #mark = 0;
  /** The first mark of this shard: names with a lower one are new to it. */
  #firstMark = 0;
  #depth = 0;
  #nodes = 1;
  #resumptions = 0;
  #hasMixedKinds = false;
  /** Chains, see {@link StructBlock}. */
  #names = 0;
  #children = 0;
  #firstChild = 0;
  #tree: TreeSink | undefined;

  constructor(blocks: StructBlocks, instance: string, maxBytes: number) {
    this.#blocks = blocks;
    this.instance = instance;
    this.#maxBytes = maxBytes;
    this.#used = nodeSize(instance.length);
    // The tree knows how to say that there is no room for even this node.
    if (this.#used > maxBytes) this.#tree = new TreeSink(blocks.names, instance, maxBytes);
    this.#start = blocks.handTo(this);
    this.#end = this.#start + 1 + packedWords(instance.length);
    blocks.reserve(this.#end);
    blocks.words[this.#start] = BEGIN_NODE;
    packName(blocks.words, this.#start + 1, instance);
    blocks.children.clear();
    blocks.path[0] = 0;
    blocks.kinds[0] = 0;
    this.#firstMark = blocks.nextMark();
    this.#mark = this.#firstMark;
  }

  takenOut = 0;

  get usedBytes(): number {
    return this.#tree?.usedBytes ?? this.#used;
  }

  /** What was written, if it is still in wire form; otherwise only {@link tree} can tell. */
  get block(): StructBlock | undefined {
    return this.#tree === undefined ? this : undefined;
  }

  get start(): number {
    return this.#start;
  }

  get end(): number {
    return this.#end;
  }

  get childrenAt(): number {
    return this.#firstChild === 0 ? this.#end : this.#start + this.#firstChild;
  }

  get depth(): number {
    return this.#depth;
  }

  get hasMixedKinds(): boolean {
    return this.#hasMixedKinds;
  }

  get names(): number {
    return this.#names;
  }

  get children(): number {
    return this.#children;
  }

  /** The instance's node with everything that this shard wrote below it. */
  get tree(): ShardTreeNode {
    return this.#toTree().tree;
  }

  open(parent: number, name: string): number {
    if (!this.#appends()) return this.#toTree().open(parent, name);
    const blocks = this.#blocks;
    const level = this.#levelOf(parent);
    const at = this.#packBehind(level, name);
    const known = blocks.children.find(blocks.words, parent, at + 1);
    if (known !== 0) return known;
    const used = this.#used + nodeSize(name.length);
    if (level === NOT_OPEN || used > this.#maxBytes) return this.#toTree().open(parent, name);
    const { words } = blocks;
    for (let word = this.#end; word < at; word++) words[word] = END_NODE;
    words[at] = BEGIN_NODE;
    const ref = this.#nodes++;
    this.#enter(ref, level, at);
    if (level === 0) this.#addChild(at - this.#start);
    this.#used = used;
    this.#end = at + 1 + packedWords(name.length);
    this.#mark = blocks.nextMark();
    return ref;
  }

  has(parent: number, name: string): boolean {
    if (!this.#appends()) return this.#toTree().has(parent, name);
    const blocks = this.#blocks;
    return blocks.children.find(blocks.words, parent, this.#packBehind(NOT_OPEN, name) + 1) !== 0;
  }

  remove(parent: number, name: string): boolean {
    return this.has(parent, name) && this.#toTree().remove(parent, name);
  }

  replace(parent: number, name: string): number {
    return this.has(parent, name) ? this.#toTree().replace(parent, name) : this.open(parent, name);
  }

  nameId(name: string): number {
    return this.#blocks.names.id(name);
  }

  u32(node: number, name: number, value: number): void {
    const at = this.#append(node, name, BYTES_4, VALUE + 1);
    if (at === NOWHERE) {
      this.#toTree().u32(node, name, value);
      return;
    }
    const { words } = this.#blocks;
    words[at + LENGTH] = LENGTH_4_WIRE;
    words[at + VALUE] = value;
  }

  u64(node: number, name: number, high: number, low: number): void {
    const at = this.#append(node, name, BYTES_8, VALUE + 2);
    if (at === NOWHERE) {
      this.#toTree().u64(node, name, high, low);
      return;
    }
    const { words } = this.#blocks;
    words[at + LENGTH] = LENGTH_8_WIRE;
    words[at + VALUE] = low;
    words[at + VALUE + 1] = high;
  }

  bytes(node: number, name: number, value: Uint8Array): void {
    const { length } = value;
    const size = propertySize(length);
    const at = this.#append(node, name, size, size / 4);
    if (at === NOWHERE) {
      this.#toTree().bytes(node, name, value);
      return;
    }
    const { words, bytes } = this.#blocks;
    words[at + LENGTH] = wire32(length);
    if (length === 0) return;
    words[at + size / 4 - 1] = 0; // the padding becomes part of the FDT
    const to = (at + VALUE) * 4;
    if (length > SMALL_VALUE) bytes.set(value, to);
    else for (let index = 0; index < length; index++) bytes[to + index] = value[index];
  }

  pause(): number {
    this.#node = NO_NODE;
    return this.#end;
  }

  /**
   * Appends a property of `node` that takes `bytes` in the FDT, `count` words, but for its length and value; returns where
   * it stands. NOWHERE, and nothing is changed, if it does not fit in, or is an error
   * for the tree to tell.
   */
  #append(node: number, name: number, bytes: number, count: number): number {
    if (node !== this.#node && !(this.#appends() && node === this.#node)) return NOWHERE;
    const blocks = this.#blocks;
    const mark = blocks.marks[name];
    let used = this.#used + bytes;
    // Below the first mark; or undefined, beyond the array or for what is no name: then its text is KHO_EINVAL.
    const isNew = !(mark >= this.#firstMark);
    if (isNew) used += blocks.names.text(name).length + 1;
    if (used > this.#maxBytes || mark === this.#mark) return NOWHERE;
    if (isNew) {
      this.#names = blocks.link(name, this.#names);
      blocks.growMarks();
    }
    const at = this.#end;
    const end = at + count;
    if (end > blocks.words.length) blocks.reserve(end);
    const { words } = blocks;
    words[at] = PROP;
    words[at + NAME] = name;
    blocks.marks[name] = this.#mark;
    this.#end = end;
    this.#used = used;
    return at;
  }

  /** Whether the shard's block is at the end of the blocks, to which it is brought if need be. */
  #appends(): boolean {
    return this.#node !== NO_NODE || this.#resume();
  }

  #resume(): boolean {
    if (this.#tree !== undefined || ++this.#resumptions > MAX_RESUMPTIONS) return false;
    const blocks = this.#blocks;
    const end = blocks.handTo(this);
    if (end !== this.#end) {
      const size = this.#end - this.#start;
      blocks.reserve(end + size);
      blocks.words.copyWithin(end, this.#start, this.#end);
      this.#start = end;
      this.#end = end + size;
    }
    this.#readBack();
    return true;
  }

  /** Fills in again what the blocks know of the shard that is being written. */
  #readBack(): void {
    const blocks = this.#blocks;
    const { words, children, path } = blocks;
    this.#firstMark = blocks.nextMark();
    for (const name of blocks.chain(this.#names)) blocks.marks[name] = this.#firstMark;
    children.clear();
    path[0] = 0;
    blocks.kinds[0] = 0;
    this.#depth = 0;
    let ref = 0;
    let properties = this.#start + 1 + wordsOfName(words, this.#start + 1);
    for (let at = properties; at < this.#end; ) {
      const tag = words[at];
      if (tag === PROP) at += propertyWords(words, at);
      else if (tag === BEGIN_NODE) {
        children.find(words, path[this.#depth], at + 1); // it is not there, and can be inserted
        this.#enter(++ref, this.#depth, at);
        at += 1 + wordsOfName(words, at + 1);
        properties = at;
      } else {
        this.#depth--;
        at++;
      }
    }
    this.#node = ref;
    this.#mark = blocks.nextMark();
    for (let at = properties; at < this.#end; at += propertyWords(words, at)) {
      blocks.marks[words[at + NAME]] = this.#mark;
    }
  }

  /** Makes the new node, whose BEGIN_NODE is at `at`, the open one below the node at `level` of the path. */
  #enter(ref: number, level: number, at: number): void {
    const { words, children, path, kinds } = this.#blocks;
    children.insert(ref, at + 1);
    kinds[level] |= kindOfName(words, at + 1);
    if (kinds[level] === MIXED_KINDS) this.#hasMixedKinds = true;
    path[level + 1] = ref;
    kinds[level + 1] = 0;
    this.#depth = level + 1;
    this.#node = ref;
  }

  #addChild(offset: number): void {
    if (this.#firstChild === 0) this.#firstChild = offset;
    this.#children = this.#blocks.link(offset, this.#children);
  }

  /** The place of `node` among the open ones, or NOT_OPEN. */
  #levelOf(node: number): number {
    const { path } = this.#blocks;
    for (let level = this.#depth; level >= 0; level--) if (path[level] === node) return level;
    return NOT_OPEN;
  }

  /** Packs `name` where it would stand for a child of the node at `level`, behind its BEGIN_NODE; returns the latter's place. */
  #packBehind(level: number, name: string): number {
    const blocks = this.#blocks;
    const at = this.#end + (level === NOT_OPEN ? 0 : this.#depth - level);
    const end = at + 1 + packedWords(name.length);
    if (end > blocks.words.length) blocks.reserve(end);
    packName(blocks.words, at + 1, name);
    return at;
  }

  /** The plain tree in which the shard goes on; made from what was appended so far. */
  #toTree(): TreeSink {
    if (this.#tree !== undefined) return this.#tree;
    const blocks = this.#blocks;
    const tree = treeOf(this, blocks, this.instance, this.#maxBytes);
    if (blocks.isWrittenBy(this)) blocks.cutAt(this.#start);
    this.#node = NO_NODE;
    this.#tree = tree;
    return tree;
  }
}
