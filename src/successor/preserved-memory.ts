import { KhoError } from '../errors.js';
import {
  after,
  type Folio,
  hex,
  naturalOrders,
  PAGE_SIZE,
  type PageRange,
  type PhysicalAddress,
} from '../memblock/index.js';

interface PreservedObject extends Folio {
  readonly end: number;
  settled: 'claimed' | 'discarded' | undefined;
}

/**
 * What the predecessor preserved, object by object, and what became of it. Every object is settled at most once.
 */
export class PreservedMemory {
  /** Ascending addresses. */
  readonly #objects: readonly PreservedObject[];

  /** KHO_ETRACKER, with the address, if two objects overlap. */
  constructor(folios: readonly Folio[]) {
    this.#objects = folios
      .map(({ address, order }) => ({
        address,
        order,
        end: address + 2 ** order * PAGE_SIZE,
        settled: undefined,
      }))
      .sort((a, b) => a.address - b.address);
    for (const [index, { address }] of this.#objects.entries()) {
      const before = this.#objects[index - 1];
      if (before !== undefined && before.end > address) {
        throw new KhoError(
          'KHO_ETRACKER',
          `the preserved objects at ${hex(before.address)} (order ${before.order}) and ${hex(address)} overlap`,
          { address },
        );
      }
    }
  }

  get count(): number {
    return this.#objects.length;
  }

  get bytes(): number {
    return this.#objects.reduce((sum, { address, end }) => sum + (end - address), 0);
  }

  /** The first object that shares a byte with the range. */
  overlapping(address: PhysicalAddress, size: number): Folio | undefined {
    const index = this.#firstEndingAfter(address);
    const candidate = this.#objects[index];
    return candidate !== undefined && candidate.address < address + size ? candidate : undefined;
  }

  /** Whether every byte of the range belongs to some object. */
  covers(address: PhysicalAddress, size: number): boolean {
    let at: number = address;
    for (let index = this.#firstEndingAfter(address); at < address + size; index++) {
      const candidate = this.#objects[index];
      if (candidate === undefined || candidate.address > at) return false;
      at = candidate.end;
    }
    return true;
  }

  /**
   * Settles a folio, or each object of a range. KHO_ENOENT unless exactly this was preserved, KHO_EBUSY if any of it
   * is settled already; then nothing is settled.
   */
  settle(pages: PageRange | Folio, how: 'claimed' | 'discarded'): void {
    const folios = 'order' in pages ? [pages] : [...naturalOrders(pages.address, pages.pages)];
    const objects = folios.map((folio) => this.#find(folio));
    for (const object of objects) {
      if (object.settled !== undefined) {
        throw new KhoError('KHO_EBUSY', `the memory at ${hex(object.address)} was ${object.settled} before`, {
          address: object.address,
        });
      }
    }
    for (const object of objects) object.settled = how;
  }

  /** Settles the object that begins at `address`, whatever its order. The same errors. */
  settleAt(address: PhysicalAddress, how: 'claimed' | 'discarded'): Folio {
    const object = this.#objects[this.#firstEndingAfter(address)];
    if (object?.address !== address) {
      throw new KhoError('KHO_ENOENT', `no object that begins at ${hex(address)} was preserved`, { address });
    }
    const folio = { address, order: object.order };
    this.settle(folio, how);
    return folio;
  }

  /** Settles whatever objects lie in a range: blobs, whose readers know only address and size. */
  settleRange(address: PhysicalAddress, size: number, how: 'claimed' | 'discarded'): void {
    for (let index = this.#firstEndingAfter(address); index < this.#objects.length; index++) {
      const object = this.#objects[index];
      if (object === undefined || object.address >= after(address, size)) break;
      object.settled ??= how;
    }
  }

  unclaimed(): Folio[] {
    return this.#objects
      .filter(({ settled }) => settled === undefined)
      .map(({ address, order }) => ({ address, order }));
  }

  #find({ address, order }: Folio): PreservedObject {
    const object = this.#objects[this.#firstEndingAfter(address)];
    if (object?.address === address && object.order === order) return object;
    const there =
      object !== undefined && object.address <= address
        ? `; an object of order ${object.order} at ${hex(object.address)} was`
        : '';
    throw new KhoError('KHO_ENOENT', `no object of order ${order} at ${hex(address)} was preserved${there}`, {
      address,
    });
  }

  #firstEndingAfter(address: PhysicalAddress): number {
    let low = 0;
    let high = this.#objects.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#objects[middle]?.end ?? 0) > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
