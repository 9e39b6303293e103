import { ChildIndex, enlarged } from './child-index.js';
import { PropertyNames } from './property-names.js';

/** What a thread touches at first where nobody says how much it will write. */
const DEFAULT_BYTES = 64 * 1024;
const PAGE_WORDS = 1024;
const LINK_WORDS = 2;

/** Who appends to the end of the blocks; told when another is to. */
export interface BlockWriter {
  /** Stops appending, and returns where its block ends. */
  pause(): number;
}

/**
 * The memory in which one thread keeps the struct blocks that it writes, one behind another, and what its writers share:
 * names, marks and the index of the nodes of the shard that is being written. One shard is written at a time; no shard
 * allocates more than an object.
 */
export class StructBlocks {
  readonly names: PropertyNames;
  readonly children = new ChildIndex();
  /** The refs of the open nodes from the instance's node down, and for each whether its children have unit addresses. */
  readonly path: number[] = [];
  readonly kinds: number[] = [];
  /** Replaced when it gets too small: take it anew after every {@link reserve}. */
  words: Int32Array<ArrayBuffer>;
  /** The same memory. */
  bytes: Uint8Array<ArrayBuffer>;
  /** By name id: a number of {@link nextMark}; 0 if there was none. */
  marks = new Int32Array(64);
  /** Two words a link of a chain: its value, and the link before it; 0 if there is none. */
  links = new Int32Array(256);
  #linksEnd = LINK_WORDS;
  #mark = 0;
  #end = 0;
  #writer: BlockWriter | undefined;

  /** Touches `bytes` of memory, which is enough for shards that declared no more together. */
  constructor(bytes = DEFAULT_BYTES, names = new PropertyNames()) {
    this.names = names;
    this.words = new Int32Array(Math.ceil(bytes / 4) + PAGE_WORDS);
    this.bytes = new Uint8Array(this.words.buffer);
    // The system commits a page when it is written, which takes longer than filling it later.
    for (let word = 0; word < this.words.length; word += PAGE_WORDS) this.words[word] = 0;
  }

  /** Whether `writer` is the one that appends. */
  isWrittenBy(writer: BlockWriter): boolean {
    return this.#writer === writer;
  }

  /** Makes `writer` the one that appends, or nobody, and returns where the last block ends. */
  handTo(writer: BlockWriter | undefined): number {
    if (this.#writer !== undefined) this.#end = this.#writer.pause();
    this.#writer = writer;
    return this.#end;
  }

  /** Forgets the writer and everything from `end` on. */
  cutAt(end: number): void {
    this.#writer = undefined;
    this.#end = end;
  }

  /** Forgets all blocks, and everybody who wrote them: what is written next takes their memory. */
  clear(): void {
    this.cutAt(0);
    this.#linksEnd = LINK_WORDS;
  }

  /** Makes sure that words up to `end` are there. */
  reserve(end: number): void {
    if (end <= this.words.length) return;
    this.words = enlarged(this.words, end);
    this.bytes = new Uint8Array(this.words.buffer);
  }

  /** Makes sure that every name has a mark. */
  growMarks(): void {
    if (this.marks.length < this.names.count) this.marks = enlarged(this.marks, this.names.count);
  }

  /** Adds a link to the chain that ends with `last`, and returns it. Lists of shards are chains, so that none allocates. */
  link(value: number, last: number): number {
    const link = this.#linksEnd;
    this.#linksEnd += LINK_WORDS;
    if (this.#linksEnd > this.links.length) this.links = enlarged(this.links, this.#linksEnd);
    this.links[link] = value;
    this.links[link + 1] = last;
    return link;
  }

  /** The values of a chain, the last first. */
  *chain(last: number): Iterable<number> {
    for (let link = last; link !== 0; link = this.links[link + 1]) yield this.links[link];
  }

  /** A number that no name is marked with yet. */
  nextMark(): number {
    return ++this.#mark;
  }
}
