import { KhoError } from '../errors.js';
import { type PhysicalAddress, physicalAddress } from '../memblock/index.js';

/** `struct kho_scratch { u64 addr; u64 size; }`, native: the array that the boot record points to. */
export interface ScratchEntry {
  readonly address: PhysicalAddress;
  readonly size: number;
}

export const SCRATCH_ENTRY_SIZE = 16;

export function encodeScratchArray(areas: readonly ScratchEntry[]): Uint8Array {
  const words = new BigUint64Array(areas.length * 2);
  for (const [index, { address, size }] of areas.entries()) {
    words[index * 2] = BigInt(address);
    words[index * 2 + 1] = BigInt(size);
  }
  return new Uint8Array(words.buffer);
}

/** KHO_EIMAGE unless it is a whole number of entries with addresses and sizes below 2^52. */
export function decodeScratchArray(bytes: Uint8Array): ScratchEntry[] {
  if (bytes.length === 0 || bytes.length % SCRATCH_ENTRY_SIZE !== 0) {
    throw new KhoError('KHO_EIMAGE', `a scratch array of ${bytes.length} bytes is not made of 16-byte entries`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const areas: ScratchEntry[] = [];
  for (let at = 0; at < bytes.length; at += SCRATCH_ENTRY_SIZE) {
    const address = Number(view.getBigUint64(at, true));
    const size = Number(view.getBigUint64(at + 8, true));
    if (address + size > 2 ** 52) {
      throw new KhoError('KHO_EIMAGE', `entry ${at / SCRATCH_ENTRY_SIZE} of the scratch array is outside of memory`);
    }
    areas.push({ address: physicalAddress(address), size });
  }
  return areas;
}
