/** Some memory. */
interface Stretch {
  readonly base: number;
  readonly size: number;
}

/**
 * Tells whether ranges of addresses lie in memory without a hole, over any borders of the memory map. It remembers the
 * stretch that held the last one, since what is asked for mostly lies near what was asked before.
 */
export class MemoryStretch {
  readonly #ranges: readonly Stretch[];
  #start = 0;
  #end = 0;

  /** Ascending ranges; unbacked memory is memory. */
  constructor(ranges: readonly Stretch[]) {
    this.#ranges = ranges;
  }

  holds(address: number, size: number): boolean {
    return (address >= this.#start && address + size <= this.#end) || this.#find(address, size);
  }

  #find(address: number, size: number): boolean {
    let start = 0;
    let end = 0;
    for (const range of this.#ranges) {
      if (range.base > end) start = range.base;
      end = Math.max(end, range.base + range.size);
      if (address < start) return false;
      if (address + size <= end) {
        this.#start = start;
        this.#end = end;
        return true;
      }
    }
    return false;
  }
}
