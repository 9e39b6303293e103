import { clearBit, fillBits, lowestBit, setBit, testBit } from './bits.js';

/**
 * A set of integers in [0, capacity) that finds its smallest member in a few steps, whatever its size.
 *
 * A pyramid of bitmaps: a bit of one level says whether a word of the level below has any bit set.
 *
 * ```text
 *   level 1                 1 0 1 ...
 *                          /     \
 *   level 0   0100...0110     0000...0001   ...
 * ```
 *
 * | operation            | cost               |
 * |----------------------|--------------------|
 * | has                  | O(1)               |
 * | add, delete, next    | O(log32 capacity)  |
 */
export class IndexSet {
  readonly #levels: Int32Array[] = [];
  #size = 0;

  /** An empty set. `capacity` is at most 2^31. */
  constructor(capacity: number) {
    let words = capacity;
    do {
      words = Math.ceil(words / 32);
      this.#levels.push(new Int32Array(Math.max(1, words)));
    } while (words > 1);
  }

  /** How many members it has. */
  get size(): number {
    return this.#size;
  }

  /** Whether `index` (below the capacity, unchecked, as everywhere here) is a member. */
  has(index: number): boolean {
    return testBit(this.#levels[0], index);
  }

  /** Adds a member; one that is there already changes nothing. */
  add(index: number): void {
    if (this.has(index)) return;
    this.#size++;
    for (const level of this.#levels) {
      const had = level[index >>> 5] !== 0;
      setBit(level, index);
      if (had) return;
      index >>>= 5;
    }
  }

  /** Adds `count` neighbours, at least one, of which none is a member: a step for each 32 of them. */
  addRange(start: number, count: number): void {
    this.#size += count;
    let first = start;
    let last = start + count - 1;
    for (const level of this.#levels) {
      fillBits(level, first, last - first + 1, true);
      first >>>= 5;
      last >>>= 5;
    }
  }

  /** Removes a member; one that is not there changes nothing. */
  delete(index: number): void {
    if (!this.has(index)) return;
    this.#size--;
    for (const level of this.#levels) {
      clearBit(level, index);
      if (level[index >>> 5] !== 0) return;
      index >>>= 5;
    }
  }

  /** The smallest member that is at least `from`, or -1. */
  next(from = 0): number {
    // Up, until a word has a member at or after the place; then down to the smallest below it.
    for (let depth = 0; depth < this.#levels.length; depth++) {
      const level = this.#levels[depth];
      const at = from >>> 5;
      const word = at < level.length ? level[at] & (-1 << (from & 31)) : 0;
      if (word !== 0) {
        let index = at * 32 + lowestBit(word);
        while (depth-- > 0) index = index * 32 + lowestBit(this.#levels[depth][index]);
        return index;
      }
      from = at + 1;
    }
    return -1;
  }
}
