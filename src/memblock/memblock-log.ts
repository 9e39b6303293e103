/** Gets a line of the kernel's log, without time stamp and line end. */
export type MemblockLog = (line: string) => void;

/** An address as the kernel's %pa prints it. */
export function pa(value: number | bigint): string {
  return `0x${value.toString(16).padStart(16, '0')}`;
}

/**
 * A range as memblock_dbg() prints it, with its last byte: a size that is too large is not cut yet, an empty range ends
 * before it begins. The 64-bit arithmetic of the kernel, since the one before 0 is the largest.
 */
export function rangeText(base: number, size: number): string {
  const bytes = Number.isFinite(size) ? BigInt(size) : -1n;
  return `[${pa(base)}-${pa(BigInt.asUintN(64, BigInt(base) + bytes - 1n))}]`;
}
