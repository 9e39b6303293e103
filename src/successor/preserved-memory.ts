import { KhoError } from '../errors.js';
import {
  type Folio,
  type FolioIndex,
  hex,
  naturalOrders,
  type PageRange,
  type PhysicalAddress,
} from '../memblock/index.js';

type Settlement = 'claimed' | 'discarded';

/**
 * What became of the memory that the predecessor preserved, object by object. Every object is settled at most once.
 * The objects do not overlap: early boot made sure.
 */
export class PreservedMemory {
  readonly #objects: FolioIndex;
  /** By number of the object. */
  readonly #settled: (Settlement | undefined)[];

  constructor(objects: FolioIndex) {
    this.#objects = objects;
    this.#settled = new Array(objects.folios.length).fill(undefined);
  }

  get count(): number {
    return this.#objects.folios.length;
  }

  get bytes(): number {
    return this.#objects.bytes;
  }

  /**
   * Settles a folio, or each object of a range. KHO_ENOENT unless exactly this was preserved, KHO_EBUSY if any of it
   * is settled already; then nothing is settled.
   */
  settle(pages: PageRange | Folio, how: Settlement): void {
    const folios = 'order' in pages ? [pages] : [...naturalOrders(pages.address, pages.pages)];
    const numbers = folios.map((folio) => this.#find(folio));
    for (const number of numbers) {
      const before = this.#settled[number];
      if (before === undefined) continue;
      const { address } = this.#objects.folios[number];
      throw new KhoError('KHO_EBUSY', `the memory at ${hex(address)} was ${before} before`, { address });
    }
    for (const number of numbers) this.#settled[number] = how;
  }

  /** Settles the object that begins at `address`, whatever its order. The same errors. */
  settleAt(address: PhysicalAddress, how: Settlement): Folio {
    const number = this.#objects.at(address);
    if (number < 0) {
      throw new KhoError('KHO_ENOENT', `no object that begins at ${hex(address)} was preserved`, { address });
    }
    const folio = this.#objects.folios[number];
    this.settle(folio, how);
    return folio;
  }

  /** Settles whatever objects lie in a range: blobs, whose readers know only address and size. */
  settleRange(address: PhysicalAddress, size: number, how: Settlement): void {
    for (const number of this.#objects.overlapping(address, size)) this.#settled[number] ??= how;
  }

  /** Whether all of a range was preserved. */
  covers(address: PhysicalAddress, size: number): boolean {
    return this.#objects.covers(address, size);
  }

  unclaimed(): Folio[] {
    return this.#objects.folios.filter((_, number) => this.#settled[number] === undefined);
  }

  discarded(): Folio[] {
    return this.#objects.folios.filter((_, number) => this.#settled[number] === 'discarded');
  }

  #find({ address, order }: Folio): number {
    const number = this.#objects.at(address);
    if (number >= 0 && this.#objects.folios[number].order === order) return number;
    let there = '';
    for (const other of this.#objects.overlapping(address, 1)) {
      const object = this.#objects.folios[other];
      there = `; an object of order ${object.order} at ${hex(object.address)} was`;
    }
    throw new KhoError('KHO_ENOENT', `no object of order ${order} at ${hex(address)} was preserved${there}`, {
      address,
    });
  }
}
