import { KhoError } from '../errors.js';
import { hex, type PhysicalAddress } from './address.js';
import type { MemoryRange } from './memory-map.js';

/** What another thread needs of a segment; structured clone shares the buffer. */
export interface SegmentHandle {
  readonly base: number;
  readonly size: number;
  readonly nid: number;
  readonly backed: boolean;
  /** Null for an unbacked segment, and for one that nobody has used yet. */
  readonly buffer: SharedArrayBuffer | null;
}

/**
 * A part of physical memory that has one shared buffer, from its first use on. Nobody asks an unbacked one for bytes:
 * see MemoryMap.
 */
export class Segment implements MemoryRange {
  readonly base: PhysicalAddress;
  readonly size: number;
  readonly nid: number;
  readonly backed: boolean;
  /** Whether this thread may begin to use the segment: no other one would see what it writes. */
  readonly #own: boolean;
  #buffer: SharedArrayBuffer | null;
  #bytes: Uint8Array<SharedArrayBuffer> | undefined;
  #words: Int32Array<SharedArrayBuffer> | undefined;
  #longs: BigInt64Array<SharedArrayBuffer> | undefined;

  private constructor({ base, size, nid, backed, buffer }: SegmentHandle, own: boolean) {
    this.base = base as PhysicalAddress;
    this.size = size;
    this.nid = nid;
    this.backed = backed;
    this.#own = own;
    this.#buffer = buffer;
  }

  static create(range: MemoryRange): Segment {
    return new Segment({ ...range, buffer: null }, true);
  }

  static attach(handle: SegmentHandle): Segment {
    return new Segment(handle, false);
  }

  get handle(): SegmentHandle {
    const { base, size, nid, backed } = this;
    return { base, size, nid, backed, buffer: this.#buffer };
  }

  /** Makes the buffer, if that has not been done, where this thread may. */
  use(): void {
    if (this.#own) this.#open();
  }

  /** All bytes, to be read. KHO_ENOMEM if this machine refuses the buffer. */
  get bytes(): Uint8Array<SharedArrayBuffer> {
    this.#bytes ??= new Uint8Array(this.#open());
    return this.#bytes;
  }

  /** All bytes, to be changed too. KHO_EFAULT in a thread that must not begin to use the segment. */
  get writable(): Uint8Array<SharedArrayBuffer> {
    if (this.#buffer === null && !this.#own) throw this.#notInUse();
    return this.bytes;
  }

  /** The same as 32-bit words in the byte order of this machine; errors of {@link writable}. */
  get words(): Int32Array<SharedArrayBuffer> {
    if (this.#words === undefined) this.#words = new Int32Array(this.writable.buffer);
    return this.#words;
  }

  /** The same as 64-bit words. */
  get longs(): BigInt64Array<SharedArrayBuffer> {
    if (this.#longs === undefined) this.#longs = new BigInt64Array(this.writable.buffer);
    return this.#longs;
  }

  /** The buffer; where only zeros can be read, one of this thread's own that nobody writes to. */
  #open(): SharedArrayBuffer {
    if (this.#buffer !== null) return this.#buffer;
    const buffer = sharedBuffer(this.base, this.size);
    if (this.#own) this.#buffer = buffer;
    return buffer;
  }

  #notInUse(): KhoError {
    const { base: address, size } = this;
    const text = `the memory at ${hex(address)} (${hex(size)} bytes) was not in use when this thread attached to it`;
    return new KhoError('KHO_EFAULT', text, { address, size });
  }
}

function sharedBuffer(base: PhysicalAddress, size: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(size);
  } catch (cause) {
    const text = `this machine refuses ${size} bytes of shared memory for the segment at ${hex(base)}`;
    throw new KhoError('KHO_ENOMEM', text, { address: base, size }, { cause });
  }
}
