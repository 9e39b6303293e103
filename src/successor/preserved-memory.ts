import { KhoError } from '../errors.js';
import {
  type Folio,
  type FolioIndex,
  hex,
  naturalOrders,
  type PageRange,
  type PhysicalAddress,
} from '../memblock/index.js';

/** What a settlement is called, by the number that stands for it. */
const SETTLEMENTS = ['unclaimed', 'claimed', 'discarded'] as const;
type Settlement = 'claimed' | 'discarded';

/**
 * What became of the memory that the predecessor preserved, object by object: a byte each. Every object is settled at most
 * once. The objects do not overlap: early boot made sure.
 */
export class PreservedMemory {
  readonly #objects: FolioIndex;
  /** Index in {@link SETTLEMENTS} by number of the object. */
  readonly #settled: Uint8Array;

  constructor(objects: FolioIndex) {
    this.#objects = objects;
    this.#settled = new Uint8Array(objects.count);
  }

  get count(): number {
    return this.#objects.count;
  }

  get bytes(): number {
    return this.#objects.bytes;
  }

  /** All of it, ascending: neighbours of one order together. */
  *runs(): Generator<{ address: PhysicalAddress; order: number; count: number }, void> {
    const objects = this.#objects;
    for (let run = 0; run < objects.runCount; run++) {
      yield { address: objects.runStart(run), order: objects.runOrder(run), count: objects.runLength(run) };
    }
  }

  /**
   * Settles a folio, or each object of a range. KHO_ENOENT unless exactly this was preserved, KHO_EBUSY if any of it
   * is settled already; then nothing is settled.
   */
  settle(pages: PageRange | Folio, how: Settlement): void {
    const folios = 'order' in pages ? [pages] : [...naturalOrders(pages.address, pages.pages)];
    const numbers = folios.map((folio) => this.#find(folio));
    for (const number of numbers) {
      if (this.#settled[number] === 0) continue;
      const before = SETTLEMENTS[this.#settled[number]];
      const { address } = this.#objects.folio(number);
      throw new KhoError('KHO_EBUSY', `the memory at ${hex(address)} was ${before} before`, { address });
    }
    for (const number of numbers) this.#settled[number] = SETTLEMENTS.indexOf(how);
  }

  /** Settles the object that begins at `address`, whatever its order. The same errors. */
  settleAt(address: PhysicalAddress, how: Settlement): Folio {
    const number = this.#objects.at(address);
    if (number < 0) {
      throw new KhoError('KHO_ENOENT', `no object that begins at ${hex(address)} was preserved`, { address });
    }
    const folio = this.#objects.folio(number);
    this.settle(folio, how);
    return folio;
  }

  /** Settles whatever objects lie in a range: blobs, whose readers know only address and size. */
  settleRange(address: PhysicalAddress, size: number, how: Settlement): void {
    for (const number of this.#objects.overlapping(address, size)) {
      this.#settled[number] ||= SETTLEMENTS.indexOf(how);
    }
  }

  /** Whether all of a range was preserved. */
  covers(address: PhysicalAddress, size: number): boolean {
    return this.#objects.covers(address, size);
  }

  /** What nobody has settled, ascending; what is settled meanwhile may be left out. */
  unclaimed(): Generator<Folio, void> {
    return this.#that('unclaimed');
  }

  /** What was given back, ascending. */
  discarded(): Generator<Folio, void> {
    return this.#that('discarded');
  }

  *#that(became: (typeof SETTLEMENTS)[number]): Generator<Folio, void> {
    const value = SETTLEMENTS.indexOf(became);
    for (let at = this.#settled.indexOf(value); at >= 0; at = this.#settled.indexOf(value, at + 1)) {
      yield this.#objects.folio(at);
    }
  }

  #find({ address, order }: Folio): number {
    const number = this.#objects.at(address);
    if (number >= 0 && this.#objects.folio(number).order === order) return number;
    let there = '';
    for (const other of this.#objects.overlapping(address, 1)) {
      const object = this.#objects.folio(other);
      there = `; an object of order ${object.order} at ${hex(object.address)} was`;
    }
    throw new KhoError('KHO_ENOENT', `no object of order ${order} at ${hex(address)} was preserved${there}`, {
      address,
    });
  }
}
