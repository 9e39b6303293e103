import { KhoError } from '../errors.js';
import { hex, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';

/**
 * `struct kho_mem { u64 addr; u64 size; }`, native. Arrays of it are the scratch array (as `struct kho_scratch`), and in
 * the patch series v4 of February 2025 the property `mem`, which lists preserved memory in any node of the FDT.
 */
export interface KhoMem {
  readonly address: PhysicalAddress;
  /** Bytes. */
  readonly size: number;
}

export const KHO_MEM_SIZE = 16;

export function encodeKhoMem(ranges: readonly KhoMem[]): Uint8Array {
  const bytes = new Uint8Array(ranges.length * KHO_MEM_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [index, { address, size }] of ranges.entries()) {
    view.setBigUint64(index * KHO_MEM_SIZE, BigInt(address), true);
    view.setBigUint64(index * KHO_MEM_SIZE + 8, BigInt(size), true);
  }
  return bytes;
}

/**
 * Reads an array; `what` names it in messages. The bytes need no alignment: a property has only that of a 32-bit word.
 * KHO_EIMAGE unless they are a whole number of elements, at least one, each inside of the address space.
 */
export function decodeKhoMem(bytes: Uint8Array, what: string): KhoMem[] {
  if (bytes.length === 0 || bytes.length % KHO_MEM_SIZE !== 0) {
    throw new KhoError('KHO_EIMAGE', `${what} of ${bytes.length} bytes is not made of 16-byte entries`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / KHO_MEM_SIZE }, (_, index) => {
    const address = view.getBigUint64(index * KHO_MEM_SIZE, true);
    const size = view.getBigUint64(index * KHO_MEM_SIZE + 8, true);
    if (address + size > BigInt(PHYS_ADDR_MAX)) {
      const range = `${hex(address)} + ${hex(size)}`;
      throw new KhoError('KHO_EIMAGE', `entry ${index} of ${what} is outside of memory: ${range}`);
    }
    return { address: physicalAddress(Number(address)), size: Number(size) };
  });
}
