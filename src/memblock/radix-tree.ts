import { KhoError } from '../errors.js';
import { hex, type PhysicalAddress } from './address.js';
import { lowestBit } from './bits.js';
import type { SharedPhysicalMemory } from './physical-memory.js';
import { RadixBranches } from './radix-branch.js';
import {
  FOLIO_SIZE,
  folioNumber,
  LEAF_BITS,
  LEAF_BITS_LOG2,
  leafBit,
  leafOfKey,
  ORDER_BIT,
  radixKey,
  TABLE_SIZE,
  TABLE_SIZE_LOG2,
} from './radix-key.js';
import { leavesOfRange } from './radix-paths.js';

/** What a thread knows of the leaves below one table of level 1, by entry. */
interface LeafTable {
  /** The words of the segment that holds the leaf. */
  readonly words: Int32Array[];
  /** Index in {@link words} of the leaf's first word; -1 if it is not known, or not there. */
  readonly starts: Int32Array;
}

const NO_WORDS = new Int32Array(0);
const EMPTY_TABLE: LeafTable = { words: [], starts: new Int32Array(TABLE_SIZE).fill(-1) };

// Not imported where a mark needs them: V8 takes a module's own constants into the code, but loads others each time.
/** Of the number of a folio: what is above says which leaf it is in. */
const LEAF_SHIFT = LEAF_BITS_LOG2;
/** Of the same: what is above says below which table of level 1, among those of its order. */
const TABLE_SHIFT = LEAF_BITS_LOG2 + TABLE_SIZE_LOG2;
const ENTRY_MASK = TABLE_SIZE - 1;

/**
 * The kho-v4 radix tree of preserved folios, in the physical memory that the successor will read (radix-key.ts has the
 * keys). Table pages hold 512 physical addresses (u64, 0 = none), leaf pages 32768 bits; all in native byte order, which
 * is little-endian on the architectures that have kho-v4. docs/trackers.md has forms, protocol and costs.
 *
 * Threads. Any number of them may {@link set}, {@link clear} and {@link test} at the same time, each with a tree of its own
 * from {@link attach}. A mark is one atomic operation on one word of a leaf: of two threads that set it one wins, the other
 * gets KHO_EEXIST. (The kernel holds a mutex for the whole descent instead.)
 *
 * Tables. A tree with an allocator grows where a mark needs it, whichever thread needs it first (radix-branch.ts has the
 * protocol). Where the bytes must not depend on timing, one thread builds all paths up front with {@link ensure} and
 * {@link ensureRange}, in the order of the calls, and the trees of the others have no allocator.
 *
 * Whoever walks the tree's pages in another way than through these calls must know that the others are done.
 */
export class RadixTree {
  readonly #memory: SharedPhysicalMemory;
  readonly #branches: RadixBranches;
  /**
   * Every leaf used so far by this thread: by order and table of level 1. A descent for each mark would cost several times the
   * mark. Leaves never move.
   */
  readonly #tables: LeafTable[][] = Array.from(FOLIO_SIZE, () => []);

  private constructor(memory: SharedPhysicalMemory, branches: RadixBranches) {
    this.#memory = memory;
    this.#branches = branches;
  }

  /**
   * An empty tree: one page, the root. `allocateTablePage` gives a page of backed memory that is the tree's own from
   * then on; it need not be zero. What it throws passes through.
   */
  static create(memory: SharedPhysicalMemory, allocateTablePage: () => PhysicalAddress): RadixTree {
    return new RadixTree(memory, new RadixBranches(memory, allocateTablePage));
  }

  /**
   * The tree at `root` in another thread. With an allocator, which is this thread's own, it can grow; without, a mark needs
   * a path that is there.
   */
  static attach(
    memory: SharedPhysicalMemory,
    root: PhysicalAddress,
    allocateTablePage?: () => PhysicalAddress,
  ): RadixTree {
    return new RadixTree(memory, new RadixBranches(memory, allocateTablePage, root));
  }

  /** Physical address of the root table, for the property preserved-memory-map. */
  get root(): PhysicalAddress {
    return this.#branches.root;
  }

  /** From now on this tree does not grow: a mark without a path is KHO_ENOENT, {@link ensure} KHO_EPERM. */
  seal(): void {
    this.#branches.seal();
  }

  /** Builds the path to the mark of a folio. KHO_EINVAL as radixKey, KHO_EPERM on a tree that cannot grow. */
  ensure(address: PhysicalAddress, order: number): void {
    this.#branches.grow(leafOfKey(radixKey(address, order)));
  }

  /**
   * Builds every path that a folio inside the range could need, whatever its address and its order up to `maxOrder`:
   * order 0 first, ascending addresses.
   */
  ensureRange(base: PhysicalAddress, pages: number, maxOrder: number): void {
    for (const [first, last] of leavesOfRange({ address: base, pages }, maxOrder)) {
      for (let leaf = first; leaf <= last; leaf++) this.#branches.grow(leaf);
    }
  }

  /**
   * Marks a folio. KHO_EEXIST if it is marked already; KHO_ENOENT if there is no path, and the tree cannot grow;
   * KHO_EINVAL as radixKey; what the allocator throws. Neighbours are never merged: the successor restores each object
   * at the order it was marked with. State is unchanged after an error. Keys are all that a tree knows, and they reach to
   * 2^64: that there is such memory is for PreservedPages to check.
   */
  set(address: PhysicalAddress, order: number): void {
    const number = folioNumber(address, order);
    const { words, starts } = this.#known(number, order) ?? this.#tableToMark(number, order);
    const entry = entryOf(number);
    const bit = leafBit(number, order);
    const mask = 1 << (bit & 31);
    if ((Atomics.or(words[entry], starts[entry] + (bit >>> 5), mask) & mask) !== 0) {
      throw wrongMark('KHO_EEXIST', number, order, 'is preserved already');
    }
  }

  /** Takes a mark back. KHO_ENOENT if there is none, KHO_EINVAL as radixKey. Pages of the tree are never freed. */
  clear(address: PhysicalAddress, order: number): void {
    const number = folioNumber(address, order);
    const { words, starts } = this.#known(number, order) ?? this.#tableToClear(number, order);
    const entry = entryOf(number);
    const bit = leafBit(number, order);
    const mask = 1 << (bit & 31);
    if ((Atomics.and(words[entry], starts[entry] + (bit >>> 5), ~mask) & mask) === 0) {
      throw wrongMark('KHO_ENOENT', number, order, 'is not preserved');
    }
  }

  /** Whether a folio is marked with exactly this order. KHO_EINVAL as radixKey. */
  test(address: PhysicalAddress, order: number): boolean {
    const number = folioNumber(address, order);
    const table = this.#table(number, order);
    if (table === undefined) return false;
    const entry = entryOf(number);
    const bit = leafBit(number, order);
    return ((Atomics.load(table.words[entry], table.starts[entry] + (bit >>> 5)) >>> (bit & 31)) & 1) === 1;
  }

  /**
   * Marks `count` folios of one order, one behind another, up to 32 with one operation. Errors as {@link set}, after which
   * none of them is marked that was not before; meanwhile others may have seen the marks. KHO_EINVAL too unless `count` is
   * a positive integer and the last folio below 2^64.
   */
  setRun(address: PhysicalAddress, order: number, count: number): void {
    const first = folioNumber(address, order);
    const end = endOfRun(first, order, count);
    // All leaves first, so that the marking cannot run out of pages.
    for (let number = first; number < end; number = nextLeaf(number)) this.#tableToMark(number, order);
    for (let number = first; number < end; ) {
      const { words, starts } = this.#known(number, order) ?? this.#tableToMark(number, order);
      const entry = entryOf(number);
      const bit = leafBit(number, order);
      const length = Math.min(32 - (bit & 31), end - number);
      const mask = maskOf(bit, length);
      const index = starts[entry] + (bit >>> 5);
      const taken = Atomics.or(words[entry], index, mask) & mask;
      if (taken !== 0) {
        Atomics.and(words[entry], index, ~(mask & ~taken));
        if (number > first) this.clearRun(address, order, number - first);
        throw wrongMark('KHO_EEXIST', number - (bit & 31) + lowestBit(taken), order, 'is preserved already');
      }
      number += length;
    }
  }

  /** Takes the marks of `count` folios of one order back. KHO_ENOENT if one of them is missing: then none is taken back. */
  clearRun(address: PhysicalAddress, order: number, count: number): void {
    const first = folioNumber(address, order);
    const end = endOfRun(first, order, count);
    for (let number = first; number < end; number = nextLeaf(number)) this.#tableToClear(number, order);
    for (let number = first; number < end; ) {
      const { words, starts } = this.#known(number, order) ?? this.#tableToClear(number, order);
      const entry = entryOf(number);
      const bit = leafBit(number, order);
      const length = Math.min(32 - (bit & 31), end - number);
      const mask = maskOf(bit, length);
      const index = starts[entry] + (bit >>> 5);
      const missing = ~Atomics.and(words[entry], index, ~mask) & mask;
      if (missing !== 0) {
        Atomics.or(words[entry], index, mask & ~missing);
        if (number > first) this.setRun(address, order, number - first);
        throw wrongMark('KHO_ENOENT', number - (bit & 31) + lowestBit(missing), order, 'is not preserved');
      }
      number += length;
    }
  }

  /** The first marked folio among `count` of one order; undefined if there is none. KHO_EINVAL as {@link setRun}. */
  firstOfRun(address: PhysicalAddress, order: number, count: number): PhysicalAddress | undefined {
    const first = folioNumber(address, order);
    const end = endOfRun(first, order, count);
    for (let number = first; number < end; ) {
      const table = this.#table(number, order);
      if (table === undefined) {
        number = nextLeaf(number);
        continue;
      }
      const entry = entryOf(number);
      const bit = leafBit(number, order);
      const length = Math.min(32 - (bit & 31), end - number);
      const marked = Atomics.load(table.words[entry], table.starts[entry] + (bit >>> 5)) & maskOf(bit, length);
      if (marked !== 0) return ((number - (bit & 31) + lowestBit(marked)) * FOLIO_SIZE[order]) as PhysicalAddress;
      number += length;
    }
    return undefined;
  }

  /**
   * The pages of the tree, tables and leaves, that were linked through this object, in the order of their allocation; the
   * root is the first, if the tree was created here.
   */
  pages(): readonly PhysicalAddress[] {
    return this.#branches.linked;
  }

  /**
   * Gives away the pages that came from the allocator and are in no tree: those with which this thread came too late
   * where another linked its own, and those that a path could not be made of because there were too few. They would
   * be used for the next path.
   */
  takeSpares(): PhysicalAddress[] {
    return this.#branches.takeSpares();
  }

  /** The table in which the leaf of a folio is known, if it is; small, so that V8 takes it into its callers. */
  #known(number: number, order: number): LeafTable | undefined {
    const table = this.#tables[order][tableOf(number)];
    return table !== undefined && table.starts[entryOf(number)] >= 0 ? table : undefined;
  }

  #table(number: number, order: number): LeafTable | undefined {
    const known = this.#known(number, order);
    if (known !== undefined) return known;
    const page = this.#branches.find(leafOfKey(ORDER_BIT[order] + number));
    return page === undefined ? undefined : this.#remember(number, order, page);
  }

  #tableToMark(number: number, order: number): LeafTable {
    const table = this.#table(number, order);
    if (table !== undefined) return table;
    if (this.#branches.canGrow) {
      return this.#remember(number, order, this.#branches.grow(leafOfKey(ORDER_BIT[order] + number)));
    }
    throw wrongMark('KHO_ENOENT', number, order, 'has no leaf in the tracker: ensure it first');
  }

  #tableToClear(number: number, order: number): LeafTable {
    const table = this.#table(number, order);
    if (table !== undefined) return table;
    throw wrongMark('KHO_ENOENT', number, order, 'is not preserved: the tracker has no leaf for it');
  }

  #remember(number: number, order: number, page: PhysicalAddress): LeafTable {
    const tables = this.#tables[order];
    while (tables.length <= tableOf(number)) tables.push(EMPTY_TABLE); // no holes: arrays with holes are slow
    let table = tables[tableOf(number)];
    if (table === EMPTY_TABLE) {
      table = {
        words: Array.from({ length: TABLE_SIZE }, () => NO_WORDS),
        starts: new Int32Array(TABLE_SIZE).fill(-1),
      };
      tables[tableOf(number)] = table;
    }
    const { array, index } = this.#memory.words(page);
    table.words[entryOf(number)] = array;
    table.starts[entryOf(number)] = index;
    return table;
  }
}

/** The number of the table of level 1, among those of its order, that leads to a folio's leaf. */
function tableOf(number: number): number {
  return number >>> 0 === number ? number >>> TABLE_SHIFT : Math.floor(number / 2 ** TABLE_SHIFT);
}

/** The entry of that table that leads to the leaf. */
function entryOf(number: number): number {
  return (number >>> LEAF_SHIFT) & ENTRY_MASK;
}

/** The number of the first folio that the next leaf marks. */
function nextLeaf(number: number): number {
  return number - (number % LEAF_BITS) + LEAF_BITS;
}

/** `length` bits, 1 to 32, of one word from `bit` on. */
function maskOf(bit: number, length: number): number {
  return length === 32 ? -1 : ((1 << length) - 1) << (bit & 31);
}

function endOfRun(first: number, order: number, count: number): number {
  if (Number.isSafeInteger(count) && count > 0 && first + count <= ORDER_BIT[order]) return first + count;
  const address = first * FOLIO_SIZE[order];
  throw new KhoError('KHO_EINVAL', `${count} folios of order ${order} at ${hex(address)} are no run`, { address });
}

function wrongMark(code: 'KHO_EEXIST' | 'KHO_ENOENT', number: number, order: number, what: string): KhoError {
  const address = number * FOLIO_SIZE[order];
  return new KhoError(code, `the folio of order ${order} at ${hex(address)} ${what}`, { address });
}
