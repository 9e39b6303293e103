import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { KHO_V4, type KhoRoot, readKhoRoot, type Subtree } from '#dist/abi/index.js';
import type { RunRecord } from '#dist/coordinator/index.js';
import { type Folio, ImageMemory, PAGE_SIZE, physicalAddress } from '#dist/memblock/index.js';
import { LEAF_BITS, leafOfKey, ROOT_LEVEL, radixKey, tableIndex } from '#dist/memblock/radix-key.js';
import type { HandedOver } from './khorus.js';

/** Changes bytes of a run's image before a kernel sees it. The image file is flat: an offset is an address. */
export class Damage implements Disposable {
  readonly memory: ImageMemory;
  /** Address of the root FDT. */
  readonly root: number;
  readonly #record: RunRecord;
  readonly #descriptor: number;

  constructor({ directory, record }: HandedOver) {
    this.#record = record;
    const file = join(directory, 'ram.img');
    this.memory = ImageMemory.open(file);
    this.#descriptor = openSync(file, 'r+');
    this.root = record.root.address;
  }

  /** A sub-blob that the root FDT points to. */
  blob(name: string): Subtree {
    const { subtrees } = this.#rootFdt();
    const found = subtrees.find((subtree) => subtree.name === name);
    if (found === undefined) throw new Error(`there is no sub-blob ${name}`);
    return found;
  }

  /** Addresses of a driver's preserved objects of one order, its blob included. */
  objects(driver: string, order: number): number[] {
    const own = this.#record.ranges.filter((range) => range.order === order && range.owner.name === driver);
    return own.map(({ address }) => address);
  }

  /** Takes an object out of the tracker and puts others in. Objects of their orders must be there already, not too far off. */
  retrack(out: Folio, others: readonly Folio[]): void {
    this.#flipMark(out);
    for (const folio of others) this.#flipMark(folio);
  }

  #rootFdt(): KhoRoot {
    return readKhoRoot(this.memory.read(physicalAddress(this.root), PAGE_SIZE), [KHO_V4], this.memory);
  }

  #flipMark({ address, order }: Folio): void {
    const { memoryMap } = this.#rootFdt();
    const key = radixKey(address, order);
    let page = Number(memoryMap);
    for (let level = ROOT_LEVEL; level > 0; level--) {
      const entry = this.memory.read(physicalAddress(page + 8 * tableIndex(leafOfKey(key), level)), 8);
      page = Number(Buffer.from(entry).readBigUInt64LE());
      if (page === 0) throw new Error(`the tracker has no leaf for objects of order ${order}`);
    }
    const bit = key % LEAF_BITS;
    const at = page + Math.floor(bit / 8);
    const byte = new Uint8Array(1);
    readSync(this.#descriptor, byte, 0, 1, at); // not through `memory`, which may have the page from before
    this.write(at, Uint8Array.of(byte[0] ^ (1 << (bit % 8))));
  }

  write(address: number, bytes: Uint8Array): void {
    writeSync(this.#descriptor, bytes, 0, bytes.length, address);
  }

  /** Changes every bit of one byte; true, as it can always be done. */
  flip(address: number): true {
    const [byte] = this.memory.read(physicalAddress(address), 1);
    this.write(address, Uint8Array.of(byte ^ 0xff));
    return true;
  }

  /** Replaces the first such bytes in [address, address + length) that begin at a multiple of 4. False if there are none. */
  replace(address: number, length: number, bytes: Uint8Array, by: Uint8Array): boolean {
    const there = Buffer.from(this.memory.read(physicalAddress(address), length));
    for (let at = there.indexOf(bytes); at >= 0; at = there.indexOf(bytes, at + 1)) {
      if (at % 4 !== 0) continue;
      this.write(address + at, by);
      return true;
    }
    return false;
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
    this.memory.close();
  }
}
