import { KhoError } from '../errors.js';
import { type FolioIndex, folioEnd, hex, naturalOrders, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';

/** What the objects of one owner come to. */
export interface OwnerClaim {
  readonly owner: string;
  readonly objects: number;
  readonly bytes: number;
}

/** Preserved memory without holes that nobody claims. */
export interface UnclaimedRange {
  readonly address: number;
  readonly size: number;
  readonly objects: number;
}

/**
 * Who owns which preserved object. Each claim is also a check that the object was preserved as its restore expects, and
 * every object has one owner; what is wrong is returned as a KHO_ETRACKER.
 */
export class Claims {
  readonly #objects: FolioIndex;
  /** By number of the object: 0, or one more than the number of its owner. */
  readonly #ownerOf: Uint32Array;
  /** What each owner has, in the order in which owners made their first claim. */
  readonly #claims: { owner: string; objects: number; bytes: number }[] = [];
  readonly #numbers = new Map<string, number>();

  constructor(objects: FolioIndex) {
    this.#objects = objects;
    this.#ownerOf = new Uint32Array(objects.count);
  }

  /** The order of the object that begins at an address, undefined if none does. */
  readonly orderAt = (address: PhysicalAddress): number | undefined => {
    const number = this.#objects.at(address);
    return number < 0 ? undefined : this.#objects.folio(number).order;
  };

  /** One object, as kho_restore_folio() takes it back; of any order if none is given. */
  folio(owner: string, what: string, address: PhysicalAddress, order?: number): KhoError[] {
    const first = this.#objects.at(address);
    // A damaged tracker may have several of different orders.
    for (let number = first; first >= 0 && number < this.#objects.count; number++) {
      const folio = this.#objects.folio(number);
      if (folio.address !== address) break;
      if (order === undefined || folio.order === order) return this.#take(owner, what, number);
    }
    if (first >= 0) {
      const there = `is preserved at order ${this.#objects.folio(first).order}`;
      return [wrong(`${what} at ${hex(address)} ${there}; its restore expects order ${order}`, address)];
    }
    return [this.#notPreserved(what, address)];
  }

  /**
   * A range of pages, as kho_restore_pages() takes it back: in the orders that its address and length give. Where all of
   * it is preserved, but in smaller objects, as kho_preserve_pages() splits at a border of nodes, it would take
   * back the first of them and step over the rest: the objects are the owner's all the same, and how many pages that are
   * is told (docs/numa-split.md).
   */
  pages(owner: string, what: string, address: PhysicalAddress, pages: number): KhoError[] {
    // The first problem says it; a range of a gigabyte need not say it of each of its pieces.
    let first: KhoError | undefined;
    let steppedOver = 0;
    for (const folio of naturalOrders(address, pages)) {
      const [problem] = this.folio(owner, what, folio.address, folio.order);
      if (problem === undefined) continue;
      first ??= problem;
      const order = this.orderAt(folio.address);
      const size = folioEnd(folio) - folio.address;
      if (order === undefined || order >= folio.order || !this.#objects.covers(folio.address, size)) continue;
      steppedOver += 2 ** folio.order - 2 ** order;
      for (const number of this.#objects.overlapping(folio.address, size)) this.#take(owner, what, number);
    }
    if (first === undefined) return [];
    if (steppedOver === 0) return [first];
    const lost = `kho_restore_pages() would step over ${steppedOver} of its ${pages} pages`;
    return [wrong(`${first.message}: ${lost}`, first.details.address ?? address)];
  }

  /** Whatever objects a blob lies in; the first must begin with it. That all of it is preserved is checked elsewhere. */
  blob(owner: string, what: string, address: PhysicalAddress, size: number): KhoError[] {
    const problems: KhoError[] = [];
    for (const number of this.#objects.overlapping(address, size)) {
      const { address: start } = this.#objects.folio(number);
      if (start < address) {
        problems.push(
          wrong(
            `${what} at ${hex(address)} lies inside the object at ${hex(start)}: it cannot be restored alone`,
            address,
          ),
        );
      }
      problems.push(...this.#take(owner, what, number));
    }
    return problems;
  }

  /** Claims by owner, in the order in which owners made their first. */
  owners(): OwnerClaim[] {
    return this.#claims.map((claim) => ({ ...claim }));
  }

  /** What nobody claims, neighbours joined. */
  unclaimed(): UnclaimedRange[] {
    const ranges: { address: number; size: number; objects: number }[] = [];
    let number = 0;
    for (const folio of this.#objects) {
      if (this.#ownerOf[number++] !== 0) continue;
      const last = ranges.at(-1);
      if (last !== undefined && last.address + last.size === folio.address) {
        last.size += folioEnd(folio) - folio.address;
        last.objects++;
      } else {
        ranges.push({ address: folio.address, size: folioEnd(folio) - folio.address, objects: 1 });
      }
    }
    return ranges;
  }

  /** Gives what nobody claimed to those whom somebody else names, by address. */
  nameRest(owners: ReadonlyMap<number, string>): void {
    let number = 0;
    for (const { address } of this.#objects) {
      const owner = this.#ownerOf[number] === 0 ? owners.get(address) : undefined;
      if (owner !== undefined) this.#assign(number, owner);
      number++;
    }
  }

  #take(owner: string, what: string, number: number): KhoError[] {
    const before = this.#claims[this.#ownerOf[number] - 1]?.owner;
    const { address } = this.#objects.folio(number);
    if (before !== undefined && before !== owner) {
      return [
        wrong(
          `${what} at ${hex(address)} is part of ${owner} and of ${before}: only one of them can restore it`,
          address,
        ),
      ];
    }
    if (before === undefined) this.#assign(number, owner);
    return [];
  }

  #assign(number: number, owner: string): void {
    let ownerNumber = this.#numbers.get(owner);
    if (ownerNumber === undefined) {
      ownerNumber = this.#claims.push({ owner, objects: 0, bytes: 0 }) - 1;
      this.#numbers.set(owner, ownerNumber);
    }
    this.#ownerOf[number] = ownerNumber + 1;
    const claim = this.#claims[ownerNumber];
    claim.objects++;
    claim.bytes += PAGE_SIZE * 2 ** this.#objects.folio(number).order;
  }

  #notPreserved(what: string, address: PhysicalAddress): KhoError {
    for (const number of this.#objects.overlapping(address, 1)) {
      const { address: start, order } = this.#objects.folio(number);
      return wrong(
        `${what} at ${hex(address)} lies inside the preserved object of order ${order} at ${hex(start)}: it cannot be restored alone`,
        address,
      );
    }
    return wrong(`${what} at ${hex(address)} is not preserved`, address);
  }
}

function wrong(text: string, address: number): KhoError {
  return new KhoError('KHO_ETRACKER', text, { address });
}
