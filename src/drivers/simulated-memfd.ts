import { createHash } from 'node:crypto';
import { PAGE_SIZE, Random } from '../driver.js';
import type { MemfdOptions } from './luo-options.js';
import { type FileFolio, layOutFile } from './memfd-layout.js';

/** What must survive of a memfd; made when it is asked for. */
export interface MemfdState {
  readonly token: bigint;
  readonly pos: bigint;
  readonly size: number;
  readonly seals: number;
  /** In ascending order of indices. */
  readonly folios: readonly FileFolio[];
  /** SHA-256 (hex) of the whole content, holes read as zeros. */
  readonly sha256: string;
}

/** A memfd before the handover: seeded content in the folios that its options ask for. Nothing is computed before it is needed. */
export class SimulatedMemfd implements MemfdState {
  readonly token: bigint;
  readonly pos: bigint;
  readonly size: number;
  readonly seals: number;
  readonly #shape: MemfdOptions;
  readonly #seed: string;
  #folios: FileFolio[] | undefined;
  #sha256: string | undefined;

  constructor(options: MemfdOptions, seed: string) {
    this.token = options.token;
    this.pos = options.pos;
    this.size = options.size;
    this.seals = options.seals;
    this.#shape = options;
    this.#seed = seed;
  }

  get folios(): readonly FileFolio[] {
    this.#folios ??= layOutFile(this.#shape);
    return this.#folios;
  }

  /** The content of a page that is in a folio; zeros after the end of the file. */
  page(index: number): Uint8Array {
    const page = new Random(`${this.#seed}/${index}`).bytes(PAGE_SIZE);
    const end = this.size - index * PAGE_SIZE;
    return end < PAGE_SIZE ? page.fill(0, end) : page;
  }

  get sha256(): string {
    this.#sha256 ??= this.#digest();
    return this.#sha256;
  }

  #digest(): string {
    const hash = createHash('sha256');
    const zeros = new Uint8Array(PAGE_SIZE);
    const pages = Math.ceil(this.size / PAGE_SIZE);
    const add = (index: number, page: Uint8Array) => hash.update(page.subarray(0, this.size - index * PAGE_SIZE));
    let at = 0;
    for (const { index, order } of this.folios) {
      for (; at < index; at++) add(at, zeros);
      for (; at < index + 2 ** order; at++) add(at, this.page(at));
    }
    for (; at < pages; at++) add(at, zeros);
    return hash.digest('hex');
  }
}
