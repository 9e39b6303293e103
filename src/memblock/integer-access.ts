import { KhoError } from '../errors.js';
import { hex, type PhysicalAddress } from './address.js';

/** Which byte of an integer comes first in memory. */
export type ByteOrder = 'little' | 'big';

/**
 * Integers in memory, on top of byte accesses: what every implementation of PhysicalMemory has in common.
 * Addresses need no alignment; an integer may even lie across two segments. Errors are those of the byte accesses.
 */
export abstract class IntegerAccess {
  readonly #bytes = new Uint8Array(8);
  readonly #word = this.#bytes.subarray(0, 4);
  readonly #view = new DataView(this.#bytes.buffer);

  abstract readInto(address: PhysicalAddress, target: Uint8Array): void;
  abstract write(address: PhysicalAddress, bytes: Uint8Array): void;

  /** The 32-bit word at `address`, as an unsigned number. */
  readU32(address: PhysicalAddress, order: ByteOrder = 'little'): number {
    this.readInto(address, this.#word);
    return this.#view.getUint32(0, order === 'little');
  }

  /** Stores the low 32 bits of `value`. */
  writeU32(address: PhysicalAddress, value: number, order: ByteOrder = 'little'): void {
    this.#view.setUint32(0, value, order === 'little');
    this.write(address, this.#word);
  }

  /** The 64-bit word at `address`. */
  readU64(address: PhysicalAddress, order: ByteOrder = 'little'): bigint {
    this.readInto(address, this.#bytes);
    return this.#view.getBigUint64(0, order === 'little');
  }

  /**
   * The 64-bit word at `address` as a number, always exact: for addresses and sizes.
   * KHO_EINVAL, with the value in its message, above 2^53 - 1.
   */
  readU64Number(address: PhysicalAddress, order: ByteOrder = 'little'): number {
    this.readInto(address, this.#bytes);
    const little = order === 'little';
    const high = this.#view.getUint32(little ? 4 : 0, little);
    if (high >= 2 ** 21) {
      const value = this.#view.getBigUint64(0, little);
      throw new KhoError('KHO_EINVAL', `the 64-bit word ${hex(value)} at ${hex(address)} is above 2^53 - 1`, {
        address,
      });
    }
    return high * 2 ** 32 + this.#view.getUint32(little ? 0 : 4, little);
  }

  /** Stores `value` as 64 bits. KHO_EINVAL unless it is an integer in [0, 2^64), exact if it is a number. */
  writeU64(address: PhysicalAddress, value: bigint | number, order: ByteOrder = 'little'): void {
    const valid =
      typeof value === 'bigint' ? value >= 0n && value < 2n ** 64n : Number.isSafeInteger(value) && value >= 0;
    if (!valid) throw new KhoError('KHO_EINVAL', `${value} is not an exact unsigned 64-bit value`, { address });
    this.#view.setBigUint64(0, BigInt(value), order === 'little');
    this.write(address, this.#bytes);
  }
}
