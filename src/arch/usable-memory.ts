import { Memblock, PAGE_SIZE, physicalAddress } from '../memblock/index.js';
import type { FirmwareRange } from './architecture.js';

/**
 * A memblock with the whole pages of memory that the firmware's map calls usable, nothing reserved, and arrays that may
 * grow: as e820__memblock_setup() leaves it.
 */
export function usableMemory(firmware: readonly FirmwareRange[]): Memblock {
  const memblock = new Memblock();
  memblock.allowResize();
  for (const { base, size, usable } of firmware) if (usable) memblock.add(physicalAddress(base), size);
  memblock.trimMemory(PAGE_SIZE);
  return memblock;
}
