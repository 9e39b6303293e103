import { EXTENDED_CAPABILITY_SERIAL_NUMBER, extendedCapabilities } from '../drivers/pci-config-space.js';
import { tokenizeCommandLine } from '../memblock/index.js';
import type { CapturedMachine } from './captured-machine.js';

/** Words of a command line that the model looks at, and that tell nothing of whose machine it is. */
const KEPT_WORDS: ReadonlySet<string> = new Set(['kho', 'kho_scratch', 'reserve_mem']);
const SERIAL_NUMBER_SIZE = 8;

/**
 * The machine without what may be a secret or tell whose it is: of the command line only what the handover depends on is left,
 * MAC addresses are numbered, serial numbers of PCI Express functions are zero. What kinds of devices there are, the names of
 * interfaces and the kernel's release stay.
 */
export function redacted(machine: CapturedMachine): CapturedMachine {
  const words = tokenizeCommandLine(machine.cmdline).filter(({ name }) => KEPT_WORDS.has(name.replaceAll('-', '_')));
  return {
    ...machine,
    cmdline: words.map(({ name, value }) => (value === undefined ? name : `${name}=${value}`)).join(' '),
    functions: machine.functions.map((item) => ({ ...item, config: withoutSerialNumber(item.config) })),
    interfaces: machine.interfaces.map((item, index) =>
      item.address === undefined ? item : { ...item, address: numberedAddress(item.address, index) },
    ),
    notices: [...machine.notices, 'redacted: command line, MAC addresses, serial numbers of PCI Express functions'],
  };
}

function withoutSerialNumber(config: Uint8Array): Uint8Array {
  const copy = config.slice();
  try {
    for (const { id, offset } of extendedCapabilities(config)) {
      if (id === EXTENDED_CAPABILITY_SERIAL_NUMBER) copy.fill(0, offset + 4, offset + 4 + SERIAL_NUMBER_SIZE);
    }
  } catch {
    // Of a damaged list nothing is sure: then none of its part is kept.
    copy.fill(0, 256);
  }
  return copy;
}

/** Locally administered, of the same length: `02:00:00:00:00:07`. */
function numberedAddress(address: string, index: number): string {
  const bytes = address.split(':').map(() => '00');
  bytes[0] = '02';
  const last = bytes.length - 1;
  if (last > 1) bytes[last - 1] = (index >> 8).toString(16).padStart(2, '0');
  if (last > 0) bytes[last] = (index & 0xff).toString(16).padStart(2, '0');
  return bytes.join(':');
}
