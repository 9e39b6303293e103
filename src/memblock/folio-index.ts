import type { PhysicalAddress } from './address.js';
import { FolioRuns, folioRank, rankAddress, rankOrder, rankStep } from './folio-runs.js';
import type { Folio } from './page-range.js';
import { FOLIO_SIZE } from './radix-key.js';

/** The first address behind a folio. */
export function folioEnd({ address, order }: Folio): number {
  return address + FOLIO_SIZE[order];
}

/**
 * Preserved objects in ascending order of address, and of one address the smallest order first, to be asked which of
 * them lie where. They have numbers from 0. They may overlap: a damaged tracker says anything.
 *
 * It knows runs: neighbours of one order. A run takes 16 bytes, or 24 if anything overlaps, however many folios it has; a
 * {@link Folio} is made when one is asked for.
 *
 * | | |
 * |---|---|
 * | make | what {@link FolioRuns.sorted} takes, and a pass over the runs |
 * | `folio`, `at` | a binary search over the runs |
 * | `overlapping` | the same, and what it finds |
 * | `covers`, `overlaps` | runs, not folios |
 */
export class FolioIndex implements Iterable<Folio> {
  /** How many folios there are. */
  readonly count: number;
  /** Bytes of all of them; what overlaps counts twice. */
  readonly bytes: number;
  /** How many runs. The folios of a run are neighbours of one order, and have successive numbers. */
  readonly runCount: number;
  /** Of each run's first folio. */
  readonly #ranks: Float64Array;
  /** The number of each run's first folio, and {@link count} at the end. */
  readonly #firsts: Float64Array;
  /** The highest end among a run and all before it, where that is not the run's own end: something overlaps. */
  readonly #reach: Float64Array | undefined;

  constructor(runs: FolioRuns) {
    const { ranks, counts, length } = runs.sorted();
    this.#ranks = ranks;
    this.#firsts = new Float64Array(length + 1);
    this.runCount = length;
    let bytes = 0;
    let reach = 0;
    let overlap = false;
    for (let run = 0; run < length; run++) {
      this.#firsts[run + 1] = this.#firsts[run] + counts[run];
      const start = rankAddress(ranks[run]);
      const size = counts[run] * FOLIO_SIZE[rankOrder(ranks[run])];
      overlap ||= start < reach;
      reach = Math.max(reach, start + size);
      bytes += size;
    }
    this.count = this.#firsts[length];
    this.bytes = bytes;
    this.#reach = overlap ? this.#reaches() : undefined;
  }

  /** Of folios in any order. */
  static of(folios: Iterable<Folio>): FolioIndex {
    return new FolioIndex(FolioRuns.of(folios));
  }

  /** The address of a run's first folio. */
  runStart(run: number): PhysicalAddress {
    return rankAddress(this.#ranks[run]);
  }

  /** The address behind a run's last folio. */
  runEnd(run: number): number {
    return rankAddress(this.#ranks[run]) + this.runLength(run) * FOLIO_SIZE[this.runOrder(run)];
  }

  runOrder(run: number): number {
    return rankOrder(this.#ranks[run]);
  }

  /** The folios of a run. */
  runLength(run: number): number {
    return this.#firsts[run + 1] - this.#firsts[run];
  }

  /** The number of a run's first folio. */
  runFirst(run: number): number {
    return this.#firsts[run];
  }

  /** The folio of a number from 0 to {@link count} - 1. */
  folio(number: number): Folio {
    const run = lastNotAbove(this.#firsts, this.runCount, number);
    return this.#inRun(run, number - this.#firsts[run]);
  }

  /** All folios, ascending; their numbers are 0, 1 and so on. */
  *[Symbol.iterator](): Generator<Folio, void> {
    for (let run = 0; run < this.runCount; run++) {
      const length = this.runLength(run);
      for (let index = 0; index < length; index++) yield this.#inRun(run, index);
    }
  }

  /** The number of the first folio that begins at `address`; -1 if none does. */
  at(address: PhysicalAddress): number {
    const rank = folioRank(address, 0);
    let run = Math.max(0, lastNotAbove(this.#ranks, this.runCount, rank - 1));
    for (; run < this.runCount && this.#ranks[run] < rank + FOLIO_SIZE.length; run++) {
      const index = Math.max(0, Math.ceil((address - this.runStart(run)) / FOLIO_SIZE[this.runOrder(run)]));
      if (index >= this.runLength(run)) continue; // all of it lies before
      return this.#inRun(run, index).address === address ? this.#firsts[run] + index : -1;
    }
    return -1;
  }

  /** The numbers of the folios that share a byte with [address, address + size), ascending. */
  *overlapping(address: number, size: number): Generator<number, void> {
    if (size <= 0) return;
    const end = address + size;
    for (let run = this.#firstReaching(address); run < this.runCount && this.runStart(run) < end; run++) {
      const start = this.runStart(run);
      const folio = FOLIO_SIZE[this.runOrder(run)];
      const from = Math.max(0, Math.floor((address - start) / folio));
      const to = Math.min(this.runLength(run), Math.ceil((end - start) / folio));
      for (let index = from; index < to; index++) yield this.#firsts[run] + index;
    }
  }

  /** Whether every byte of [address, address + size) belongs to some folio. */
  covers(address: number, size: number): boolean {
    const end = address + size;
    let at = address;
    for (let run = this.#firstReaching(address); at < end && run < this.runCount; run++) {
      if (this.runStart(run) > at) return false;
      at = Math.max(at, this.runEnd(run));
    }
    return at >= end;
  }

  /** Pairs of folios that share bytes: each one that begins before an earlier one ends, and that one. */
  *overlaps(): Generator<[earlier: Folio, later: Folio], void> {
    if (this.#reach === undefined) return;
    let longest: Folio | undefined;
    for (let run = 0; run < this.runCount; run++) {
      const length = this.runLength(run);
      for (let index = 0; index < length; index++) {
        const folio = this.#inRun(run, index);
        if (longest !== undefined && folioEnd(longest) > folio.address) {
          yield [longest, folio];
          if (folioEnd(folio) > folioEnd(longest)) longest = folio;
        } else {
          // Nor do those behind it in the run reach back to anything.
          longest = this.#inRun(run, length - 1);
          break;
        }
      }
    }
  }

  #inRun(run: number, index: number): Folio {
    const rank = this.#ranks[run];
    const order = rankOrder(rank);
    return { address: rankAddress(rank + index * rankStep(order)), order };
  }

  #reaches(): Float64Array {
    const reaches = new Float64Array(this.runCount);
    let reach = 0;
    for (let run = 0; run < this.runCount; run++) {
      reach = Math.max(reach, this.runEnd(run));
      reaches[run] = reach;
    }
    return reaches;
  }

  /** The first run that it, or one before it, ends behind `address`. */
  #firstReaching(address: number): number {
    let low = 0;
    let high = this.runCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#reach?.[middle] ?? this.runEnd(middle)) > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** The index of the last of the first `length` ascending values that is not above `value`; -1 if all are. */
function lastNotAbove(values: Float64Array, length: number, value: number): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
