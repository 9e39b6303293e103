import type { FirmwareRange } from '../arch/index.js';
import type { FileLayout, PhysicalAddress } from '../memblock/index.js';

/** Memory at and above 4 GiB is RAM that the PCI hole displaced. */
const HIGH_START = 2 ** 32;

/**
 * QEMU's `pc` machine: how much RAM it must be given so that its map is the firmware map, and how its memory file is laid
 * out: without the hole below 4 GiB.
 *
 * ```text
 *   address  0 ──────── low end   (hole)   4 GiB ──────── high end
 *   offset   0 ──────── low end ─────────▶ low end ────── size
 * ```
 */
export interface QemuMachine extends FileLayout {
  /** True if the file is laid out as the addresses are, so that a flat image needs no copy. */
  readonly flat: boolean;
}

export function qemuMachine(firmware: readonly FirmwareRange[]): QemuMachine {
  const ends = firmware.filter(({ usable }) => usable).map(({ base, size }) => base + size);
  const low = Math.max(0, ...ends.filter((end) => end <= HIGH_START));
  const high = Math.max(HIGH_START, ...ends);
  const shift = HIGH_START - low;
  return {
    size: low + (high - HIGH_START),
    flat: high === HIGH_START,
    offsetOf: (address: PhysicalAddress) => (address >= HIGH_START ? address - shift : address),
  };
}
