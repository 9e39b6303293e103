import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress } from './address.js';
import { lowestBit } from './bits.js';
import type { FolioRunVisitor } from './folio-runs.js';
import { MemoryStretch } from './memory-stretch.js';
import type { Folio } from './page-range.js';
import type { PhysicalMemory } from './physical-memory.js';
import { FOLIO_SIZE, KEY_LIMIT, keyOrder, LEAF_BITS, ORDER_BIT, ROOT_LEVEL, TABLE_SIZE } from './radix-key.js';

/** Called once per preserved folio. */
export type FolioVisitor = (address: PhysicalAddress, order: number) => void;

export interface RadixWalkOptions {
  /**
   * Called for each thing that is wrong, instead of throwing it; the walk goes on behind it, so that damage in one place
   * does not hide the rest. Give up by throwing: a page of noise has hundreds of wrong entries.
   */
  readonly onDamage?: (error: KhoError) => void;
}

/**
 * Visits every preserved folio of the tree at `root`, as the next kernel does: ascending keys, that is the highest
 * order first, then ascending addresses. Nothing is allocated per folio. Returns the pages of the tree, in walk order.
 *
 * The bytes are trusted in nothing. KHO_ETRACKER, with the address of the entry and what is wrong with it, when an entry
 * is not page aligned, points outside of memory or into unbacked memory, or to a page met before (a circle, or a shared
 * page); when a key has no valid order; when a folio is not inside memory (unbacked memory is memory). Since no page is
 * read twice, the work is bounded by the memory map. The visitor has then seen what came before the damage. With
 * `onDamage` what is wrong is left out.
 *
 * Whether two folios overlap is not checked: that takes an account of all pages, which is the caller's.
 */
export function walkRadixTree(
  memory: PhysicalMemory,
  root: PhysicalAddress,
  visit: FolioVisitor,
  options: RadixWalkOptions = {},
): PhysicalAddress[] {
  return walkRadixRuns(memory, root, eachFolio(visit), options);
}

/**
 * The same walk, for visitors that take neighbours together: all that follow one another in a leaf are one call. A word of
 * 32 neighbours costs about as much as one folio alone.
 */
export function walkRadixRuns(
  memory: PhysicalMemory,
  root: PhysicalAddress,
  visit: FolioRunVisitor,
  options: RadixWalkOptions = {},
): PhysicalAddress[] {
  const walk = new RadixWalk(memory, options);
  for (const leaf of walk.leaves(root)) walk.visitLeaf(leaf, visit);
  return walk.pages;
}

/** The same walk as a generator, for readers in no hurry: one object per folio. */
export function* radixFolios(memory: PhysicalMemory, root: PhysicalAddress): Generator<Folio, void> {
  const walk = new RadixWalk(memory);
  for (const leaf of walk.leaves(root)) {
    // What came before the damage is yielded before the damage is thrown, as a visitor would see it.
    const folios: Folio[] = [];
    let damage: unknown;
    try {
      walk.visitLeaf(
        leaf,
        eachFolio((address, order) => void folios.push({ address, order })),
      );
    } catch (error) {
      damage = error;
    }
    yield* folios;
    if (damage !== undefined) throw damage;
  }
}

function eachFolio(visit: FolioVisitor): FolioRunVisitor {
  return (address, order, count) => {
    const size = FOLIO_SIZE[order];
    for (let index = 0; index < count; index++) visit((address + index * size) as PhysicalAddress, order);
  };
}

/** A leaf page while it is being visited. */
interface LeafPage {
  readonly address: PhysicalAddress;
  /** The key of its bit 0. */
  readonly firstKey: number;
  /**
   * The order of all its keys; -1 in leaf 0, where the bit that tells the order is one of the leaf's own.
   */
  readonly order: number;
  /** Valid until the next leaf is asked for. */
  readonly words: Int32Array;
}

class RadixWalk {
  /** Pages of the tree met so far. */
  readonly pages: PhysicalAddress[] = [];
  readonly #met = new Set<number>();
  readonly #memory: PhysicalMemory;
  /** One page of words per level: the walk is depth first. */
  readonly #levels = Array.from({ length: ROOT_LEVEL + 1 }, () => new Uint8Array(PAGE_SIZE));
  readonly #stretch: MemoryStretch;
  readonly #onDamage: (error: KhoError) => void;

  constructor(memory: PhysicalMemory, { onDamage = raise }: RadixWalkOptions = {}) {
    this.#memory = memory;
    this.#stretch = new MemoryStretch(memory.ranges);
    this.#onDamage = onDamage;
  }

  *leaves(root: PhysicalAddress): Generator<LeafPage, void> {
    const words = this.#page(root, ROOT_LEVEL, 'the root');
    if (words !== undefined) yield* this.#table(words, root, ROOT_LEVEL, 0);
  }

  *#table(words: Int32Array, table: PhysicalAddress, level: number, prefix: number): Generator<LeafPage, void> {
    for (let index = 0; index < TABLE_SIZE; index++) {
      const low = words[index * 2] >>> 0;
      const high = words[index * 2 + 1] >>> 0;
      if (low === 0 && high === 0) continue;
      const entry = (table + index * 8) as PhysicalAddress;
      const where = `the entry at ${hex(entry)} (level ${level})`;
      const child = prefix * TABLE_SIZE + index;
      const firstKey = child * TABLE_SIZE ** (level - 1) * LEAF_BITS;
      if (firstKey >= KEY_LIMIT) {
        this.#onDamage(damaged(`${where} stands for keys without a valid order`, entry));
        continue;
      }
      const address = (high * 2 ** 32 + low) as PhysicalAddress;
      if (address >= PHYS_ADDR_MAX) {
        const value = (BigInt(high) << 32n) | BigInt(low);
        this.#onDamage(damaged(`${where} points to ${hex(value)}, which is outside of memory`, entry));
        continue;
      }
      const page = this.#page(address, level - 1, where, entry);
      if (page === undefined) continue;
      if (level === 1) yield { address, firstKey, order: firstKey === 0 ? -1 : keyOrder(firstKey), words: page };
      else yield* this.#table(page, address, level - 1, child);
    }
  }

  /** Reads a page of the tree; `entry`, described by `where`, points to it. Undefined if it is damage. */
  #page(address: PhysicalAddress, level: number, where: string, entry = address): Int32Array | undefined {
    let why: string | undefined;
    if (address % PAGE_SIZE !== 0) why = 'not aligned to a page';
    else if (this.#met.has(address)) why = 'a page met before';
    if (why !== undefined) {
      this.#onDamage(damaged(`${where} points to ${hex(address)}, ${why}`, entry));
      return undefined;
    }
    const bytes = this.#levels[level];
    try {
      this.#memory.readInto(address, bytes);
    } catch (cause) {
      if (!(cause instanceof KhoError) || cause.code !== 'KHO_EFAULT') throw cause;
      const text = `${where} points to ${hex(address)}, which cannot be read: ${cause.message}`;
      this.#onDamage(damaged(text, entry, cause));
      return undefined;
    }
    this.#met.add(address);
    this.pages.push(address);
    return new Int32Array(bytes.buffer);
  }

  /** Visits what a leaf marks: bits that follow one another are one run, over the borders of words too. */
  visitLeaf(leaf: LeafPage, visit: FolioRunVisitor): void {
    const { words } = leaf;
    if (leaf.order < 0) {
      this.#visitMixedLeaf(leaf, visit);
      return;
    }
    let first = 0;
    let count = 0;
    for (let index = 0; index < words.length; index++) {
      const word = words[index];
      if (word === -1) {
        if (count === 0) first = index * 32;
        count += 32;
        continue;
      }
      let bit = index * 32;
      for (let rest = word; rest !== 0; ) {
        const zeros = lowestBit(rest);
        if (zeros > 0 && count > 0) {
          this.#visitRun(leaf, first, count, leaf.order, visit);
          count = 0;
        }
        rest >>>= zeros;
        bit += zeros;
        if (count === 0) first = bit;
        const ones = lowestBit(~rest); // there is a 0: not all of the word is ones
        count += ones;
        rest >>>= ones;
        bit += ones;
      }
      if (count > 0 && word >= 0) {
        // The word's last bit is none of them.
        this.#visitRun(leaf, first, count, leaf.order, visit);
        count = 0;
      }
    }
    if (count > 0) this.#visitRun(leaf, first, count, leaf.order, visit);
  }

  /** Leaf 0 alone has keys of several orders, all too large for any memory. */
  #visitMixedLeaf(leaf: LeafPage, visit: FolioRunVisitor): void {
    for (let index = 0; index < leaf.words.length; index++) {
      for (let word = leaf.words[index]; word !== 0; word &= word - 1) {
        const key = index * 32 + lowestBit(word);
        if (key > 0) this.#visitRun(leaf, key, 1, keyOrder(key), visit);
        else {
          const text = `the bit for key 0, which has no valid order, is set at ${hex(leaf.address)}`;
          this.#onDamage(damaged(text, leaf.address));
        }
      }
    }
  }

  /** `count` folios from bit `first` of the leaf on. */
  #visitRun(leaf: LeafPage, first: number, count: number, order: number, visit: FolioRunVisitor): void {
    const size = FOLIO_SIZE[order];
    const address = (leaf.firstKey + first - ORDER_BIT[order]) * size;
    if (this.#stretch.holds(address, count * size)) {
      visit(address as PhysicalAddress, order, count);
    } else if (count > 1) {
      for (let index = 0; index < count; index++) this.#visitRun(leaf, first + index, 1, order, visit);
    } else {
      const at = (leaf.address + Math.floor(first / 64) * 8) as PhysicalAddress;
      const text = `${hex(at)} marks the folio of order ${order} at ${hex(address)}, not inside memory`;
      this.#onDamage(damaged(text, at));
    }
  }
}

function raise(error: KhoError): never {
  throw error;
}

function damaged(text: string, address: number, cause?: unknown): KhoError {
  return new KhoError('KHO_ETRACKER', text, { address }, cause === undefined ? undefined : { cause });
}
