import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { KhoError } from '../errors.js';
import { hex, type PhysicalAddress, physicalAddress } from './address.js';
import { IntegerAccess } from './integer-access.js';
import { MemoryMap, type MemoryRange } from './memory-map.js';
import type { PhysicalMemory } from './physical-memory.js';

/** The file is read in blocks of this many bytes, at multiples of it. */
const BLOCK_SIZE = 2 ** 16;

/**
 * A memory image file as physical memory. The file is flat: its offset is the physical address; it may be sparse, and
 * far larger than this machine's memory. Blocks are read when they are needed and the least recently read ones are
 * forgotten. Writes stay in this object: the file is never changed.
 *
 * Reads are synchronous, as all of {@link PhysicalMemory} is. One thread, which closes it when done.
 * KHO_EIO when the file cannot be read; KHO_EFAULT also where the file ends before the memory map does.
 */
export class ImageMemory extends IntegerAccess implements PhysicalMemory {
  readonly file: string;
  /** Size of the file in bytes. */
  readonly fileSize: number;
  #descriptor: number | undefined;
  #map: MemoryMap<MemoryRange>;
  readonly #maxCached: number;
  /** Clean blocks by number, the least recently used first (a Map keeps the order of insertion). */
  readonly #cached = new Map<number, Uint8Array>();
  /** Blocks that were written to, by number: the overlay. Never forgotten. */
  readonly #written = new Map<number, Uint8Array>();

  private constructor(file: string, descriptor: number, fileSize: number, maxCached: number) {
    super();
    this.file = file;
    this.#descriptor = descriptor;
    this.fileSize = fileSize;
    this.#maxCached = maxCached;
    const whole = { base: physicalAddress(0), size: fileSize, nid: 0, backed: true };
    this.#map = new MemoryMap(fileSize === 0 ? [] : [whole]);
  }

  /**
   * Opens `file`. Until {@link setRanges} says better, memory is the one range [0, file size) on node 0.
   * `cacheBytes` bounds the clean blocks kept (at least one is). KHO_ENOENT or KHO_EIO when the file cannot be opened.
   */
  static open(file: string, { cacheBytes = 16 * 2 ** 20 } = {}): ImageMemory {
    let descriptor: number | undefined;
    try {
      descriptor = openSync(file, 'r');
      const { size } = fstatSync(descriptor);
      return new ImageMemory(file, descriptor, size, Math.max(1, Math.floor(cacheBytes / BLOCK_SIZE)));
    } catch (cause) {
      if (descriptor !== undefined) closeSync(descriptor);
      const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
      const text = `the memory image ${file} cannot be opened: ${cause instanceof Error ? cause.message : cause}`;
      throw new KhoError(missing ? 'KHO_ENOENT' : 'KHO_EIO', text, { file }, { cause });
    }
  }

  get ranges(): readonly MemoryRange[] {
    return this.#map.ranges;
  }

  /** Replaces the memory map, once the boot record has told it. Any byte granularity. KHO_EINVAL as for a map. */
  setRanges(ranges: Iterable<MemoryRange>): void {
    this.#map = new MemoryMap(ranges);
  }

  read(address: PhysicalAddress, length: number): Uint8Array {
    this.#check(address, length);
    const copy = new Uint8Array(length);
    this.#copy(address, copy);
    return copy;
  }

  readInto(address: PhysicalAddress, target: Uint8Array): void {
    this.#check(address, target.length);
    this.#copy(address, target);
  }

  /** In place inside one block of 64 KiB, else a copy; never KHO_EINVAL for lying across something. */
  view(address: PhysicalAddress, length: number): Uint8Array {
    this.#check(address, length);
    const offset = address % BLOCK_SIZE;
    if (offset + length <= BLOCK_SIZE) {
      return this.#block((address - offset) / BLOCK_SIZE).subarray(offset, offset + length);
    }
    const copy = new Uint8Array(length);
    this.#copy(address, copy);
    return copy;
  }

  /** The bytes, block by block, each to be read before the next is asked for. */
  *views(address: PhysicalAddress, length: number): Generator<Uint8Array, void> {
    this.#check(address, length);
    for (let done = 0; done < length; ) {
      const offset = (address + done) % BLOCK_SIZE;
      const part = Math.min(BLOCK_SIZE - offset, length - done);
      yield this.#block((address + done - offset) / BLOCK_SIZE).subarray(offset, offset + part);
      done += part;
    }
  }

  /** Writes into the private overlay. */
  write(address: PhysicalAddress, bytes: Uint8Array): void {
    this.#check(address, bytes.length);
    this.#change(address, bytes.length, (block, from, to, done) =>
      block.set(bytes.subarray(done, done + to - from), from),
    );
  }

  /** Fills in the private overlay. */
  fill(address: PhysicalAddress, length: number, byte: number): void {
    this.#check(address, length);
    this.#change(address, length, (block, from, to) => block.fill(byte, from, to));
  }

  /** Closes the file; later accesses are KHO_EINVAL. Closing twice is fine. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    this.#cached.clear();
    this.#written.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #check(address: number, length: number): void {
    if (this.#descriptor === undefined) throw new KhoError('KHO_EINVAL', `${this.file} is closed`, { file: this.file });
    this.#map.cut(address, length);
    if (length > 0 && address + length > this.fileSize) {
      const first = Math.max(address, this.fileSize);
      const text = `${hex(first)} is outside of memory: the image ${this.file} ends at ${hex(this.fileSize)}`;
      throw new KhoError('KHO_EFAULT', text, { address: first, size: length, file: this.file });
    }
  }

  #copy(address: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const offset = (address + done) % BLOCK_SIZE;
      const part = Math.min(BLOCK_SIZE - offset, target.length - done);
      const block = this.#block((address + done - offset) / BLOCK_SIZE);
      target.set(block.subarray(offset, offset + part), done);
      done += part;
    }
  }

  #change(
    address: number,
    length: number,
    apply: (block: Uint8Array, from: number, to: number, done: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const offset = (address + done) % BLOCK_SIZE;
      const part = Math.min(BLOCK_SIZE - offset, length - done);
      const number = (address + done - offset) / BLOCK_SIZE;
      const block = this.#block(number);
      // The cached block itself moves into the overlay: it was this object's private copy all along.
      this.#cached.delete(number);
      this.#written.set(number, block);
      apply(block, offset, offset + part, done);
      done += part;
    }
  }

  #block(number: number): Uint8Array {
    const written = this.#written.get(number);
    if (written !== undefined) return written;
    let block = this.#cached.get(number);
    if (block === undefined) block = this.#load(number);
    else this.#cached.delete(number); // to come last again
    this.#cached.set(number, block);
    if (this.#cached.size > this.#maxCached) {
      for (const oldest of this.#cached.keys()) {
        this.#cached.delete(oldest);
        break;
      }
    }
    return block;
  }

  #load(number: number): Uint8Array {
    const block = new Uint8Array(BLOCK_SIZE); // what follows the end of the file stays zero, and #check keeps readers out
    const offset = number * BLOCK_SIZE;
    const length = Math.min(BLOCK_SIZE, this.fileSize - offset);
    try {
      for (let done = 0; done < length; ) {
        const count = readSync(this.#descriptor ?? -1, block, done, length - done, offset + done);
        if (count === 0) throw new Error('the file has become shorter');
        done += count;
      }
    } catch (cause) {
      const text = `${this.file} cannot be read at ${hex(offset)}: ${cause instanceof Error ? cause.message : cause}`;
      throw new KhoError('KHO_EIO', text, { file: this.file, offset }, { cause });
    }
    return block;
  }
}
