import type { FirmwareRange } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { alignUp, type FileLayout, hex, type PhysicalAddress } from '../memblock/index.js';

const MIB = 2 ** 20;
/** With less RAM than this all of it lies below 4 GiB; else 3 GiB of it do. */
const SPLIT_FROM = 3.5 * 2 ** 30;
const SPLIT_LOW = 3 * 2 ** 30;
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

/**
 * Holes inside of either part are RAM of that machine, which nobody tells the kernel of. KHO_EOPNOTSUPP where the hole below
 * 4 GiB is not that of a `pc`, as on many captured machines: RAM would lie elsewhere.
 */
export function qemuMachine(firmware: readonly FirmwareRange[]): QemuMachine {
  const ram = firmware.filter(({ usable }) => usable).map(({ base, size }) => ({ base, end: base + size }));
  const low = Math.max(0, ...ram.filter(({ base }) => base < HIGH_START).map(({ end }) => Math.min(end, HIGH_START)));
  const high = Math.max(HIGH_START, ...ram.map(({ end }) => end));
  const shift = HIGH_START - low;
  const size = alignUp(low + (high - HIGH_START), MIB);
  if (size < SPLIT_FROM ? high > HIGH_START : low !== SPLIT_LOW) {
    const above = high > HIGH_START ? `and goes on at ${hex(HIGH_START)}` : 'with nothing above';
    const text = `memory below 4 GiB ends at ${hex(low)}, ${above}: QEMU's pc machine cannot have it so (3 GiB below, if there are 3.5)`;
    throw new KhoError('KHO_EOPNOTSUPP', text, { address: low });
  }
  return {
    size,
    // An image that does not end where the RAM does is copied: QEMU would change its size.
    flat: high === HIGH_START && size === low,
    offsetOf: (address: PhysicalAddress) => (address >= HIGH_START ? address - shift : address),
  };
}
