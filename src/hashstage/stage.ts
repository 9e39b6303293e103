import { KhoError } from '../errors.js';
import {
  ARENA_BYTES,
  ARENA_WORDS,
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_ROOM,
  FRAGMENT_SAME,
  FRAGMENT_USED,
  HEADER_ARENA_NEXT,
  HEADER_MAGIC,
  HEADER_NAME_COUNT,
  HEADER_NAME_SLOTS,
  HEADER_NODE_SLOTS,
  HEADER_RESERVE_SLOTS,
  HEADER_SHARD_COUNT,
  HEADER_TOTAL_WORDS,
  LARGE_REQUEST_WORDS,
  MAX_STAGE_BYTES,
  NAME_HASH,
  NAME_ID,
  NAME_LENGTH,
  NAME_TEXT,
  NO_SHARD,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_SHARD,
  NODE_TEXT,
  type NodeRef,
  SHARD_FIRST,
  SHARD_USED_BYTES,
  SHARD_WORDS,
  STAGE_MAGIC,
  type StageGeometry,
  stageGeometry,
  UNLINKED,
} from './layout.js';
import { farPlace, hashText, nearPlace, packText, sameText } from './packed-text.js';

/** What another thread needs to attach to a stage; structured-cloneable, shares the memory. */
export interface StageHandle {
  readonly buffer: SharedArrayBuffer;
}

/** The bounds of a stage. Everything is reserved at once and committed by the system when first touched. */
export interface StageOptions {
  /** Number of shards that may write. */
  shardCount: number;
  /** Sum of the FDT bytes that the shards declared; sizes arenas and slots. */
  maxBytes: number;
  /** Number of threads that may write at once: each may leave part of an arena unused. */
  threads: number;
  /** How many distinct property names there is room for; default 65536, or as many as `maxBytes` can hold. */
  maxNames?: number;
}

/** The smallest FDT node: tag, one word of name, end tag. So `maxBytes / 12` bounds the number of nodes. */
const SMALLEST_NODE_BYTES = 12;
/** Few trees have smaller nodes on average: there are slots for so many. Those that do go on in the reserve. */
const USUAL_NODE_BYTES = 48;
/** The smallest property, and one character of name with its NUL. */
const SMALLEST_NAME_BYTES = 14;
const MIN_NAMES = 512;
const MAX_NAMES = 65_536;
/** So many slots are tried beside a node's neighbours: half a cache line. */
const NEAR_PROBES = 8;
/** And so many beside where its whole hash puts it, before the reserve, which nobody touches as long as it is not needed. */
const FAR_PROBES = 64;
/** A node of 12 wire bytes takes at most this many in the stage: record, fragment header. */
const STAGE_BYTES_PER_WIRE_BYTE = 4;
/**
 * Beside that, if there is so much below the bound: the names of nodes that shards removed, which may be as many as those that
 * they have; and what content may take that replaces other content (shard-room.ts).
 */
const REUSE_BYTES_PER_WIRE_BYTE = STAGE_BYTES_PER_WIRE_BYTE + 2;
const REUSE_BYTES_PER_SHARD = 4096;

/**
 * The shared-memory state tree: a hash table of nodes, keyed by (parent, name), and of property names.
 *
 * One `Stage` object serves one thread: it holds that thread's arena. Every thread makes its own with
 * {@link Stage.attach}. Layout and protocol: layout.ts.
 */
export class Stage {
  readonly geometry: StageGeometry;
  /** The heap by words, for the writer and the finalizer. */
  readonly words: Int32Array;
  /** The same heap by bytes. */
  readonly bytes: Uint8Array;
  readonly #buffer: SharedArrayBuffer;
  #cursor = 0;
  #arenaEnd = 0;
  readonly #nameIds = new Map<string, number>();
  readonly #nameTexts: (string | undefined)[] = [];
  readonly #codes: number[] = [];

  private constructor(buffer: SharedArrayBuffer) {
    this.#buffer = buffer;
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    const parts = stageGeometry({
      shardCount: this.words[HEADER_SHARD_COUNT] as number,
      nameSlots: this.words[HEADER_NAME_SLOTS] as number,
      nodeSlots: this.words[HEADER_NODE_SLOTS] as number,
      reserveSlots: this.words[HEADER_RESERVE_SLOTS] as number,
      arenaBytes: 0, // the header has the total instead
    });
    this.geometry = { ...parts, totalWords: this.words[HEADER_TOTAL_WORDS] as number };
  }

  /** Reserves a stage. KHO_ENOMEM if the declared bounds need more than 4 GiB. */
  static create(options: StageOptions): Stage {
    const nodeSlots = powerOfTwo(Math.max(1024, Math.ceil(options.maxBytes / USUAL_NODE_BYTES)));
    // A shard may have as many nodes as it declared bytes for, and have had as many.
    const reserveSlots = powerOfTwo(Math.max(64, 2 * Math.ceil(options.maxBytes / SMALLEST_NODE_BYTES)));
    const mostNames = Math.max(MIN_NAMES, Math.ceil(options.maxBytes / SMALLEST_NAME_BYTES));
    const nameSlots = powerOfTwo(2 * (options.maxNames ?? Math.min(MAX_NAMES, mostNames)));
    const arenaBytes =
      STAGE_BYTES_PER_WIRE_BYTE * options.maxBytes + (options.threads + 2) * 2 * ARENA_BYTES + nameSlots * 64;
    const counts = { shardCount: options.shardCount, nameSlots, nodeSlots, reserveSlots };
    const reuseBytes = REUSE_BYTES_PER_WIRE_BYTE * options.maxBytes + REUSE_BYTES_PER_SHARD * options.shardCount;
    const whole = stageGeometry({ ...counts, arenaBytes: arenaBytes + reuseBytes });
    const geometry = whole.totalWords * 4 <= MAX_STAGE_BYTES ? whole : stageGeometry({ ...counts, arenaBytes });
    if (geometry.totalWords * 4 > MAX_STAGE_BYTES) {
      throw new KhoError(
        'KHO_ENOMEM',
        `the drivers declare ${options.maxBytes} bytes of nodes, for which the stage would need ${geometry.totalWords * 4}; it may have ${MAX_STAGE_BYTES}`,
        { size: options.maxBytes },
      );
    }
    const buffer = new SharedArrayBuffer(geometry.totalWords * 4);
    const words = new Int32Array(buffer);
    words[HEADER_SHARD_COUNT] = options.shardCount;
    words[HEADER_NAME_SLOTS] = nameSlots;
    words[HEADER_NODE_SLOTS] = nodeSlots;
    words[HEADER_RESERVE_SLOTS] = reserveSlots;
    words[HEADER_TOTAL_WORDS] = geometry.totalWords;
    words[HEADER_ARENA_NEXT] = geometry.arenasAt;
    words[HEADER_NAME_COUNT] = 0;
    words[HEADER_MAGIC] = STAGE_MAGIC;
    return new Stage(buffer);
  }

  /** This thread's view of a stage that another thread created. KHO_EINVAL if the buffer holds none. */
  static attach(handle: StageHandle): Stage {
    const header = new Int32Array(handle.buffer);
    if (header[HEADER_MAGIC] !== STAGE_MAGIC) throw new KhoError('KHO_EINVAL', 'the buffer does not hold a stage');
    return new Stage(handle.buffer);
  }

  get handle(): StageHandle {
    return { buffer: this.#buffer };
  }

  /** Whether a shard has written nothing yet. For the thread whose shard it is, or after its last message. */
  isShardEmpty(shard: number): boolean {
    return this.words[this.geometry.shardsAt + shard * SHARD_WORDS + SHARD_FIRST] === 0;
  }

  /** Bytes of FDT that a shard has charged. For the thread whose shard it is, or after its last message. */
  shardBytes(shard: number): number {
    return this.words[this.geometry.shardsAt + shard * SHARD_WORDS + SHARD_USED_BYTES];
  }

  /** How many name ids were given out. Ids are dense but for lost races. */
  get nameCount(): number {
    return Atomics.load(this.words, HEADER_NAME_COUNT);
  }

  /** Bytes of arenas handed out so far. */
  get arenaBytes(): number {
    return (Atomics.load(this.words, HEADER_ARENA_NEXT) - this.geometry.arenasAt) * 4;
  }

  /** Touches the pages that `bytes` of arenas will use, so that no page fault falls into the blackout. */
  touch(bytes: number): void {
    const { nameSlotsAt, arenasAt } = this.geometry;
    const end = Math.min(this.words.length, arenasAt + Math.ceil(bytes / 4));
    // Adding nothing commits a page and cannot disturb a thread that is writing already.
    for (let word = nameSlotsAt; word < end; word += 1024) Atomics.add(this.words, word, 0);
  }

  /**
   * Room for `words` words in this thread's arena; they are private to the caller until it publishes them.
   * KHO_ENOSPC when the stage is used up.
   */
  allocate(words: number): number {
    if (this.#cursor + words > this.#arenaEnd) this.#refill(words);
    const ref = this.#cursor;
    this.#cursor += words;
    return ref;
  }

  /** Allocates `words` if they can follow at `ref`, where an earlier allocation ended; false, and nothing else, if not. */
  extend(ref: number, words: number): boolean {
    if (ref !== this.#cursor || ref + words > this.#arenaEnd) return false;
    this.#cursor = ref + words;
    return true;
  }

  #refill(words: number): void {
    const arenas = words > LARGE_REQUEST_WORDS ? Math.ceil(words / ARENA_WORDS) : 1;
    const size = arenas * ARENA_WORDS;
    // Not an addition that is taken back when it went too far: between the two, another thread's own taking back could
    // lower the word below an arena that a third thread was given.
    let start = Atomics.load(this.words, HEADER_ARENA_NEXT);
    for (;;) {
      if (start + size > this.words.length) {
        throw new KhoError('KHO_ENOSPC', `the stage has no arena left for ${words * 4} bytes`, { size: words * 4 });
      }
      const found = Atomics.compareExchange(this.words, HEADER_ARENA_NEXT, start, start + size);
      if (found === start) break;
      start = found;
    }
    this.#cursor = start;
    this.#arenaEnd = start + size;
  }

  /** The id of a property name, the same in every thread; 18 ns when this thread has met the name before. */
  nameId(name: string): number {
    const known = this.#nameIds.get(name);
    if (known !== undefined) return known;
    const id = this.words[this.#internName(name) + NAME_ID] as number;
    this.#nameIds.set(name, id);
    this.#nameTexts[id] = name;
    return id;
  }

  /** The text of a name id that any thread got from {@link nameId}. */
  nameText(id: number): string {
    const known = this.#nameTexts[id];
    if (known !== undefined) return known;
    const { namesAt, nameSlots } = this.geometry;
    const inTable = Number.isInteger(id) && id >= 0 && id < nameSlots;
    const record = inTable ? Atomics.load(this.words, namesAt + id) : 0;
    // Who made the name has not noted its place yet, or there is none for an id as high as lost races made it.
    const text = record !== 0 ? this.#nameOf(record) : this.names()[id];
    if (text === undefined) throw new KhoError('KHO_EINVAL', `${id} is not the id of a property name`);
    this.#nameTexts[id] = text;
    return text;
  }

  #internName(name: string): number {
    const { words } = this;
    const length = name.length;
    const textWords = (length + 3) >>> 2;
    const record = this.allocate(NAME_TEXT + textWords);
    packText(words, name, record + NAME_TEXT, textWords);
    const hash = hashText(words, record + NAME_TEXT, length, length);
    const { namesAt, nameSlotsAt, nameSlots } = this.geometry;
    const mask = nameSlots - 1;
    for (let probe = 0; probe < nameSlots; probe++) {
      const slot = nameSlotsAt + ((hash + probe) & mask);
      let found = Atomics.load(words, slot);
      if (found === 0) {
        words[record + NAME_LENGTH] = length;
        words[record + NAME_HASH] = hash;
        const id = Atomics.add(words, HEADER_NAME_COUNT, 1);
        words[record + NAME_ID] = id;
        found = Atomics.compareExchange(words, slot, 0, record);
        if (found === 0) {
          if (id < nameSlots) Atomics.store(words, namesAt + id, record);
          return record;
        }
      }
      if (
        words[found + NAME_HASH] === hash &&
        words[found + NAME_LENGTH] === length &&
        sameText(words, found + NAME_TEXT, record + NAME_TEXT, textWords)
      ) {
        this.#cursor = record; // the record was never published: take its room back
        return found;
      }
    }
    this.#cursor = record;
    throw new KhoError('KHO_ENOSPC', `the stage has no room for another property name ('${name}')`, { property: name });
  }

  /**
   * The node `name` under `parent`, made for `shard` (one of this thread's) if it is not there yet. The caller has checked
   * the name.
   */
  openNode(parent: NodeRef, name: string, shard = NO_SHARD): NodeRef {
    return this.#node(parent, name, true, shard);
  }

  /** The node `name` under `parent`, or 0 if no thread has made one that this thread knows of. */
  findNode(parent: NodeRef, name: string): NodeRef {
    return this.#node(parent, name, false, NO_SHARD);
  }

  #node(parent: NodeRef, name: string, insert: boolean, shard: number): NodeRef {
    const { words } = this;
    const length = name.length;
    const textWords = (length + 4) >>> 2; // with its NUL
    const record = this.allocate(NODE_TEXT + textWords + FRAGMENT_DATA);
    packText(words, name, record + NODE_TEXT, textWords);
    const prefixHash = hashText(words, record + NODE_TEXT, length > 2 ? length - 2 : 0, length);
    let place = nearPlace(parent, name, prefixHash);
    const { nodeSlotsAt, nodeSlots, reserveSlotsAt, reserveSlots } = this.geometry;
    let at = nodeSlotsAt;
    let mask = nodeSlots - 1;
    for (let probe = 0; probe < NEAR_PROBES + FAR_PROBES + reserveSlots; probe++) {
      if (probe === NEAR_PROBES) place = farPlace(parent, name, prefixHash);
      else if (probe === NEAR_PROBES + FAR_PROBES) {
        at = reserveSlotsAt;
        mask = reserveSlots - 1;
      }
      const slot = at + ((place + probe) & mask);
      let found = Atomics.load(words, slot);
      if (found === 0 && !insert) {
        this.#cursor = record;
        return 0;
      }
      if (found === 0) {
        words[record + NODE_LENGTH] = length;
        words[record + NODE_PARENT] = parent;
        words[record + NODE_SHARD] = shard;
        const fragment = record + NODE_TEXT + textWords;
        words[fragment + FRAGMENT_NEXT] = 0;
        words[fragment + FRAGMENT_NODE] = UNLINKED;
        words[fragment + FRAGMENT_SAME] = 0;
        words[fragment + FRAGMENT_USED] = 0;
        words[fragment + FRAGMENT_ROOM] = 0;
        found = Atomics.compareExchange(words, slot, 0, record);
        if (found === 0) return record;
      }
      if (
        words[found + NODE_PARENT] === parent &&
        words[found + NODE_LENGTH] === length &&
        sameText(words, found + NODE_TEXT, record + NODE_TEXT, textWords)
      ) {
        this.#cursor = record;
        return found;
      }
    }
    this.#cursor = record;
    if (!insert) return 0;
    throw new KhoError('KHO_ENOSPC', `the stage has no room for another node ('${name}')`);
  }

  /** The name of a node; for messages and the finalizer, not for hot paths. */
  nodeName(node: NodeRef): string {
    return this.#text(node + NODE_TEXT, this.words[node + NODE_LENGTH] as number);
  }

  /** The path of a node below its driver's root, such as `/netdevsim0/queue1`. */
  nodePath(node: NodeRef): string {
    let path = '';
    for (let at = node; at > 0; at = this.words[at + NODE_PARENT] as number) path = `/${this.nodeName(at)}${path}`;
    return path === '' ? '/' : path;
  }

  /** The property names that were published before the call, and perhaps some of those published meanwhile, by id. */
  names(): (string | undefined)[] {
    const { nameSlotsAt, nameSlots } = this.geometry;
    const names = new Array<string | undefined>(this.nameCount);
    for (let slot = nameSlotsAt; slot < nameSlotsAt + nameSlots; slot++) {
      const record = Atomics.load(this.words, slot);
      if (record === 0) continue;
      names[this.words[record + NAME_ID] as number] = this.#nameOf(record);
    }
    return names;
  }

  #nameOf(record: number): string {
    return this.#text(record + NAME_TEXT, this.words[record + NAME_LENGTH] as number);
  }

  #text(at: number, length: number): string {
    // One call for all characters: adding them one by one makes a rope that is flattened later, which takes ten times as long.
    const codes = this.#codes;
    codes.length = length;
    for (let index = 0; index < length; index++) codes[index] = this.bytes[at * 4 + index] as number;
    return String.fromCharCode(...codes);
  }
}

function powerOfTwo(atLeast: number): number {
  let power = 1;
  while (power < atLeast) power *= 2;
  return power;
}
