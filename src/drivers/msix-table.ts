/**
 * The MSI-X table of a PCI function: 16 bytes an entry, little-endian (PCI Local Bus Specification 3.0, 6.8.2), with the
 * meaning that x86 gives to its messages (Intel SDM volume 3, 11.11).
 *
 * ```text
 *   +0   message address, low half: 0xfee00000 | destination APIC id << 12
 *   +4   message address, high half
 *   +8   message data: the interrupt vector, 0x10 to 0xfe; fixed, edge
 *   +12  vector control: bit 0 masks the entry
 * ```
 */
import { KhoError } from '../driver.js';

export const MSIX_ENTRY_SIZE = 16;

const MESSAGE_ADDRESS = 0xfee00000;
const DESTINATION_SHIFT = 12;
const CONTROL_MASKED = 1;

export interface MsixEntry {
  /** The local APIC that gets the interrupt, 0 to 255. */
  readonly destination: number;
  /** 0x10 to 0xfe. */
  readonly vector: number;
  readonly masked: boolean;
}

export function encodeMsixTable(entries: readonly MsixEntry[]): Uint8Array {
  const table = new Uint8Array(entries.length * MSIX_ENTRY_SIZE);
  const view = new DataView(table.buffer);
  for (const [index, { destination, vector, masked }] of entries.entries()) {
    const offset = index * MSIX_ENTRY_SIZE;
    view.setUint32(offset, (MESSAGE_ADDRESS | (destination << DESTINATION_SHIFT)) >>> 0, true);
    view.setUint32(offset + 8, vector, true);
    view.setUint32(offset + 12, masked ? CONTROL_MASKED : 0, true);
  }
  return table;
}

/** KHO_EINVAL, with the offset, for a table of odd length or an address that is no x86 message address. */
export function decodeMsixTable(table: Uint8Array): MsixEntry[] {
  if (table.length % MSIX_ENTRY_SIZE !== 0) {
    throw new KhoError('KHO_EINVAL', `an MSI-X table of ${table.length} bytes: not a multiple of ${MSIX_ENTRY_SIZE}`);
  }
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  return Array.from({ length: table.length / MSIX_ENTRY_SIZE }, (_, index) => {
    const offset = index * MSIX_ENTRY_SIZE;
    const address = view.getUint32(offset, true);
    if ((address & 0xfff00000) >>> 0 !== MESSAGE_ADDRESS || view.getUint32(offset + 4, true) !== 0) {
      const text = `MSI-X entry ${index}: 0x${address.toString(16)} is not a message address of x86`;
      throw new KhoError('KHO_EINVAL', text, { offset });
    }
    return {
      destination: (address >>> DESTINATION_SHIFT) & 0xff,
      vector: view.getUint32(offset + 8, true) & 0xff,
      masked: (view.getUint32(offset + 12, true) & CONTROL_MASKED) !== 0,
    };
  });
}
