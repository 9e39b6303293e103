import { KhoError } from '../errors.js';
import { after, hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress } from './address.js';
import { type ByteOrder, IntegerAccess } from './integer-access.js';
import { checkWholePages, MemoryMap, type MemoryRange, type Piece } from './memory-map.js';
import { Segment, type SegmentHandle } from './segment.js';

/**
 * The physical memory of a host, as drivers and readers see it. Two implementations: {@link SharedPhysicalMemory}, live
 * memory that worker threads share, and `ImageMemory`, a memory image file.
 *
 * Every access fails with KHO_EFAULT, naming the first bad address, when any of its bytes is outside of memory or
 * unbacked, and then has changed nothing. Lengths are bytes; no access needs alignment.
 */
export interface PhysicalMemory {
  /** The memory map in ascending order of address, without overlaps. */
  readonly ranges: readonly MemoryRange[];
  /** A copy of `length` bytes. */
  read(address: PhysicalAddress, length: number): Uint8Array;
  /** Fills `target` with the bytes at `address`. */
  readInto(address: PhysicalAddress, target: Uint8Array): void;
  /** Writes `bytes` at `address`, all or none. */
  write(address: PhysicalAddress, bytes: Uint8Array): void;
  /** Sets `length` bytes to `byte`, all or none. */
  fill(address: PhysicalAddress, length: number, byte: number): void;
  /**
   * `length` bytes without a copy where possible, to be read now: change memory through {@link write} alone.
   * Live memory gives KHO_EINVAL when the bytes lie across two segments ({@link read} copes with that).
   */
  view(address: PhysicalAddress, length: number): Uint8Array;
  /** The 32-bit word at `address`, unsigned; little-endian unless told otherwise, as for all integers below. */
  readU32(address: PhysicalAddress, order?: ByteOrder): number;
  writeU32(address: PhysicalAddress, value: number, order?: ByteOrder): void;
  readU64(address: PhysicalAddress, order?: ByteOrder): bigint;
  /** The 64-bit word at `address` as an exact number: KHO_EINVAL above 2^53 - 1. For addresses and sizes. */
  readU64Number(address: PhysicalAddress, order?: ByteOrder): number;
  /** KHO_EINVAL unless `value` is an exact integer in [0, 2^64). */
  writeU64(address: PhysicalAddress, value: bigint | number, order?: ByteOrder): void;
}

/** Segments end at multiples of this many bytes: word indexes stay small, and no aligned object up to 1 GiB is cut. */
export const SEGMENT_SIZE = 2 ** 30;

/** Memory with at most so many backed bytes is shared with other threads whole; of larger memory only what is in use. */
export const SHARED_WHOLE = 16 * 2 ** 30;

/** Up to this many bytes a loop is faster than a call of set(). */
const SMALL = 8;

/** What {@link SharedPhysicalMemory.attach} needs in another thread; structured clone shares the buffers. */
export interface SharedMemoryHandle {
  readonly segments: readonly SegmentHandle[];
}

/** Where a word lies, for code that uses Atomics or cannot afford a lookup per word. */
export interface WordLocation {
  /** The 32-bit words of the whole segment, in the byte order of the machine that runs this. */
  readonly array: Int32Array<SharedArrayBuffer>;
  /** Index of the word in {@link array}. */
  readonly index: number;
}

/** Where a 64-bit word lies, for code that must change or see all of it at once. */
export interface LongLocation {
  /** The 64-bit words of the whole segment, in the byte order of the machine that runs this. */
  readonly array: BigInt64Array<SharedArrayBuffer>;
  /** Index of the word in {@link array}. */
  readonly index: number;
}

/**
 * Physical memory in shared memory: one SharedArrayBuffer per segment, never one flat buffer, because a host's memory
 * has holes, nodes and a size that no single buffer reaches.
 *
 * ```text
 *   address   0        1 GiB      2 GiB    2.5 GiB          4 GiB     5 GiB
 *             |---------|----------|--------|   (hole)       |---------|
 *   node                0                                         1
 *   segment        #0        #1        #2                        #3
 * ```
 *
 * A segment gets its buffer when one of its bytes is first accessed, and the operating system commits a page of the
 * buffer when that is first touched: creating a host of any size reserves and touches nothing. So a machine that would
 * refuse the buffers of a whole host can model it, as long as few of its GiB are used.
 *
 * Threads: any number may attach. Plain accesses are not ordered between threads, so two threads may use the same bytes
 * only one after the other, with a message (or an Atomics operation) in between; see {@link words} for the rest.
 * Only the thread that created the memory begins to use a segment. Elsewhere one that had no buffer when the
 * {@link handle} was taken reads as zeros, and a write to it is KHO_EFAULT. Up to {@link SHARED_WHOLE} all have one.
 */
export class SharedPhysicalMemory extends IntegerAccess implements PhysicalMemory {
  readonly ranges: readonly MemoryRange[];
  readonly #map: MemoryMap<Segment>;

  private constructor(segments: readonly Segment[]) {
    super();
    this.#map = new MemoryMap(segments);
    this.ranges = joinRanges(this.#map.ranges);
  }

  /**
   * Memory for `ranges`, all zero. Neighbours of one node and kind become one range. KHO_EINVAL unless every base and
   * size is a multiple of {@link PAGE_SIZE} below {@link PHYS_ADDR_MAX} and no two ranges overlap. Any later access may be
   * KHO_ENOMEM, when this machine refuses to reserve a segment's buffer.
   */
  static create(ranges: Iterable<MemoryRange>): SharedPhysicalMemory {
    const map = new MemoryMap(ranges);
    const segments: Segment[] = [];
    for (const { base, size, nid, backed } of map.ranges) {
      checkWholePages({ base, size });
      for (let offset = 0; offset < size; ) {
        const start = after(base, offset);
        const length = Math.min(size - offset, backed ? SEGMENT_SIZE - (start % SEGMENT_SIZE) : size);
        segments.push(Segment.create({ base: start, size: length, nid, backed }));
        offset += length;
      }
    }
    return new SharedPhysicalMemory(segments);
  }

  /** The same memory in another thread. */
  static attach(handle: SharedMemoryHandle): SharedPhysicalMemory {
    return new SharedPhysicalMemory(handle.segments.map((segment) => Segment.attach(segment)));
  }

  /** A structured-cloneable description for {@link attach}. KHO_ENOMEM when this machine refuses a buffer. */
  get handle(): SharedMemoryHandle {
    const backed = this.#map.ranges.filter((segment) => segment.backed);
    if (backed.reduce((sum, { size }) => sum + size, 0) <= SHARED_WHOLE) for (const segment of backed) segment.use();
    return { segments: this.#map.ranges.map((segment) => segment.handle) };
  }

  read(address: PhysicalAddress, length: number): Uint8Array {
    const pieces = this.#map.cut(address, length); // before the copy is allocated: `length` may come from a damaged blob
    const copy = new Uint8Array(length);
    let at = 0;
    for (const { range, offset, length: part } of pieces) {
      copy.set(range.bytes.subarray(offset, offset + part), at);
      at += part;
    }
    return copy;
  }

  readInto(address: PhysicalAddress, target: Uint8Array): void {
    if (target.length <= SMALL) {
      const near = this.#map.only(address, target.length);
      if (near !== undefined) {
        const offset = address - near.base;
        const source = near.bytes;
        for (let index = 0; index < target.length; index++) target[index] = source[offset + index];
        return;
      }
    }
    let at = 0;
    for (const { range, offset, length } of this.#map.cut(address, target.length)) {
      target.set(range.bytes.subarray(offset, offset + length), at);
      at += length;
    }
  }

  write(address: PhysicalAddress, bytes: Uint8Array): void {
    if (bytes.length <= SMALL) {
      const near = this.#map.only(address, bytes.length);
      if (near !== undefined) {
        const offset = address - near.base;
        const target = near.writable;
        for (let index = 0; index < bytes.length; index++) target[offset + index] = bytes[index];
        return;
      }
    }
    let at = 0;
    for (const { range, offset, length } of this.#writable(address, bytes.length)) {
      range.writable.set(bytes.subarray(at, at + length), offset);
      at += length;
    }
  }

  fill(address: PhysicalAddress, length: number, byte: number): void {
    for (const piece of this.#writable(address, length)) {
      piece.range.writable.fill(byte, piece.offset, piece.offset + piece.length);
    }
  }

  /** The bytes themselves, live. KHO_EINVAL if they lie across two segments. */
  view(address: PhysicalAddress, length: number): Uint8Array<SharedArrayBuffer> {
    const range = this.#map.only(address, length);
    if (range === undefined) {
      this.#map.cut(address, length); // outside of memory is the better explanation where it is one
      const text = `${length} bytes at ${hex(address)} lie across two segments: they have no view, read a copy`;
      throw new KhoError('KHO_EINVAL', text, { address, size: length });
    }
    return range.bytes.subarray(address - range.base, address - range.base + length);
  }

  /** Whether {@link view} can give these bytes: they are memory, and of one segment. */
  isContiguous(address: PhysicalAddress, length: number): boolean {
    return this.#map.only(address, length) !== undefined;
  }

  /** The bytes themselves, live, as one view per segment: what {@link view} cannot give across segments. */
  views(address: PhysicalAddress, length: number): Uint8Array<SharedArrayBuffer>[] {
    return this.#map
      .cut(address, length)
      .map(({ range, offset, length: part }) => range.bytes.subarray(offset, offset + part));
  }

  /**
   * The 32-bit word at `address` in its segment's array. Words up to the end of the page are in the same array, since
   * segments are made of whole pages. KHO_EINVAL unless `address` is a multiple of 4.
   */
  words(address: PhysicalAddress): WordLocation {
    if (address % 4 !== 0) throw new KhoError('KHO_EINVAL', `${hex(address)} is not aligned to a word`, { address });
    const [{ range, offset }] = this.#map.cut(address, 4);
    return { array: range.words, index: offset / 4 };
  }

  /** The same for the 64-bit word at `address`, a multiple of 8. A BigInt for each access: for rare ones. */
  longs(address: PhysicalAddress): LongLocation {
    if (address % 8 !== 0) {
      throw new KhoError('KHO_EINVAL', `${hex(address)} is not aligned to a 64-bit word`, { address });
    }
    const range = this.#map.only(address, 8) as Segment; // segments are made of whole pages: it is in one
    return { array: range.longs, index: (address - range.base) / 8 };
  }

  /** The pieces of a write, every one of which can be written. */
  #writable(address: PhysicalAddress, length: number): Piece<Segment>[] {
    const pieces = this.#map.cut(address, length);
    if (pieces.length > 1) for (const { range } of pieces) void range.writable;
    return pieces;
  }
}

/** The memory map that segments stand for: neighbours of one node and kind are one range. */
function joinRanges(segments: readonly Segment[]): MemoryRange[] {
  const joined: MemoryRange[] = [];
  for (const { base, size, nid, backed } of segments) {
    const last = joined.at(-1);
    if (last !== undefined && last.base + last.size === base && last.nid === nid && last.backed === backed) {
      joined[joined.length - 1] = { ...last, size: last.size + size };
    } else {
      joined.push({ base, size, nid, backed });
    }
  }
  return joined;
}
