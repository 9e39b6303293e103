import { KhoError } from '../errors.js';
import { after, hex, type PhysicalAddress } from './address.js';
import { capSize, checkNodeAndFlags, MemblockFlags, type MemblockRegion, regionEnd } from './region.js';
import { roundDown, roundUp } from './round.js';

/**
 * Makes the array of `type` hold twice as many regions, because [base, base + size) is about to be added or cut.
 * Throws where it cannot; nothing has changed then.
 */
export type GrowArray = (type: MemblockType, base: PhysicalAddress, size: number) => void;

/** What an operation would make the kernel warn of. It has changed nothing yet, and does not if this throws. */
export type WarnOf = (message: string, base: PhysicalAddress, size: number) => void;

/** All of a {@link MemblockType} that changes, to be put back. */
export interface MemblockTypeState {
  readonly regions: readonly Readonly<MemblockRegion>[];
  readonly totalSize: number;
  readonly max: number;
  readonly arrayAddress: PhysicalAddress | undefined;
}

/**
 * A sorted array of regions that never overlap: `memory` and `reserved` are one each.
 *
 * Neighbours of equal flags and node are one region, but only where an operation touched them, as in the kernel: each
 * merges from the region before its first to the one behind its last. An operation finds its first region in
 * O(log regions) and moves those behind it; at the end of the array it moves none.
 *
 * The array has room for {@link max} regions. Where the kernel would need more, it grows first: `grow` says how. That is
 * the case before the kernel knows for certain that there is too little room, and as early here: an addition counts
 * only if the array is half full, and cutting wants room for two regions whether or not it cuts.
 */
export class MemblockType {
  readonly name: string;
  readonly #grow: GrowArray;
  readonly #warn: WarnOf;
  #regions: MemblockRegion[];
  #totalSize: number;
  #max: number;
  #arrayAddress: PhysicalAddress | undefined;

  constructor(name: string, state: MemblockTypeState, grow: GrowArray, warn: WarnOf) {
    this.name = name;
    this.#grow = grow;
    this.#warn = warn;
    this.#regions = state.regions.map((region) => ({ ...region }));
    this.#totalSize = state.totalSize;
    this.#max = state.max;
    this.#arrayAddress = state.arrayAddress;
  }

  get regions(): readonly Readonly<MemblockRegion>[] {
    return this.#regions;
  }

  /**
   * Bytes in all regions, as the kernel counts them: what {@link trim} cuts off regions that stay goes on being counted,
   * until a region is added to an empty array.
   */
  get totalSize(): number {
    return this.#totalSize;
  }

  /** Regions that the array has room for. */
  get max(): number {
    return this.#max;
  }

  /** Where in memory the array is; undefined while it is the one in the kernel's image. */
  get arrayAddress(): PhysicalAddress | undefined {
    return this.#arrayAddress;
  }

  /** A copy of all that changes, for {@link restore} or a new MemblockType. */
  save(): MemblockTypeState {
    const regions = this.#regions.map((region) => ({ ...region }));
    return { regions, totalSize: this.#totalSize, max: this.#max, arrayAddress: this.#arrayAddress };
  }

  restore(state: MemblockTypeState): void {
    this.#regions = state.regions.map((region) => ({ ...region }));
    this.#totalSize = state.totalSize;
    this.#max = state.max;
    this.#arrayAddress = state.arrayAddress;
  }

  /** The array is another now, with room for `max` regions: for whoever grows it. */
  moveArray(address: PhysicalAddress, max: number): void {
    this.#arrayAddress = address;
    this.#max = max;
  }

  /**
   * Adds [base, base + size). Where it overlaps a region, that region stays as it is: only the gaps are filled, with
   * `flags` and `nid`. The range ends at {@link PHYS_ADDR_MAX} at the latest; an empty one does nothing.
   *
   * The kernel warns and goes on where a region with another node or other flags lies behind a gap, and where there is no
   * region but {@link totalSize} is not 0. KHO_ENOMEM where the array must grow and cannot; the range is not added then.
   */
  addRange(base: PhysicalAddress, size: number, nid: number, flags: number): void {
    const capped = capSize(base, size);
    checkNodeAndFlags(nid, flags);
    if (capped === 0) return;
    const end = after(base, capped);
    if (this.#regions.length === 0) {
      if (this.#totalSize !== 0) this.#warnOfRest('has no region', this.#totalSize, base, capped);
      this.#regions.push({ base, size: capped, nid, flags });
      this.#totalSize = capped;
      return;
    }
    if (base < regionEnd(this.#regions[this.#regions.length - 1])) this.#warnOfOthers(base, end, nid, flags);
    if (this.#regions.length * 2 + 1 > this.#max && !this.#makeRoomFor(base, end, nid, flags)) return;
    this.#fill(base, end, nid, flags);
  }

  /** Takes [base, base + size) out; regions that cross its ends are cut. KHO_ENOMEM as {@link isolateRange}. */
  removeRange(base: PhysicalAddress, size: number): void {
    const [first, last] = this.isolateRange(base, size);
    this.#uncount(this.#regions.slice(first, last));
    this.#regions.splice(first, last - first);
  }

  /** Takes out every region that `keeps` does not want. */
  keepOnly(keeps: (region: Readonly<MemblockRegion>, index: number) => boolean): void {
    this.#uncount(this.#regions.filter((region, index) => !keeps(region, index)));
    this.#regions = this.#regions.filter(keeps);
  }

  /** Sets or clears `flags` in [base, base + size), where there are regions. KHO_ENOMEM as {@link isolateRange}. */
  changeFlags(base: PhysicalAddress, size: number, flags: number, set: boolean): void {
    const [first, last] = this.isolateRange(base, size);
    for (let index = first; index < last; index++) {
      const region = this.#regions[index];
      region.flags = set ? region.flags | flags : region.flags & ~flags;
    }
    this.#merge(first, last);
  }

  /** Gives what regions there are in [base, base + size) to node `nid`. KHO_ENOMEM as {@link isolateRange}. */
  setNode(base: PhysicalAddress, size: number, nid: number): void {
    checkNodeAndFlags(nid);
    const [first, last] = this.isolateRange(base, size);
    for (let index = first; index < last; index++) this.#regions[index].nid = nid;
    this.#merge(first, last);
  }

  /**
   * Rounds the ends of every region inwards to multiples of `align`; what is left of none is taken out. Nothing merges, and
   * {@link totalSize} loses only what whole regions had, as in the kernel.
   */
  trim(align: number): void {
    const start = ({ base }: MemblockRegion) => roundUp(base, align);
    const end = (region: MemblockRegion) => roundDown(regionEnd(region), align);
    const keeps = (region: MemblockRegion) => start(region) < end(region);
    this.keepOnly(keeps);
    this.#regions = this.#regions.map((region) => {
      const base = start(region) as PhysicalAddress;
      return { ...region, base, size: end(region) - base };
    });
  }

  /**
   * Cuts regions at `base` and at `base + size`, so that none crosses either, and returns [first, last): the indices of
   * those inside, [0, 0) where there are none. The caller merges, or the cuts stay.
   *
   * KHO_ENOMEM where the array has no room for two regions more and cannot grow; nothing is cut then.
   */
  isolateRange(base: PhysicalAddress, size: number): [first: number, last: number] {
    const capped = capSize(base, size);
    const end = after(base, capped);
    let first = 0;
    let last = 0;
    if (capped === 0) return [first, last];
    while (this.#regions.length + 2 > this.#max) this.#grow(this, base, capped);
    for (let index = this.#firstEndingAfter(base); index < this.#regions.length; index++) {
      if (this.#regions[index].base >= end) break;
      if (this.#regions[index].base < base) {
        this.#split(index, base);
        continue; // the upper half is next
      }
      if (regionEnd(this.#regions[index]) > end) this.#split(index, end);
      if (last === 0) first = index;
      last = index + 1;
    }
    return [first, last];
  }

  /**
   * Whether a region has a byte in common with [base, base + size). An empty range strictly inside a region counts as
   * overlapping it, and one at its border does not, as in memblock_addrs_overlap().
   */
  overlaps(base: PhysicalAddress, size: number): boolean {
    const end = after(base, capSize(base, size));
    const index = this.#firstEndingAfter(base);
    return index < this.#regions.length && this.#regions[index].base < end;
  }

  /** The index of the region that holds `address`, or -1. */
  search(address: PhysicalAddress): number {
    const index = this.#firstEndingAfter(address);
    return index < this.#regions.length && this.#regions[index].base <= address ? index : -1;
  }

  /** The first region that ends behind `address`; the number of regions if none does. */
  #firstEndingAfter(address: PhysicalAddress): number {
    const regions = this.#regions;
    let high = regions.length;
    // Ascending ranges are added at the end: no search for those.
    if (high === 0 || regionEnd(regions[high - 1]) <= address) return high;
    let low = 0;
    high--;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (regionEnd(regions[middle]) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Grows the array until what [base, end) adds has room; false if it adds nothing. */
  #makeRoomFor(base: PhysicalAddress, end: PhysicalAddress, nid: number, flags: number): boolean {
    const added = this.#gapsIn(base, end);
    if (added === 0) return false;
    let grown = false;
    for (; this.#regions.length + added > this.#max; grown = true) this.#grow(this, base, end - base);
    if (!grown) return true;
    // An array that grows frees its old place, perhaps inside the range. The kernel warns again, but does not count: a BUG.
    this.#warnOfOthers(base, end, nid, flags);
    if (this.#regions.length + this.#gapsIn(base, end) > this.#max) {
      throw new KhoError('KHO_ENOMEM', `the ${this.name} array has no room for what its own growth freed`, {
        address: base,
        size: end - base,
      });
    }
    return true;
  }

  /** In how many pieces [base, end) is not covered. */
  #gapsIn(base: PhysicalAddress, end: PhysicalAddress): number {
    let from = base;
    let gaps = 0;
    for (let index = this.#firstEndingAfter(base); index < this.#regions.length; index++) {
      const region = this.#regions[index];
      if (region.base >= end) break;
      if (region.base > from) gaps++;
      from = regionEnd(region);
    }
    return from < end ? gaps + 1 : gaps;
  }

  /** Warns of the first region with another node or other flags that has a gap before it. */
  #warnOfOthers(base: PhysicalAddress, end: PhysicalAddress, nid: number, flags: number): void {
    let from = base;
    for (let index = this.#firstEndingAfter(base); index < this.#regions.length; index++) {
      const region = this.#regions[index];
      if (region.base >= end) break;
      const others = nid !== region.nid || (flags !== MemblockFlags.NONE && flags !== region.flags);
      if (region.base > from && others) {
        const [added, there] = [`node ${nid}, flags ${hex(flags)}`, `node ${region.nid}, flags ${hex(region.flags)}`];
        const range = `[${hex(base)}, ${hex(end)})`;
        const text = `${range} (${added}) overlaps ${this.name} at ${hex(region.base)} (${there})`;
        this.#warn(text, base, end - base);
        return;
      }
      from = regionEnd(region);
    }
  }

  /** Before these regions go. */
  #uncount(regions: readonly MemblockRegion[]): void {
    const bytes = regions.reduce((sum, { size }) => sum + size, 0);
    const rest = this.#totalSize - bytes;
    if (rest !== 0 && regions.length > 0 && regions.length === this.#regions.length) {
      const { base } = regions[0];
      this.#warnOfRest('loses its last region', rest, base, regionEnd(regions[regions.length - 1]) - base);
    }
    this.#totalSize = rest;
  }

  /** Warns of bytes that are counted of no region: {@link trim} cut them off. */
  #warnOfRest(what: string, rest: number, base: PhysicalAddress, size: number): void {
    this.#warn(`${this.name} ${what}, but ${rest} bytes of regions that were trimmed are still counted`, base, size);
  }

  #fill(base: PhysicalAddress, end: PhysicalAddress, nid: number, flags: number): void {
    let index = this.#firstEndingAfter(base);
    if (index === this.#regions.length) {
      this.#append(base, end - base, nid, flags);
      return;
    }
    let from = base;
    let first = -1;
    let last = 0;
    const fillUpTo = (to: PhysicalAddress): void => {
      if (first < 0) first = index;
      this.#regions.splice(index, 0, { base: from, size: to - from, nid, flags });
      this.#totalSize += to - from;
      last = ++index;
    };
    for (; index < this.#regions.length; index++) {
      const { base: regionBase } = this.#regions[index];
      const to = regionEnd(this.#regions[index]);
      if (regionBase >= end) break;
      if (regionBase > from) fillUpTo(regionBase);
      from = to < end ? to : end;
    }
    if (from < end) fillUpTo(end);
    if (first >= 0) this.#merge(first, last);
  }

  #append(base: PhysicalAddress, size: number, nid: number, flags: number): void {
    const region = this.#regions[this.#regions.length - 1];
    if (regionEnd(region) === base && region.nid === nid && region.flags === flags) region.size += size;
    else this.#regions.push({ base, size, nid, flags });
    this.#totalSize += size;
  }

  #split(index: number, at: PhysicalAddress): void {
    const upper = this.#regions[index];
    const lower = { ...upper, size: at - upper.base };
    upper.base = at;
    upper.size -= lower.size;
    this.#regions.splice(index, 0, lower);
  }

  /** Merges neighbours from the region before `first` up to the one at `last`. */
  #merge(first: number, last: number): void {
    let index = Math.max(first - 1, 0);
    let stop = Math.min(last, this.#regions.length - 1);
    while (index < stop) {
      const region = this.#regions[index];
      const next = this.#regions[index + 1];
      if (regionEnd(region) !== next.base || region.nid !== next.nid || region.flags !== next.flags) {
        index++;
        continue;
      }
      region.size += next.size;
      this.#regions.splice(index + 1, 1);
      stop--;
    }
  }
}
