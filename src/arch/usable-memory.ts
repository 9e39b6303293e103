import { alignDown, alignUp, Memblock, PAGE_SIZE, physicalAddress } from '../memblock/index.js';
import type { FirmwareRange } from './architecture.js';

/** A memblock with the whole pages of memory that the firmware's map calls usable, and nothing reserved. */
export function usableMemory(firmware: readonly FirmwareRange[]): Memblock {
  const memblock = new Memblock();
  for (const { base, size, usable } of firmware) {
    if (!usable) continue;
    const start = alignUp(base, PAGE_SIZE);
    const end = alignDown(base + size, PAGE_SIZE);
    if (end > start) memblock.add(physicalAddress(start), end - start);
  }
  return memblock;
}
