import { physicalAddress } from '../../memblock/index.js';
import type { FirmwareRange } from '../architecture.js';

/** Types of struct boot_e820_entry (arch/x86/include/uapi/asm/setup_data.h). */
export const E820_TYPE_RAM = 1;
export const E820_TYPE_RESERVED = 2;

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** End of the low memory that a PC's firmware leaves usable; its data area and the ROMs follow. */
const LOW_RAM_END = 0x9fc00;
const LOW_MEMORY_END = 0xa0000;
const BIOS_ROM = 0xf0000;
/** The PCI hole below 4 GiB, as QEMU's `pc` machine makes it: from 3.5 GiB of RAM on, 3 GiB lie below 4 GiB. */
const SPLIT_FROM = 3.5 * GIB;
const SPLIT_LOW = 3 * GIB;
const HIGH_START = 4 * GIB;

/** The e820 map of a PC with `memory` bytes of RAM. */
export function e820Map(memory: number): FirmwareRange[] {
  const low = memory >= SPLIT_FROM ? SPLIT_LOW : memory;
  const range = (base: number, end: number, usable: boolean): FirmwareRange => ({
    base: physicalAddress(base),
    size: end - base,
    usable,
  });
  const map = [
    range(0, LOW_RAM_END, true),
    range(LOW_RAM_END, LOW_MEMORY_END, false),
    range(BIOS_ROM, MIB, false),
    range(MIB, low, true),
  ];
  if (memory > low) map.push(range(HIGH_START, HIGH_START + (memory - low), true));
  return map;
}
