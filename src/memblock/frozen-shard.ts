import { KhoError } from '../errors.js';
import { after, hex, PAGE_SIZE, type PhysicalAddress } from './address.js';
import { BUSY, FROZEN, OPEN } from './frozen-layout.js';
import { IntegerAccess } from './integer-access.js';
import {
  digestLines,
  firstDifferentLine,
  LINE_SIZE,
  LINES_PER_PAGE,
  lineDigest,
  WORDS_PER_LINE,
} from './line-digest.js';
import type { SharedPhysicalMemory } from './physical-memory.js';
import type { RadixTree } from './radix-tree.js';
import type { Extent } from './shard-extents.js';

const WORDS_PER_PAGE = PAGE_SIZE / 4;
/** How often a page that another thread holds is asked for in a row, and then how long, a millisecond each time. */
const SPINS = 1000;
const WAITS = 500;

/** Where the digests of a shard are. */
interface Place {
  /** By number of the page. */
  readonly states: Int32Array;
  /** {@link LINES_PER_PAGE} for each page. */
  readonly digests: Int32Array;
  /** Number of the shard's first page. */
  readonly firstPage: number;
  readonly shared: boolean;
}

/** Pages in a row whose words are in one array. */
interface Piece {
  readonly base: number;
  readonly end: number;
  readonly words: Int32Array;
  /** Index of the first page's first word. */
  readonly firstWord: number;
  /** Number of the first page. */
  readonly firstPage: number;
}

/**
 * The digests of one shard's pages, see FrozenTable. Addresses must be in the shard's extents: KHO_EINVAL. Nothing is
 * allocated for a page or a write.
 */
export class FrozenShard extends IntegerAccess {
  readonly #memory: SharedPhysicalMemory;
  readonly #ranges: readonly Extent[];
  readonly #states: Int32Array;
  readonly #digests: Int32Array;
  readonly #shared: boolean;
  readonly #pieces: readonly Piece[];
  /** The one used last. */
  #near: Piece | undefined;
  /** Of the write under way: lines, bit by bit, that were not as they should be before it. */
  #lateLow = 0;
  #lateHigh = 0;

  /** Use FrozenTable.shard(). */
  constructor(memory: SharedPhysicalMemory, ranges: readonly Extent[], { states, digests, firstPage, shared }: Place) {
    super();
    this.#memory = memory;
    this.#ranges = ranges;
    this.#states = states;
    this.#digests = digests;
    this.#shared = shared;
    this.#pieces = piecesOf(memory, ranges, firstPage);
  }

  /** Whether the page at `address` is frozen. */
  isFrozen(address: PhysicalAddress): boolean {
    const piece = this.#piece(address);
    return Atomics.load(this.#states, pageNumber(piece, address)) !== OPEN;
  }

  /** Digests pages as they are now. Whatever was known of them is forgotten. */
  freeze(address: PhysicalAddress, pages: number): void {
    for (let index = 0; index < pages; index++) {
      const at = address + index * PAGE_SIZE;
      const piece = this.#piece(at);
      const page = pageNumber(piece, at);
      this.#take(page, at);
      digestLines(piece.words, firstWordOf(piece, at), this.#digests, page * LINES_PER_PAGE, LINES_PER_PAGE);
      this.#give(page, FROZEN);
    }
  }

  /** Freezes those of the pages that are not frozen yet. */
  freezeOpen(address: PhysicalAddress, pages: number): void {
    for (let index = 0; index < pages; index++) {
      const at = after(address, index * PAGE_SIZE);
      if (!this.isFrozen(at)) this.freeze(at, 1);
    }
  }

  /** Pages that may change again: they were freed, or their driver goes on. */
  forget(address: PhysicalAddress, pages: number): void {
    for (let index = 0; index < pages; index++) {
      const at = address + index * PAGE_SIZE;
      const page = pageNumber(this.#piece(at), at);
      this.#take(page, at);
      this.#give(page, OPEN);
    }
  }

  /** {@link forget} for all pages of the shard. */
  forgetAll(): void {
    for (const { base, pages } of this.#ranges) this.forget(base, pages);
  }

  /**
   * Offset, in the page at `address`, of the first line that is not as it was frozen or written by right since; -1 if all
   * are, or if the page is not frozen.
   */
  firstDifference(address: PhysicalAddress): number {
    const piece = this.#piece(address);
    const page = pageNumber(piece, address);
    if (Atomics.load(this.#states, page) === OPEN) return -1;
    const at = firstWordOf(piece, address);
    const line = firstDifferentLine(piece.words, at, this.#digests, page * LINES_PER_PAGE, LINES_PER_PAGE);
    return line < 0 ? -1 : line * LINE_SIZE;
  }

  /** Copies the digests of a page, one for each line, into `target`. */
  copyDigests(address: PhysicalAddress, target: Int32Array, to: number): void {
    const from = pageNumber(this.#piece(address), address) * LINES_PER_PAGE;
    for (let line = 0; line < LINES_PER_PAGE; line++) target[to + line] = this.#digests[from + line];
  }

  readInto(address: PhysicalAddress, target: Uint8Array): void {
    this.#memory.readInto(address, target);
  }

  /** A write by the pages' owner: the digests stay true. What was written there by somebody else before stays wrong. */
  write(address: PhysicalAddress, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if ((address % PAGE_SIZE) + bytes.length <= PAGE_SIZE) {
      this.#writeInPage(address, bytes);
      return;
    }
    for (let done = 0; done < bytes.length; ) {
      const at = after(address, done);
      const length = Math.min(bytes.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      this.#writeInPage(at, bytes.subarray(done, done + length));
      done += length;
    }
  }

  /** The same with one byte for all. */
  fill(address: PhysicalAddress, length: number, byte: number): void {
    for (let done = 0; done < length; ) {
      const at = after(address, done);
      const part = Math.min(length - done, PAGE_SIZE - (at % PAGE_SIZE));
      const state = this.#begin(at, part);
      try {
        this.#memory.fill(at, part, byte);
      } finally {
        this.#end(at, part, state);
      }
      done += part;
    }
  }

  /**
   * Visits every frozen page that is handed over, in ascending order within an extent. An object of the tracker lies
   * inside one extent.
   */
  eachPreserved(tracker: RadixTree, visit: (address: PhysicalAddress) => void): void {
    let guess = 0;
    for (const { base, pages } of this.#ranges) {
      const end = base + pages * PAGE_SIZE;
      for (let at: number = base; at < end; ) {
        const order = preservedOrder(tracker, at, end, guess);
        if (order < 0) {
          at += PAGE_SIZE;
          continue;
        }
        guess = order;
        for (const next = at + 2 ** order * PAGE_SIZE; at < next; at += PAGE_SIZE) {
          if (this.isFrozen(at as PhysicalAddress)) visit(at as PhysicalAddress);
        }
      }
    }
  }

  #writeInPage(address: PhysicalAddress, bytes: Uint8Array): void {
    const state = this.#begin(address, bytes.length);
    try {
      this.#memory.write(address, bytes);
    } finally {
      this.#end(address, bytes.length, state);
    }
  }

  /** Before a write inside one page: compares the lines that it touches. Returns the page's state. */
  #begin(address: number, length: number): number {
    const piece = this.#piece(address);
    const page = pageNumber(piece, address);
    const state = this.#take(page, address);
    this.#lateLow = 0;
    this.#lateHigh = 0;
    if (state === OPEN) return state;
    const first = Math.floor((address % PAGE_SIZE) / LINE_SIZE);
    const last = Math.floor(((address % PAGE_SIZE) + length - 1) / LINE_SIZE);
    const start = firstWordOf(piece, address);
    const digests = page * LINES_PER_PAGE;
    for (let line = first; line <= last; line++) {
      if (lineDigest(piece.words, start + line * WORDS_PER_LINE) === this.#digests[digests + line]) continue;
      if (line < 32) this.#lateLow |= 1 << line;
      else this.#lateHigh |= 1 << (line - 32);
    }
    return state;
  }

  /** After it: digests them anew, or wrongly where they were wrong. */
  #end(address: number, length: number, state: number): void {
    const piece = this.#piece(address);
    const page = pageNumber(piece, address);
    if (state !== OPEN) {
      const first = Math.floor((address % PAGE_SIZE) / LINE_SIZE);
      const last = Math.floor(((address % PAGE_SIZE) + length - 1) / LINE_SIZE);
      const start = firstWordOf(piece, address);
      const digests = page * LINES_PER_PAGE;
      for (let line = first; line <= last; line++) {
        const digest = lineDigest(piece.words, start + line * WORDS_PER_LINE);
        const late = line < 32 ? (this.#lateLow >>> line) & 1 : (this.#lateHigh >>> (line - 32)) & 1;
        this.#digests[digests + line] = late === 1 ? ~digest : digest;
      }
    }
    this.#give(page, state);
  }

  /** Takes a page for oneself and returns its state. KHO_EAGAIN if another thread keeps it, which only a dead one does. */
  #take(page: number, address: number): number {
    if (!this.#shared) return this.#states[page];
    for (let tries = 0; tries < SPINS + WAITS; tries++) {
      const state = Atomics.load(this.#states, page);
      if (state !== BUSY && Atomics.compareExchange(this.#states, page, state, BUSY) === state) return state;
      if (tries >= SPINS) Atomics.wait(this.#states, page, BUSY, 1);
    }
    throw new KhoError('KHO_EAGAIN', `another thread does not finish its write to the page at ${hex(address)}`, {
      address,
    });
  }

  #give(page: number, state: number): void {
    if (this.#shared) Atomics.store(this.#states, page, state);
    else this.#states[page] = state;
  }

  #piece(address: number): Piece {
    const near = this.#near;
    if (near !== undefined && address >= near.base && address < near.end) return near;
    for (const piece of this.#pieces) {
      if (address >= piece.base && address < piece.end) {
        this.#near = piece;
        return piece;
      }
    }
    throw new KhoError('KHO_EINVAL', `${hex(address)} is in no extent of the shard`, { address });
  }
}

function pageNumber({ base, firstPage }: Piece, address: number): number {
  return firstPage + Math.floor((address - base) / PAGE_SIZE);
}

function firstWordOf({ base, firstWord }: Piece, address: number): number {
  return firstWord + Math.floor((address - base) / PAGE_SIZE) * WORDS_PER_PAGE;
}

function piecesOf(memory: SharedPhysicalMemory, ranges: readonly Extent[], firstPage: number): Piece[] {
  const pieces: Piece[] = [];
  let page = firstPage;
  for (const { base, pages } of ranges) {
    const end = base + pages * PAGE_SIZE;
    for (let at: number = base; at < end; ) {
      const { array, index } = memory.words(at as PhysicalAddress);
      const next = Math.min(end, at + (array.length - index) * 4);
      pieces.push({ base: at, end: next, words: array, firstWord: index, firstPage: page });
      page += (next - at) / PAGE_SIZE;
      at = next;
    }
  }
  return pieces;
}

/** The order of the object that begins at `address` and ends by `end`; -1 if none does. `guess` is tried first. */
function preservedOrder(tracker: RadixTree, address: number, end: number, guess: number): number {
  if (fits(address, end, guess) && tracker.test(address as PhysicalAddress, guess)) return guess;
  for (let order = 0; fits(address, end, order); order++) {
    if (tracker.test(address as PhysicalAddress, order)) return order;
  }
  return -1;
}

function fits(address: number, end: number, order: number): boolean {
  const size = PAGE_SIZE * 2 ** order;
  return address % size === 0 && address + size <= end;
}
