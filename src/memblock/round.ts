import { alignDown, alignUp } from './address.js';

/** Whether `value` is 1, 2, 4, …: the only alignments that the kernel's rounding is made for. */
export function isPowerOfTwo(value: number): boolean {
  return value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}

/** The kernel's round_up(). It works on bits: an alignment that is no power of two gives something else, and so it does here. */
export function roundUp(value: number, align: number): number {
  if (isPowerOfTwo(align)) return alignUp(value, align);
  return Number(((BigInt(value) - 1n) | (BigInt(align) - 1n)) + 1n);
}

/** The kernel's round_down(), with the same catch. */
export function roundDown(value: number, align: number): number {
  if (isPowerOfTwo(align)) return alignDown(value, align);
  return Number(BigInt(value) & ~(BigInt(align) - 1n));
}
