import { KhoError } from '../errors.js';
import { hex, type PhysicalAddress } from './address.js';
import { lowestBit } from './bits.js';
import type { SharedPhysicalMemory } from './physical-memory.js';
import { RadixBranches } from './radix-branch.js';
import { FOLIO_SIZE, folioNumber, LEAF_BITS, leafBit, leafOfKey, ORDER_BIT, radixKey } from './radix-key.js';
import { isKnown, type LeafWindow, leafOf, RadixLeaves, WINDOW_LOG2 } from './radix-leaves.js';
import { leavesOfRange } from './radix-paths.js';

// Not imported where a mark needs them: V8 takes a module's own constants into the code, but loads others each time.
const WINDOW_FOLIOS = 2 ** WINDOW_LOG2;
const FOLIOS_PER_BYTE = FOLIO_SIZE.map((size) => 1 / size);

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
  readonly #leaves = new RadixLeaves();

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
    const inside = (address - this.#leaves.nearBase[order]) * FOLIOS_PER_BYTE[order]; // exact, or no integer
    if (inside >>> 0 === inside && inside < WINDOW_FOLIOS) {
      const near = this.#leaves.near[order];
      if (isKnown(near, inside)) {
        if (setBit(near, inside, order)) return;
        throw wrongMark('KHO_EEXIST', address, order, 'is preserved already');
      }
    }
    const number = folioNumber(address, order);
    const window = this.#leaves.known(number, order) ?? this.#windowToMark(number, order);
    if (!setBit(window, number, order)) throw wrongMark('KHO_EEXIST', address, order, 'is preserved already');
  }

  /** Takes a mark back. KHO_ENOENT if there is none, KHO_EINVAL as radixKey. Pages of the tree are never freed. */
  clear(address: PhysicalAddress, order: number): void {
    const inside = (address - this.#leaves.nearBase[order]) * FOLIOS_PER_BYTE[order]; // exact, or no integer
    if (inside >>> 0 === inside && inside < WINDOW_FOLIOS) {
      const near = this.#leaves.near[order];
      if (isKnown(near, inside)) {
        if (clearBit(near, inside, order)) return;
        throw wrongMark('KHO_ENOENT', address, order, 'is not preserved');
      }
    }
    const number = folioNumber(address, order);
    const window = this.#leaves.known(number, order) ?? this.#windowToClear(number, order);
    if (!clearBit(window, number, order)) throw wrongMark('KHO_ENOENT', address, order, 'is not preserved');
  }

  /** Whether a folio is marked with exactly this order. KHO_EINVAL as radixKey. */
  test(address: PhysicalAddress, order: number): boolean {
    const number = folioNumber(address, order);
    const window = this.#window(number, order);
    if (window === undefined) return false;
    const leaf = leafOf(number);
    const bit = leafBit(number, order);
    return ((Atomics.load(window.words[leaf], window.starts[leaf] + (bit >>> 5)) >>> (bit & 31)) & 1) === 1;
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
    for (let number = first; number < end; number = nextLeaf(number)) this.#windowToMark(number, order);
    for (let number = first; number < end; ) {
      const { words, starts } = this.#leaves.known(number, order) ?? this.#windowToMark(number, order);
      const leaf = leafOf(number);
      const bit = leafBit(number, order);
      const length = Math.min(32 - (bit & 31), end - number);
      const mask = maskOf(bit, length);
      const index = starts[leaf] + (bit >>> 5);
      const taken = Atomics.or(words[leaf], index, mask) & mask;
      if (taken !== 0) {
        Atomics.and(words[leaf], index, ~(mask & ~taken));
        if (number > first) this.clearRun(address, order, number - first);
        throw wrongMark(
          'KHO_EEXIST',
          addressOf(number - (bit & 31) + lowestBit(taken), order),
          order,
          'is preserved already',
        );
      }
      number += length;
    }
  }

  /** Takes the marks of `count` folios of one order back. KHO_ENOENT if one of them is missing: then none is taken back. */
  clearRun(address: PhysicalAddress, order: number, count: number): void {
    const first = folioNumber(address, order);
    const end = endOfRun(first, order, count);
    for (let number = first; number < end; number = nextLeaf(number)) this.#windowToClear(number, order);
    for (let number = first; number < end; ) {
      const { words, starts } = this.#leaves.known(number, order) ?? this.#windowToClear(number, order);
      const leaf = leafOf(number);
      const bit = leafBit(number, order);
      const length = Math.min(32 - (bit & 31), end - number);
      const mask = maskOf(bit, length);
      const index = starts[leaf] + (bit >>> 5);
      const missing = ~Atomics.and(words[leaf], index, ~mask) & mask;
      if (missing !== 0) {
        Atomics.or(words[leaf], index, mask & ~missing);
        if (number > first) this.setRun(address, order, number - first);
        throw wrongMark(
          'KHO_ENOENT',
          addressOf(number - (bit & 31) + lowestBit(missing), order),
          order,
          'is not preserved',
        );
      }
      number += length;
    }
  }

  /** The first marked folio among `count` of one order; undefined if there is none. KHO_EINVAL as {@link setRun}. */
  firstOfRun(address: PhysicalAddress, order: number, count: number): PhysicalAddress | undefined {
    const first = folioNumber(address, order);
    const end = endOfRun(first, order, count);
    for (let number = first; number < end; ) {
      const window = this.#window(number, order);
      if (window === undefined) {
        number = nextLeaf(number);
        continue;
      }
      const leaf = leafOf(number);
      const bit = leafBit(number, order);
      const length = Math.min(32 - (bit & 31), end - number);
      const marked = Atomics.load(window.words[leaf], window.starts[leaf] + (bit >>> 5)) & maskOf(bit, length);
      if (marked !== 0) return addressOf(number - (bit & 31) + lowestBit(marked), order);
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

  #window(number: number, order: number): LeafWindow | undefined {
    const known = this.#leaves.known(number, order);
    if (known !== undefined) return known;
    const page = this.#branches.find(leafOfKey(ORDER_BIT[order] + number));
    return page === undefined ? undefined : this.#remember(number, order, page);
  }

  #windowToMark(number: number, order: number): LeafWindow {
    const window = this.#window(number, order);
    if (window !== undefined) return window;
    if (this.#branches.canGrow) {
      return this.#remember(number, order, this.#branches.grow(leafOfKey(ORDER_BIT[order] + number)));
    }
    const text = 'has no leaf in the tracker: ensure it first';
    throw wrongMark('KHO_ENOENT', addressOf(number, order), order, text);
  }

  #windowToClear(number: number, order: number): LeafWindow {
    const window = this.#window(number, order);
    if (window !== undefined) return window;
    const text = 'is not preserved: the tracker has no leaf for it';
    throw wrongMark('KHO_ENOENT', addressOf(number, order), order, text);
  }

  #remember(number: number, order: number, page: PhysicalAddress): LeafWindow {
    const { array, index } = this.#memory.words(page);
    return this.#leaves.remember(number, order, array, index);
  }
}

/** Sets the bit of a folio in its leaf, which is known; false if it is set. */
function setBit({ words, starts }: LeafWindow, number: number, order: number): boolean {
  const leaf = leafOf(number);
  const bit = leafBit(number, order);
  const mask = 1 << (bit & 31);
  return (Atomics.or(words[leaf], starts[leaf] + (bit >>> 5), mask) & mask) === 0;
}

/** The opposite; false if it is not set. */
function clearBit({ words, starts }: LeafWindow, number: number, order: number): boolean {
  const leaf = leafOf(number);
  const bit = leafBit(number, order);
  const mask = 1 << (bit & 31);
  return (Atomics.and(words[leaf], starts[leaf] + (bit >>> 5), ~mask) & mask) !== 0;
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

function addressOf(number: number, order: number): PhysicalAddress {
  return (number * FOLIO_SIZE[order]) as PhysicalAddress;
}

function wrongMark(code: 'KHO_EEXIST' | 'KHO_ENOENT', address: PhysicalAddress, order: number, what: string): KhoError {
  return new KhoError(code, `the folio of order ${order} at ${hex(address)} ${what}`, { address });
}
