import { PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { Folio } from './page-range.js';
import { FOLIO_SIZE } from './radix-key.js';

/** Called for `count` folios of one order, each where the one before ends. */
export type FolioRunVisitor = (address: PhysicalAddress, order: number, count: number) => void;

/** A rank is a frame number times this, and the order: ranks ascend as (address, order) does. Exact below 2^47. */
const RANKS_PER_PAGE = 64;
const FEW = 64;

/** The rank of a folio. Ranks of neighbours of one order lie {@link rankStep} apart. */
export function folioRank(address: number, order: number): number {
  return (address / PAGE_SIZE) * RANKS_PER_PAGE + order;
}

/** The address that a rank stands for. */
export function rankAddress(rank: number): PhysicalAddress {
  return (Math.floor(rank / RANKS_PER_PAGE) * PAGE_SIZE) as PhysicalAddress;
}

export function rankOrder(rank: number): number {
  return rank - Math.floor(rank / RANKS_PER_PAGE) * RANKS_PER_PAGE; // % of doubles is a call in V8
}

export function rankStep(order: number): number {
  return FOLIO_SIZE[order] / (PAGE_SIZE / RANKS_PER_PAGE);
}

/**
 * Folios as they are met, in any order: neighbours of one order that follow one another are one run. A run takes 16 bytes,
 * however many folios it has; there is no object for any of them.
 *
 * A walk of a tracker meets each order's folios ascending, so what is here is a few ascending parts, and {@link sorted} merges them. A
 * damaged tracker may come in any order, with folios that overlap, or twice.
 */
export class FolioRuns {
  /** Of each run's first folio. */
  #ranks: Float64Array;
  #counts: Float64Array;
  #length = 0;
  /** Where the ascending parts begin, in numbers of runs. */
  readonly #parts: number[] = [];
  /** The rank of the last folio, and what the next one's is if it continues the run. */
  #last = Number.POSITIVE_INFINITY;
  #next = -1;

  constructor(capacity = FEW) {
    this.#ranks = new Float64Array(capacity);
    this.#counts = new Float64Array(capacity);
  }

  static of(folios: Iterable<Folio>): FolioRuns {
    const runs = new FolioRuns();
    for (const { address, order } of folios) runs.add(address, order);
    return runs;
  }

  /** Runs, not folios. */
  get length(): number {
    return this.#length;
  }

  /** The rank of the first folio of each run. */
  get ranks(): Float64Array {
    return this.#ranks.subarray(0, this.#length);
  }

  /** The folios of each run. */
  get counts(): Float64Array {
    return this.#counts.subarray(0, this.#length);
  }

  /** Adds `count` folios; a visitor of a walk, of single folios or of runs. */
  add(address: PhysicalAddress, order: number, count = 1): void {
    this.#append(folioRank(address, order), rankStep(order), count);
  }

  /** The same folios, in ascending order of address, and of one address the smallest order first. It may be this object. */
  sorted(): FolioRuns {
    const parts = this.#parts.map((from, part) => this.#part(from, this.#parts[part + 1] ?? this.#length));
    // What grows with every merge is merged last: mostly order 0, which a walk comes to last, and which is copied once.
    const merged: FolioRuns[] = [];
    for (const part of parts) {
      let top = part;
      while (merged.length > 0 && merged[merged.length - 1].#length <= 2 * top.#length) {
        top = FolioRuns.#merge(merged.pop() as FolioRuns, top);
      }
      merged.push(top);
    }
    return merged.reduceRight((later, earlier) => FolioRuns.#merge(earlier, later), new FolioRuns(0));
  }

  #append(rank: number, step: number, count: number): void {
    if (rank === this.#next) {
      this.#counts[this.#length - 1] += count;
    } else {
      if (rank < this.#last) this.#parts.push(this.#length);
      if (this.#length === this.#ranks.length) this.#grow();
      this.#ranks[this.#length] = rank;
      this.#counts[this.#length++] = count;
    }
    this.#next = rank + count * step;
    this.#last = this.#next - step;
  }

  #grow(): void {
    const { ranks, counts } = this;
    const capacity = Math.max(FEW, 2 * this.#length);
    this.#ranks = new Float64Array(capacity);
    this.#ranks.set(ranks);
    this.#counts = new Float64Array(capacity);
    this.#counts.set(counts);
  }

  /** Runs [from, to), which ascend, without a copy. */
  #part(from: number, to: number): FolioRuns {
    const part = new FolioRuns(0);
    part.#ranks = this.#ranks.subarray(from, to);
    part.#counts = this.#counts.subarray(from, to);
    part.#length = to - from;
    part.#parts.push(0);
    return part;
  }

  /** Two that ascend as one that does. A run is cut where a folio of the other comes between its own. */
  static #merge(a: FolioRuns, b: FolioRuns): FolioRuns {
    if (a.#length === 0) return b;
    if (b.#length === 0) return a;
    const merged = new FolioRuns(a.#length + b.#length);
    let [left, right] = [a, b];
    let [at, other] = [0, 0];
    let [rank, count] = [left.#ranks[0], left.#counts[0]];
    let [otherRank, otherCount] = [right.#ranks[0], right.#counts[0]];
    for (;;) {
      if (rank > otherRank) {
        [left, right] = [right, left];
        [at, other] = [other, at];
        [rank, otherRank] = [otherRank, rank];
        [count, otherCount] = [otherCount, count];
      }
      const step = rankStep(rankOrder(rank));
      const before = Math.min(count, Math.floor((otherRank - rank) / step) + 1);
      merged.#append(rank, step, before);
      if (before < count) {
        rank += before * step;
        count -= before;
        continue;
      }
      if (++at === left.#length) break;
      rank = left.#ranks[at];
      count = left.#counts[at];
    }
    for (;;) {
      merged.#append(otherRank, rankStep(rankOrder(otherRank)), otherCount);
      if (++other === right.#length) return merged;
      otherRank = right.#ranks[other];
      otherCount = right.#counts[other];
    }
  }
}
