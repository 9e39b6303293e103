import { KhoError } from '../errors.js';
import { after, hex, PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { PageRange } from './page-range.js';
import type { SharedPhysicalMemory } from './physical-memory.js';
import { FOLIO_SIZE, LEAF_BITS, leafOfKey, ROOT_LEVEL, radixKey, TABLE_SIZE, tableIndex } from './radix-key.js';

/** A leaf page whose place is known. */
interface Leaf {
  /** Key prefix, see leafOfKey. */
  readonly number: number;
  /** The words of the segment that holds the page. */
  readonly words: Int32Array;
  /** Index in {@link words} of the page's first word. */
  readonly start: number;
}

/**
 * The kho-v4 radix tree of preserved folios, in the physical memory that the successor will read (radix-key.ts has the
 * keys). Table pages hold 512 physical addresses (u64, 0 = none), leaf pages 32768 bits; all in native byte order, which
 * is little-endian on the architectures that have kho-v4.
 *
 * Threads. The tree is built first, by one thread: {@link ensure} and {@link ensureRange} allocate every page that later
 * marks will need, in the order of the calls, so that its layout is a function of the calls and not of timing. The root
 * then goes to the other threads in a message. From then on any number of them, each with a tree of its own from
 * {@link attach}, may {@link set}, {@link clear} and {@link test} at the same time: a mark is one atomic operation
 * on one word of a leaf, and tables no longer change. Whoever builds on must first know that all others are done.
 * (The kernel holds a mutex for the whole descent instead.)
 */
export class RadixTree {
  /** Physical address of the root table, for the property preserved-memory-map. */
  readonly root: PhysicalAddress;
  readonly #memory: SharedPhysicalMemory;
  readonly #allocate: (() => PhysicalAddress) | undefined;
  readonly #pages: PhysicalAddress[] = [];
  /** The leaf used last, by order: folios of one order tend to be neighbours, those of different orders never share one. */
  readonly #last: (Leaf | undefined)[] = new Array(FOLIO_SIZE.length).fill(undefined);
  /** Every leaf used so far, by number: a descent per mark would cost several times the mark. Leaves never move. */
  readonly #leaves = new Map<number, Leaf>();

  private constructor(memory: SharedPhysicalMemory, root?: PhysicalAddress, allocate?: () => PhysicalAddress) {
    this.#memory = memory;
    this.#allocate = allocate;
    this.root = root ?? this.#newPage();
  }

  /**
   * An empty tree: one page, the root. `allocateTablePage` gives a page of backed memory that is the tree's own from
   * then on; it need not be zero. What it throws passes through.
   */
  static create(memory: SharedPhysicalMemory, allocateTablePage: () => PhysicalAddress): RadixTree {
    return new RadixTree(memory, undefined, allocateTablePage);
  }

  /** The tree at `root`, to set and clear marks in another thread. It cannot grow, and {@link pages} does not know it. */
  static attach(memory: SharedPhysicalMemory, root: PhysicalAddress): RadixTree {
    return new RadixTree(memory, root);
  }

  /** Builds the path to the mark of a folio. KHO_EINVAL as radixKey, KHO_EPERM on an attached tree. */
  ensure(address: PhysicalAddress, order: number): void {
    this.#ensureLeaf(leafOfKey(radixKey(address, order)));
  }

  /**
   * Builds every path that a folio inside the range could need, whatever its address and its order up to `maxOrder`:
   * order 0 first, ascending addresses.
   */
  ensureRange(base: PhysicalAddress, pages: number, maxOrder: number): void {
    for (const [first, last] of leavesOfRange({ address: base, pages }, maxOrder)) {
      for (let leaf = first; leaf <= last; leaf++) this.#ensureLeaf(leaf);
    }
  }

  /**
   * Marks a folio. KHO_EEXIST if it is marked already, KHO_ENOENT if no path was ensured, KHO_EINVAL as radixKey.
   * Neighbours are never merged: the successor restores each object at the order it was marked with.
   */
  set(address: PhysicalAddress, order: number): void {
    const key = radixKey(address, order);
    const { number, words, start } = this.#leaf(key, address, order);
    const bit = key - number * LEAF_BITS;
    const mask = 1 << (bit & 31);
    if ((Atomics.or(words, start + (bit >>> 5), mask) & mask) !== 0) {
      throw new KhoError('KHO_EEXIST', `the folio of order ${order} at ${hex(address)} is preserved already`, {
        address,
      });
    }
  }

  /** Takes a mark back. KHO_ENOENT if there is none, KHO_EINVAL as radixKey. Pages of the tree are never freed. */
  clear(address: PhysicalAddress, order: number): void {
    const key = radixKey(address, order);
    const { number, words, start } = this.#leaf(key, address, order);
    const bit = key - number * LEAF_BITS;
    const mask = 1 << (bit & 31);
    if ((Atomics.and(words, start + (bit >>> 5), ~mask) & mask) === 0) {
      throw wrongMark('KHO_ENOENT', address, order, 'is not preserved');
    }
  }

  /** Whether a folio is marked with exactly this order. KHO_EINVAL as radixKey. */
  test(address: PhysicalAddress, order: number): boolean {
    const key = radixKey(address, order);
    const leaf = this.#find(key, order);
    if (leaf === undefined) return false;
    const bit = key - leaf.number * LEAF_BITS;
    return ((Atomics.load(leaf.words, leaf.start + (bit >>> 5)) >>> (bit & 31)) & 1) === 1;
  }

  /** The pages of this tree, tables and leaves, in the order of their allocation; the root is the first. */
  pages(): readonly PhysicalAddress[] {
    return this.#pages;
  }

  #leaf(key: number, address: PhysicalAddress, order: number): Leaf {
    const leaf = this.#find(key, order);
    if (leaf === undefined)
      throw wrongMark('KHO_ENOENT', address, order, 'has no leaf in the tracker: ensure it first');
    return leaf;
  }

  #find(key: number, order: number): Leaf | undefined {
    const number = leafOfKey(key);
    const last = this.#last[order];
    if (last !== undefined && last.number === number) return last;
    const leaf = this.#leaves.get(number) ?? this.#descend(number);
    if (leaf === undefined) return undefined;
    this.#last[order] = leaf;
    return leaf;
  }

  #descend(number: number): Leaf | undefined {
    let page: number = this.root;
    for (let level = ROOT_LEVEL; level > 0; level--) {
      page = this.#memory.readU64Number(after(page as PhysicalAddress, tableIndex(number, level) * 8));
      if (page === 0) return undefined;
    }
    const { array, index } = this.#memory.words(page as PhysicalAddress);
    const leaf = { number, words: array, start: index };
    this.#leaves.set(number, leaf);
    return leaf;
  }

  #ensureLeaf(number: number): void {
    let page = this.root;
    for (let level = ROOT_LEVEL; level > 0; level--) {
      const entry = after(page, tableIndex(number, level) * 8);
      const child = this.#memory.readU64Number(entry);
      page = child === 0 ? this.#newPage() : (child as PhysicalAddress);
      // Linked only once it is zero, so that a failed allocation leaves a tree that is whole.
      if (child === 0) this.#memory.writeU64(entry, page);
    }
  }

  #newPage(): PhysicalAddress {
    if (this.#allocate === undefined) {
      throw new KhoError('KHO_EPERM', 'an attached radix tree cannot grow', { call: 'ensure' });
    }
    const page = this.#allocate();
    if (page % PAGE_SIZE !== 0) {
      throw new KhoError('KHO_EINVAL', `the table page at ${hex(page)} is not aligned to a page`, { address: page });
    }
    this.#memory.fill(page, PAGE_SIZE, 0);
    this.#pages.push(page);
    return page;
  }
}

function wrongMark(code: 'KHO_EEXIST' | 'KHO_ENOENT', address: PhysicalAddress, order: number, what: string): KhoError {
  return new KhoError(code, `the folio of order ${order} at ${hex(address)} ${what}`, { address });
}

/**
 * How many pages an empty tree has, root included, after {@link RadixTree.ensureRange} for each of `ranges`: what to
 * reserve before the freeze.
 */
export function countTables(ranges: Iterable<PageRange>, maxOrder: number): number {
  const leaves = new Set<number>();
  for (const range of ranges) {
    for (const [first, last] of leavesOfRange(range, maxOrder)) {
      for (let leaf = first; leaf <= last; leaf++) leaves.add(leaf);
    }
  }
  let count = leaves.size + 1; // the leaves, and the root, which is there even without them
  let level = leaves;
  for (let depth = 1; depth < ROOT_LEVEL; depth++) {
    level = new Set(Array.from(level, (page) => Math.floor(page / TABLE_SIZE)));
    count += level.size;
  }
  return count;
}

/** The first and last leaf for each order that has a whole folio inside the range, order 0 first. */
function leavesOfRange({ address, pages }: PageRange, maxOrder: number): [first: number, last: number][] {
  const spans: [number, number][] = [];
  const end = address + pages * PAGE_SIZE;
  for (let order = 0; order <= maxOrder; order++) {
    const size = FOLIO_SIZE[order];
    const first = Math.ceil(address / size) * size;
    const last = Math.floor(end / size - 1) * size;
    if (first > last) break; // nor is there one of a higher order
    const leaf = (folio: number) => leafOfKey(radixKey(folio as PhysicalAddress, order));
    spans.push([leaf(first), leaf(last)]);
  }
  return spans;
}
