import { KhoError } from '../errors.js';
import { readNumber64, readU32, readU64 } from './integers.js';
import type { ByteOrder } from './wire.js';

/** A property of a node: a name and bytes, whose meaning the caller knows. */
export class FdtProperty {
  /** The name, one character per byte. */
  readonly name: string;
  /** A view of the value in the blob; 4-aligned relative to the blob's start. */
  readonly value: Uint8Array;
  /** Byte offset of the property's PROP token in the blob. */
  readonly offset: number;
  readonly #node: { readonly path: string };

  /** @internal */
  constructor(node: { readonly path: string }, name: string, value: Uint8Array, offset: number) {
    this.#node = node;
    this.name = name;
    this.value = value;
    this.offset = offset;
  }

  /** The value as one 32-bit integer. KHO_FDT_BADVALUE unless it has 4 bytes. */
  u32(order: ByteOrder): number {
    return readU32(this.#sized(4), 0, order);
  }

  /** The value as one 64-bit integer. KHO_FDT_BADVALUE unless it has 8 bytes. */
  u64(order: ByteOrder): bigint {
    return readU64(this.#sized(8), 0, order);
  }

  /** As {@link u64}, as a number. KHO_FDT_BADVALUE too if it is above 2^53 - 1, where numbers are no longer exact. */
  number64(order: ByteOrder): number {
    return this.#exact(readNumber64(this.#sized(8), 0, order));
  }

  /** The value as 32-bit integers. KHO_FDT_BADVALUE unless its length is a multiple of 4. */
  u32s(order: ByteOrder): number[] {
    const value = this.#multipleOf(4);
    return Array.from({ length: value.length / 4 }, (_, i) => readU32(value, i * 4, order));
  }

  /** The value as 64-bit integers. KHO_FDT_BADVALUE unless its length is a multiple of 8. */
  u64s(order: ByteOrder): bigint[] {
    const value = this.#multipleOf(8);
    return Array.from({ length: value.length / 8 }, (_, i) => readU64(value, i * 8, order));
  }

  /** As {@link u64s}, as numbers. KHO_FDT_BADVALUE too if one is above 2^53 - 1. */
  number64s(order: ByteOrder): number[] {
    const value = this.#multipleOf(8);
    return Array.from({ length: value.length / 8 }, (_, i) => this.#exact(readNumber64(value, i * 8, order)));
  }

  /** The value as one string. KHO_FDT_BADVALUE unless it is UTF-8 with one NUL, at its end. */
  string(): string {
    const strings = this.strings();
    if (strings.length !== 1) throw this.#bad(`holds ${strings.length} strings, not one`);
    return strings[0] ?? '';
  }

  /** The value as strings, none for an empty value. KHO_FDT_BADVALUE unless it is UTF-8 and ends with a NUL. */
  strings(): string[] {
    const { value } = this;
    if (value.length === 0) return [];
    if (value[value.length - 1] !== 0) throw this.#bad('does not end with a NUL, as a string does');
    try {
      return utf8(value.subarray(0, value.length - 1)).split('\0');
    } catch {
      throw this.#bad('is not UTF-8 text');
    }
  }

  #sized(size: number): Uint8Array {
    const { value } = this;
    if (value.length !== size) throw this.#bad(`has ${value.length} bytes, not ${size}`);
    return value;
  }

  #multipleOf(size: number): Uint8Array {
    const { value } = this;
    if (value.length % size !== 0) throw this.#bad(`has ${value.length} bytes, not a multiple of ${size}`);
    return value;
  }

  #exact(value: number): number {
    if (value > Number.MAX_SAFE_INTEGER) throw this.#bad('holds a number above 2^53 - 1');
    return value;
  }

  #bad(what: string): KhoError {
    const { name, offset } = this;
    const { path } = this.#node;
    const message = `property '${name}' of ${path} ${what}, at offset ${offset}`;
    return new KhoError('KHO_FDT_BADVALUE', message, { path, property: name, offset });
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function utf8(bytes: Uint8Array): string {
  // slice() copies into unshared memory: TextDecoder need not take views on a SharedArrayBuffer (browsers do not).
  return UTF8.decode(bytes.slice());
}
