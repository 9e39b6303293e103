import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { KhoError } from '../errors.js';
import { checkRegularFile } from '../regular-file.js';
import { hex, type PhysicalAddress, physicalAddress } from './address.js';
import { isElf, readElfCore } from './elf-core.js';
import type { FileExtent } from './file-extent.js';
import { IntegerAccess } from './integer-access.js';
import { MemoryMap, type MemoryRange } from './memory-map.js';
import type { PhysicalMemory } from './physical-memory.js';

/** The file is read in blocks of this many bytes, at multiples of it. */
const BLOCK_SIZE = 2 ** 16;

/** Memory that lies in the file from `offset` on. */
interface HeldRange extends MemoryRange {
  readonly offset: number;
}

/** Dumps that are no memory images until somebody converts them, by the bytes that they begin with. */
const FOREIGN_FORMATS: readonly [magic: string, what: string][] = [
  ['KDUMP   ', 'a kdump-compressed dump; have it as ELF (dump-guest-memory without -z, makedumpfile -E)'],
  ['makedumpfile\0', 'a flattened dump; rearrange it first (makedumpfile -R)'],
];

/**
 * A memory image file as physical memory: flat, its offset being the physical address, or an ELF core (elf-core.ts).
 * It may be sparse, and far larger than this machine's memory. Blocks of memory are read when they are needed and the
 * least recently read ones are forgotten; long reads go past them. Writes stay in this object: the file is never changed.
 *
 * Reads are synchronous, as all of {@link PhysicalMemory} is. One thread, which closes it when done.
 * KHO_EIO when the file cannot be read; KHO_EFAULT also for memory that the file does not hold.
 */
export class ImageMemory extends IntegerAccess implements PhysicalMemory {
  readonly file: string;
  /** Size of the file in bytes. */
  readonly fileSize: number;
  readonly format: 'flat' | 'elf';
  #descriptor: number | undefined;
  #map: MemoryMap<MemoryRange>;
  /** Which memory lies where in the file. A flat file is one range. */
  #held: MemoryMap<HeldRange>;
  readonly #maxCached: number;
  /** Clean blocks by number, the least recently used first (a Map keeps the order of insertion). */
  readonly #cached = new Map<number, Uint8Array>();
  /** Blocks that were written to, by number: the overlay. Never forgotten. */
  readonly #written = new Map<number, Uint8Array>();

  private constructor(file: string, descriptor: number, fileSize: number, maxCached: number) {
    super();
    this.file = file;
    this.fileSize = fileSize;
    this.#descriptor = descriptor;
    this.#maxCached = maxCached;
    const read = (offset: number, length: number): Uint8Array => {
      const bytes = new Uint8Array(length);
      this.#readFile(offset, bytes);
      return bytes;
    };
    const head = read(0, Math.min(16, fileSize));
    for (const [magic, what] of FOREIGN_FORMATS) {
      if (Buffer.from(head).toString('latin1').startsWith(magic)) {
        throw new KhoError('KHO_EIMAGE', `${file} is ${what}`, { file });
      }
    }
    this.format = isElf(head) ? 'elf' : 'flat';
    if (this.format === 'elf') {
      const { extents, ranges } = readElfCore(read, fileSize);
      this.#held = heldRanges(extents);
      this.#map = new MemoryMap(ranges);
    } else {
      this.#held = heldRanges(fileSize === 0 ? [] : [{ address: physicalAddress(0), offset: 0, size: fileSize }]);
      this.#map = memoryOf(this.#held);
    }
  }

  /**
   * Opens `file`. Until {@link setRanges} says better, memory is what the file says: of a flat one, the one range
   * [0, file size) on node 0.
   * `cacheBytes` bounds the clean blocks kept (at least one is). KHO_ENOENT or KHO_EIO when the file cannot be opened,
   * KHO_EINVAL when it is no regular file, KHO_EIMAGE for an ELF file that is no core of memory.
   */
  static open(file: string, { cacheBytes = 16 * 2 ** 20 } = {}): ImageMemory {
    checkRegularFile(file, 'the memory image');
    let descriptor: number | undefined;
    try {
      descriptor = openSync(file, 'r');
      const { size } = fstatSync(descriptor);
      return new ImageMemory(file, descriptor, size, Math.max(1, Math.floor(cacheBytes / BLOCK_SIZE)));
    } catch (cause) {
      if (descriptor !== undefined) closeSync(descriptor);
      if (cause instanceof KhoError) throw cause.with({ file });
      const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
      const text = `the memory image ${file} cannot be opened: ${cause instanceof Error ? cause.message : cause}`;
      throw new KhoError(missing ? 'KHO_ENOENT' : 'KHO_EIO', text, { file }, { cause });
    }
  }

  /** KHO_EIMAGE if the file is shorter than it was written, which was `size` bytes. */
  checkWhole(size: number): void {
    const { file, fileSize } = this;
    if (fileSize >= size) return;
    throw new KhoError('KHO_EIMAGE', `${file} is cut short: ${fileSize} of ${size} bytes`, { file, size: fileSize });
  }

  /** What the file holds, in ascending order of address. */
  get extents(): readonly FileExtent[] {
    return this.#held.ranges.map(({ base, offset, size }) => ({ address: base, offset, size }));
  }

  /**
   * Says that the file holds other memory than its form told: a flat file may leave out the hole below 4 GiB. Memory is
   * what the extents hold, until {@link setRanges}; private writes are lost. KHO_EINVAL for an extent beyond the end of
   * the file, or as for a map.
   */
  setExtents(extents: readonly FileExtent[]): void {
    const beyond = extents.find(({ offset, size }) => offset < 0 || offset + size > this.fileSize);
    if (beyond !== undefined) {
      const text = `${this.file} does not hold ${hex(beyond.size)} bytes at ${hex(beyond.offset)}`;
      throw new KhoError('KHO_EINVAL', text, { file: this.file, offset: beyond.offset, size: beyond.size });
    }
    this.#held = heldRanges(extents);
    this.#map = memoryOf(this.#held);
    this.#cached.clear();
    this.#written.clear();
  }

  get ranges(): readonly MemoryRange[] {
    return this.#map.ranges;
  }

  /** Replaces the memory map, once the boot record has told it. Any byte granularity. KHO_EINVAL as for a map. */
  setRanges(ranges: Iterable<MemoryRange>): void {
    this.#map = new MemoryMap(ranges);
  }

  /**
   * Says of which memory the file has no bytes, although it has room for them: reading that is KHO_EFAULT, not zeros.
   * KHO_EINVAL as for a map.
   */
  setUnbacked(ranges: Iterable<{ readonly base: number; readonly size: number }>): void {
    let map = [...this.#map.ranges];
    for (const { base, size } of ranges) {
      map = map.flatMap((range) => withoutStretch(range, base, base + size));
      map.push({ base: physicalAddress(base), size, nid: 0, backed: false });
    }
    this.#map = new MemoryMap(map);
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
    for (let at: number = address; at < address + length; ) {
      const range = this.#held.find(at);
      if (range === undefined) throw this.#notHeld(at, length);
      at = range.base + range.size;
    }
  }

  #notHeld(address: number, length: number): KhoError {
    const last = this.#held.ranges.at(-1);
    const end = last === undefined ? 0 : last.base + last.size;
    const why =
      address >= end ? `the image ${this.file} ends at ${hex(end)}` : `the image ${this.file} does not hold it`;
    const text = `${hex(address)} is outside of memory: ${why}`;
    return new KhoError('KHO_EFAULT', text, { address, size: length, file: this.file });
  }

  #copy(address: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const offset = (address + done) % BLOCK_SIZE;
      const number = (address + done - offset) / BLOCK_SIZE;
      const direct = offset === 0 ? this.#countUnknown(number, Math.floor((target.length - done) / BLOCK_SIZE)) : 0;
      if (direct > 1) {
        const part = direct * BLOCK_SIZE;
        this.#readMemory(address + done, target.subarray(done, done + part));
        done += part;
        continue;
      }
      const part = Math.min(BLOCK_SIZE - offset, target.length - done);
      target.set(this.#block(number).subarray(offset, offset + part), done);
      done += part;
    }
  }

  /** How many of `count` blocks from `number` on are neither cached nor written to: a long read need not cache them. */
  #countUnknown(number: number, count: number): number {
    let known = 0;
    while (known < count && !this.#cached.has(number + known) && !this.#written.has(number + known)) known++;
    return known;
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
    const block = new Uint8Array(BLOCK_SIZE);
    this.#readMemory(number * BLOCK_SIZE, block);
    return block;
  }

  /** Reads memory from the file. What it does not hold stays as it is in `target`: {@link #check} keeps readers out. */
  #readMemory(address: number, target: Uint8Array): void {
    for (const { range, offset, length } of this.#held.overlapping(address, target.length)) {
      const at = range.base + offset - address;
      this.#readFile(range.offset + offset, target.subarray(at, at + length));
    }
  }

  #readFile(offset: number, target: Uint8Array): void {
    try {
      for (let done = 0; done < target.length; ) {
        const count = readSync(this.#descriptor ?? -1, target, done, target.length - done, offset + done);
        if (count === 0) throw new Error('the file has become shorter');
        done += count;
      }
    } catch (cause) {
      const text = `${this.file} cannot be read at ${hex(offset)}: ${cause instanceof Error ? cause.message : cause}`;
      throw new KhoError('KHO_EIO', text, { file: this.file, offset }, { cause });
    }
  }
}

/** The parts of a range before `start` and after `end`. */
function withoutStretch({ base, size, nid, backed }: MemoryRange, start: number, end: number): MemoryRange[] {
  const stop = base + size;
  const parts: [from: number, to: number][] = [
    [base, Math.min(stop, start)],
    [Math.max(base, end), stop],
  ];
  return parts.flatMap(([from, to]) =>
    to > from ? [{ base: physicalAddress(from), size: to - from, nid, backed }] : [],
  );
}

/** The memory map that says no more than what the file holds. */
function memoryOf(held: MemoryMap<HeldRange>): MemoryMap<MemoryRange> {
  return new MemoryMap(held.ranges.map(({ base, size, nid, backed }) => ({ base, size, nid, backed })));
}

function heldRanges(extents: readonly FileExtent[]): MemoryMap<HeldRange> {
  return new MemoryMap(
    extents.map(({ address, offset, size }) => ({ base: address, size, nid: 0, backed: true, offset })),
  );
}
