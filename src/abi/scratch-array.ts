import { decodeKhoMem, encodeKhoMem, type KhoMem } from './kho-mem.js';

/** `struct kho_scratch { u64 addr; u64 size; }`, native: the array that the boot record points to. */
export type ScratchEntry = KhoMem;

export function encodeScratchArray(areas: readonly ScratchEntry[]): Uint8Array {
  return encodeKhoMem(areas);
}

/** KHO_EIMAGE unless it is a whole number of entries with addresses and sizes below 2^52. */
export function decodeScratchArray(bytes: Uint8Array): ScratchEntry[] {
  return decodeKhoMem(bytes, 'the scratch array');
}
