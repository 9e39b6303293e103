import { PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { Folio } from './page-range.js';

/** The first address behind a folio. */
export function folioEnd({ address, order }: Folio): number {
  return address + PAGE_SIZE * 2 ** order;
}

/**
 * Preserved objects in ascending order of address, to be asked which of them lie where. They may overlap: a damaged
 * tracker says anything.
 *
 * | | |
 * |---|---|
 * | make | sorting |
 * | `at`, `overlapping`, `covers` | a binary search, and what it finds |
 */
export class FolioIndex {
  /** Ascending addresses; of one address the smallest order first. */
  readonly folios: readonly Folio[];
  /** The highest end among a folio and all before it: ascending, even where folios overlap. */
  readonly #reach: Float64Array;

  constructor(folios: Iterable<Folio>) {
    this.folios = [...folios].sort((a, b) => a.address - b.address || a.order - b.order);
    this.#reach = new Float64Array(this.folios.length);
    let reach = 0;
    for (const [index, folio] of this.folios.entries()) {
      reach = Math.max(reach, folioEnd(folio));
      this.#reach[index] = reach;
    }
  }

  /** Bytes of all of them; what overlaps counts twice. */
  get bytes(): number {
    return this.folios.reduce((sum, { order }) => sum + PAGE_SIZE * 2 ** order, 0);
  }

  /** The number of the first folio that begins at `address`, in {@link folios}; -1 if none does. */
  at(address: PhysicalAddress): number {
    let low = 0;
    let high = this.folios.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.folios[middle].address < address) low = middle + 1;
      else high = middle;
    }
    return this.folios[low]?.address === address ? low : -1;
  }

  /** The numbers of the folios that share a byte with [address, address + size), ascending. */
  *overlapping(address: number, size: number): Generator<number, void> {
    if (size <= 0) return;
    for (let index = this.#firstReaching(address); index < this.folios.length; index++) {
      const folio = this.folios[index];
      if (folio.address >= address + size) return;
      if (folioEnd(folio) > address) yield index;
    }
  }

  /** Whether every byte of [address, address + size) belongs to some folio. */
  covers(address: number, size: number): boolean {
    let at = address;
    for (const index of this.overlapping(address, size)) {
      const folio = this.folios[index];
      if (folio.address > at) return false;
      at = Math.max(at, folioEnd(folio));
    }
    return at >= address + size;
  }

  /** Pairs of folios that share bytes: each one that begins before an earlier one ends, and that one. */
  *overlaps(): Generator<[earlier: Folio, later: Folio], void> {
    let longest: Folio | undefined;
    for (const folio of this.folios) {
      if (longest !== undefined && folioEnd(longest) > folio.address) yield [longest, folio];
      if (longest === undefined || folioEnd(folio) > folioEnd(longest)) longest = folio;
    }
  }

  #firstReaching(address: number): number {
    let low = 0;
    let high = this.folios.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#reach[middle] > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
