import {
  CONFIG_SPACE_SIZES,
  functionHeader,
  functionInterrupts,
  PCI_FUNCTION_NAME,
  withIds,
} from '../drivers/pci-config-space.js';
import { KhoError } from '../errors.js';
import { hex } from '../memblock/index.js';
import type { CapturedFiles } from './captured-files.js';

export const PCI_DEVICES = 'sys/bus/pci/devices';
const HEADER_SIZE = CONFIG_SPACE_SIZES[0];
/** vfio_pci_core refuses all but header type 0; and nobody assigns a host bridge. */
const ENDPOINT = 0;
/** Of CardBus bridges; the kernel shows no function with a type above it (pci_setup_device() in drivers/pci/probe.c). */
const HEADER_TYPE_MAX = 2;
const BRIDGE_CLASS = 0x06;
const NO_ID = 0xffff;

/** A function that could be assigned to a guest. */
export interface PciFunction {
  /** `0000:3b:00.0`. */
  readonly name: string;
  /** 64, 256 or 4096 bytes: as much as the reader of the files was shown. */
  readonly config: Uint8Array;
  readonly group?: number;
}

export interface PciFunctions {
  readonly functions: readonly PciFunction[];
  readonly notices: readonly string[];
}

/**
 * Reads the endpoints among the PCI functions; bridges are left out, and so are functions that do not answer. KHO_EINVAL,
 * naming the file, for a configuration space that is cut, damaged, or not that of the device that `vendor` and `device` name.
 */
export function readPciFunctions(files: CapturedFiles): PciFunctions {
  const notices: string[] = [];
  const functions: PciFunction[] = [];
  let headersOnly = 0;
  for (const name of files.list(PCI_DEVICES)) {
    const path = `${PCI_DEVICES}/${name}`;
    if (!PCI_FUNCTION_NAME.test(name))
      throw files.invalid(path, 'is not the name of a PCI function, such as 0000:3b:00.0');
    if (!files.isDirectory(path)) {
      throw files.invalid(path, files.unreadable.has(path) ? files.absence(path) : 'is no directory');
    }
    const config = endpointConfig(files, path, notices);
    if (config === undefined) continue;
    if (config.length === HEADER_SIZE) headersOnly++;
    const group = iommuGroup(files, path);
    functions.push({ name, config, ...(group !== undefined && { group }) });
  }
  if (headersOnly > 0) {
    notices.push(
      `${headersOnly} of ${functions.length} PCI functions show 64 bytes of their configuration space, without capabilities ` +
        'and so without MSI-X: only root is shown more',
    );
  }
  return { functions, notices };
}

/** The configuration space with the function's own ids; undefined where there is nothing to be assigned. */
function endpointConfig(files: CapturedFiles, path: string, notices: string[]): Uint8Array | undefined {
  const file = `${path}/config`;
  const config = files.bytes(file);
  if (config === undefined) throw files.invalid(file, files.absence(file));
  if (config.length < HEADER_SIZE)
    throw files.invalid(file, `is cut: ${config.length} bytes, not even the header's 64`);
  if (config.every((byte) => byte === 0xff)) {
    notices.push(`${files.name(path)} is left out: the device does not answer (powered off, or gone)`);
    return undefined;
  }
  if (!CONFIG_SPACE_SIZES.some((size) => size === config.length)) {
    throw files.invalid(file, `is cut: ${config.length} bytes; expected ${CONFIG_SPACE_SIZES.join(', ')}`);
  }
  const header = functionHeader(config.subarray(0, HEADER_SIZE));
  const [vendor, device] = ['vendor', 'device'].map((name) => id(files, `${path}/${name}`));
  // A virtual function has no ids of its own there; vfio-pci shows a guest those that the kernel knows.
  const virtual = header.vendor === NO_ID && header.device === NO_ID && vendor !== undefined && device !== undefined;
  for (const [name, said] of [['vendor', vendor] as const, ['device', device] as const]) {
    if (virtual || said === undefined || said === header[name]) continue;
    const other = `${hex(said)} in ${files.name(`${path}/${name}`)}`;
    throw files.invalid(file, `is of another device: ${name} ${hex(header[name])}, but ${other}`);
  }
  if (header.headerType > HEADER_TYPE_MAX) {
    throw files.invalid(file, `is damaged: header type ${hex(header.headerType)} at offset 0xe; expected 0, 1 or 2`);
  }
  // Only now: in a damaged space these bytes would make a bridge of any device, and nobody would miss it.
  if (header.headerType !== ENDPOINT || header.classCode >>> 16 === BRIDGE_CLASS) return undefined;
  const own = virtual ? withIds(config, { vendor, device }) : config;
  try {
    functionInterrupts(own);
  } catch (error) {
    throw files.invalid(file, `is damaged: ${KhoError.from(error).message}`);
  }
  return own;
}

function id(files: CapturedFiles, path: string): number | undefined {
  const line = files.line(path);
  if (line === undefined) return undefined;
  if (/^0x[0-9a-f]{4}$/.test(line)) return Number(line);
  throw files.invalid(path, `is '${line.slice(0, 60)}'; expected an id such as 0x8086`);
}

function iommuGroup(files: CapturedFiles, path: string): number | undefined {
  const group = files.link(`${path}/iommu_group`);
  if (group === undefined) return undefined;
  if (/^\d{1,9}$/.test(group)) return Number(group);
  throw files.invalid(`${path}/iommu_group`, `leads to '${group.slice(0, 60)}'; expected the number of a group`);
}
