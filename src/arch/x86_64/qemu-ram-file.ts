import { type FileExtent, type ImageMemory, PAGE_SIZE, physicalAddress } from '../../memblock/index.js';
import type { FirmwareRange } from '../architecture.js';
import { BOOT_PARAMS_SIZE, decodeBootParams } from './boot-params.js';
import { bootParamsPlaces } from './find-boot-record.js';

const GIB = 2 ** 30;
const HIGH_START = 4 * GIB;
/** What firmware keeps for itself at the top of the low memory (ACPI tables) is less than this, and ends with a MiB. */
const FIRMWARE_MAX = 64 * 2 ** 20;
const MIB = 2 ** 20;
/** The least memory of which QEMU puts a part above 4 GiB: `q35` keeps 2 GiB below it. */
const SPLIT_FROM = 2 * GIB;
/** Every map begins with some of the first MiB. */
const FIRST_MEMORY_END = 2 ** 20;

/**
 * The RAM file of a QEMU machine of PC type holds memory without the hole below 4 GiB: first the memory below it (3 GiB
 * of a `pc` from 3.5 GiB on, 2 GiB of a `q35`), then the memory from 4 GiB on.
 *
 * ```text
 *   file      0           3 GiB        4 GiB
 *             | low ......|.... high ..|
 *   address   0           3 GiB  hole  4 GiB ...... 5 GiB
 * ```
 *
 * What such a file holds if it is one, by a memory map of the machine: there is memory above 4 GiB, and what the file
 * has beside it is as long as the low memory. Undefined for a flat file, and without memory above 4 GiB.
 */
export function qemuRamExtents(firmware: readonly FirmwareRange[], fileSize: number): FileExtent[] | undefined {
  let lowEnd = 0;
  let highEnd = HIGH_START;
  for (const { base, size, usable } of firmware) {
    if (!usable) continue;
    if (base < HIGH_START) lowEnd = Math.max(lowEnd, base + size);
    else highEnd = Math.max(highEnd, base + size);
  }
  const high = highEnd - HIGH_START;
  const low = fileSize - high;
  if (high === 0 || lowEnd > HIGH_START || low >= HIGH_START || low % PAGE_SIZE !== 0) return undefined;
  if (low !== lowEnd && (low % MIB !== 0 || low < lowEnd || low >= lowEnd + FIRMWARE_MAX)) return undefined;
  return [
    { address: physicalAddress(0), offset: 0, size: low },
    { address: physicalAddress(HIGH_START), offset: low, size: high },
  ];
}

/**
 * The same for an image that nobody knows anything of: by the first boot_params in it, current or stale, whose memory
 * map is one. They lie in low memory, where both readings agree.
 */
export function findQemuRamExtents(image: ImageMemory): FileExtent[] | undefined {
  if (image.format !== 'flat' || image.fileSize < SPLIT_FROM) return undefined;
  for (const address of bootParamsPlaces(image)) {
    const firmware = firmwareMapAt(image, address);
    if (firmware !== undefined) return qemuRamExtents(firmware, image.fileSize);
  }
  return undefined;
}

/** The memory map in the boot_params at an address, if it is what firmware tells: memory from 0 on, nothing empty. */
function firmwareMapAt(image: ImageMemory, address: number): readonly FirmwareRange[] | undefined {
  if (address + BOOT_PARAMS_SIZE > image.fileSize) return undefined;
  const firmware = decodeBootParams(image.read(physicalAddress(address), BOOT_PARAMS_SIZE))?.firmware;
  if (firmware === undefined || firmware.some(({ size }) => size === 0)) return undefined;
  return firmware.some(({ base, usable }) => usable && base < FIRST_MEMORY_END) ? firmware : undefined;
}
