import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';

/** What the decoders need of memory: live memory, an image and a driver's context all have it. */
export interface ReadableMemory {
  /** A copy of `length` bytes; throws where there is no memory. */
  read(address: PhysicalAddress, length: number): Uint8Array;
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const LATIN1 = new TextDecoder('latin1');

/**
 * Memory that nobody vouches for, while structures in it are followed. A page holds one structure, which is read once:
 * so no chain comes back to itself, no two chains join, and whatever pointers say, reading ends.
 */
export class UntrustedMemory implements ReadableMemory {
  readonly #memory: ReadableMemory;
  /** What was read from each page. */
  readonly #held = new Map<PhysicalAddress, string>();

  private constructor(memory: ReadableMemory) {
    this.#memory = memory;
  }

  /** `memory` itself if it is one already: then what is read now and what was read before are told apart. */
  static of(memory: ReadableMemory): UntrustedMemory {
    return memory instanceof UntrustedMemory ? memory : new UntrustedMemory(memory);
  }

  read(address: PhysicalAddress, length: number): Uint8Array {
    return this.#memory.read(address, length);
  }

  /** `size` bytes of the structure `what`. KHO_EIMAGE unless they are memory, and its page is no other structure's. */
  structure(address: PhysicalAddress, size: number, what: string): Structure {
    const holder = this.#held.get(address);
    if (holder !== undefined) {
      const text = `${what} at ${hex(address)} was read before, as ${holder}: a pointer leads back, or two lead here`;
      throw new KhoError('KHO_EIMAGE', text, { address });
    }
    this.#held.set(address, what);
    return new Structure(what, address, readUntrusted(this.#memory, address, size, what));
  }
}

/** The bytes of `what`. KHO_EIMAGE where there is no memory. */
export function readUntrusted(
  memory: ReadableMemory,
  address: PhysicalAddress,
  size: number,
  what: string,
): Uint8Array {
  try {
    return memory.read(address, size);
  } catch (cause) {
    if (!(cause instanceof KhoError && cause.code === 'KHO_EFAULT')) throw cause;
    const text = `${what} at ${hex(address)} cannot be read: ${cause.message}`;
    throw new KhoError('KHO_EIMAGE', text, { address, size }, { cause });
  }
}

/**
 * A packed little-endian structure that nobody vouches for. Every failure is a KHO_EIMAGE whose message names the
 * structure, its address and the field, and whose details hold the address.
 */
export class Structure {
  /** What it is, for messages: `the session block`. */
  readonly what: string;
  readonly address: PhysicalAddress;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(what: string, address: PhysicalAddress, bytes: Uint8Array) {
    this.what = what;
    this.address = address;
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** A part of it that is a structure itself. */
  part(what: string, offset: number, size: number): Structure {
    return new Structure(what, (this.address + offset) as PhysicalAddress, this.bytes.subarray(offset, offset + size));
  }

  u16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  u64(offset: number): bigint {
    return this.#view.getBigUint64(offset, true);
  }

  /** A 64-bit count or size as a number. KHO_EIMAGE above `limit`, a safe integer. */
  count(offset: number, field: string, limit: number): number {
    const value = this.u64(offset);
    if (value > BigInt(limit)) throw this.bad(`${field} is ${value}, above the limit of ${limit}`);
    return Number(value);
  }

  /** The address of a page, or undefined for 0. KHO_EIMAGE for any other number. */
  pointer(offset: number, field: string): PhysicalAddress | undefined {
    const value = this.u64(offset);
    if (value === 0n) return undefined;
    if (value % BigInt(PAGE_SIZE) !== 0n || value >= BigInt(PHYS_ADDR_MAX)) {
      throw this.bad(`${field} is ${hex(value)}, which is not the address of a page`);
    }
    return physicalAddress(Number(value));
  }

  /**
   * A NUL-terminated string in `size` bytes: UTF-8, or Latin-1 if it is none, since the kernel takes any bytes.
   * KHO_EIMAGE if it is empty or there is no NUL.
   */
  text(offset: number, size: number, field: string): string {
    const end = this.bytes.indexOf(0, offset);
    if (end < 0 || end >= offset + size) throw this.bad(`${field} is not terminated within ${size} bytes`);
    if (end === offset) throw this.bad(`${field} is empty`);
    const bytes = this.bytes.slice(offset, end); // a copy: TextDecoder need not take views on shared memory
    try {
      return UTF8.decode(bytes);
    } catch {
      return LATIN1.decode(bytes);
    }
  }

  /** A KHO_EIMAGE about this structure. */
  bad(text: string): KhoError {
    return new KhoError('KHO_EIMAGE', `${this.what} at ${hex(this.address)}: ${text}`, { address: this.address });
  }
}

/** Writes `text` as UTF-8 into `size` bytes, NUL-padded. KHO_EINVAL if it is empty, holds a NUL or leaves no room for one. */
export function writeText(into: Uint8Array, offset: number, size: number, field: string, text: string): void {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length === 0 || bytes.length >= size || bytes.includes(0)) {
    const wanted = `1 to ${size - 1} bytes without a NUL`;
    throw new KhoError('KHO_EINVAL', `the ${field} '${text}' must have ${wanted}; it has ${bytes.length}`, { field });
  }
  into.fill(0, offset, offset + size);
  into.set(bytes, offset);
}
