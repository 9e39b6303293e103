import { KhoError } from '../errors.js';
import type { ByteOrder } from './wire.js';

/** The 32-bit integer at a byte offset. The caller knows that it lies inside, as for all of these. */
export function readU32(bytes: Uint8Array, at: number, order: ByteOrder): number {
  if (order === 'big') {
    return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
  }
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

/** The 64-bit integer at a byte offset. */
export function readU64(bytes: Uint8Array, at: number, order: ByteOrder): bigint {
  const first = BigInt(readU32(bytes, at, order));
  const second = BigInt(readU32(bytes, at + 4, order));
  return order === 'big' ? (first << 32n) | second : (second << 32n) | first;
}

/** As {@link readU64}, as a number: exact up to 2^53 - 1; anything above comes out above it too, since rounding never goes below 2^53. */
export function readNumber64(bytes: Uint8Array, at: number, order: ByteOrder): number {
  const first = readU32(bytes, at, order);
  const second = readU32(bytes, at + 4, order);
  return order === 'big' ? first * 2 ** 32 + second : second * 2 ** 32 + first;
}

/** KHO_EINVAL, naming what the value is for, unless it is an integer in [0, 2^32). */
export function checkU32(name: string, value: number): void {
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return;
  throw new KhoError('KHO_EINVAL', `'${name}': ${value} is not an integer of 32 bits`, { property: name });
}

/** KHO_EINVAL unless the value is an integer in [0, 2^64), and below 2^53 if it is a number. */
export function checkU64(name: string, value: number | bigint): void {
  if (typeof value === 'bigint' ? value >= 0n && value < 1n << 64n : Number.isSafeInteger(value) && value >= 0) return;
  const what =
    typeof value === 'bigint' ? 'an integer of 64 bits' : 'an exact integer of 64 bits (beyond 2^53 use a bigint)';
  throw new KhoError('KHO_EINVAL', `'${name}': ${value} is not ${what}`, { property: name });
}
