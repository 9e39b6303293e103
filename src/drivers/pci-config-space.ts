/**
 * The configuration space of a PCI Express function: 4 KiB, little-endian (PCI Express Base Specification, chapter 7).
 *
 * ```text
 *   0x000  vendor, device | command, status | revision, class | header type
 *   0x010  six base address registers (BAR)
 *   0x02c  subsystem vendor and device
 *   0x034  offset of the first capability --> id, next | ...  --> id, next | ... --> 0
 *   0x100  first extended capability      --> id:16, version:4, next:12 | ...    --> 0
 *   0x1000
 * ```
 */
import { KhoError } from '../driver.js';

export const CONFIG_SPACE_SIZE = 4096;
/**
 * What sysfs shows of a configuration space: the header alone to who may not read more, then what a conventional PCI
 * function has, then all of a PCI Express function.
 */
export const CONFIG_SPACE_SIZES = [64, 256, CONFIG_SPACE_SIZE] as const;

/** The device's memory: the MSI-X table of at most 2048 entries, its pending bits, and registers before and after. */
export const BAR_SIZE = 0x10000;
const MSIX_TABLE = 0x2000;
const MSIX_PENDING_BITS = MSIX_TABLE + 2048 * 16;

/** As sysfs names a function: segment (4 digits or more; of VMD 5), bus, device, function. */
export const PCI_FUNCTION_NAME = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

const VENDOR = 0x00;
const DEVICE = 0x02;
const COMMAND = 0x04;
const STATUS = 0x06;
const REVISION = 0x08;
const CLASS = 0x09; // 24 bits
const HEADER_TYPE = 0x0e;
const BAR = 0x10;
const SUBSYSTEM_VENDOR = 0x2c;
const SUBSYSTEM_DEVICE = 0x2e;
const CAPABILITY_POINTER = 0x34;
const INTERRUPT_PIN = 0x3d;
const CAPABILITIES = 0x40;
const EXTENDED_CAPABILITIES = 0x100;

/** Memory decoding, bus mastering, no legacy interrupt: what a driver enables that uses MSI-X. */
const COMMAND_MEMORY = 0x0002;
const COMMAND_MASTER = 0x0004;
const COMMAND_INTX_DISABLE = 0x0400;
/** The status bit that says that {@link CAPABILITY_POINTER} is valid. */
const STATUS_CAPABILITY_LIST = 0x0010;
const BAR_MEMORY_64BIT = 0x4;

export const CAPABILITY_POWER_MANAGEMENT = 0x01;
export const CAPABILITY_MSI = 0x05;
export const CAPABILITY_PCI_EXPRESS = 0x10;
export const CAPABILITY_MSIX = 0x11;
export const EXTENDED_CAPABILITY_AER = 0x0001;
export const EXTENDED_CAPABILITY_SERIAL_NUMBER = 0x0003;

const MSIX_ENABLE = 0x8000;
const MSIX_SIZE_MASK = 0x07ff;
/** The capability: header and control, table, pending bits. */
const MSIX_CAPABILITY_SIZE = 12;
/** Multiple Message Capable: log2 of the vectors, in bits 1 to 3 of the control word. */
const MSI_CAPABLE_SHIFT = 1;
const MSI_CAPABLE_MASK = 7;
/** 32 vectors; 6 and 7 are reserved. */
const MSI_CAPABLE_MAX = 5;
/** The header type without the bit that says that the device has several functions. */
const HEADER_TYPE_MASK = 0x7f;

/** One element of a capability list. */
export interface Capability {
  readonly id: number;
  /** Byte offset in the configuration space. */
  readonly offset: number;
}

/** The MSI-X capability: where the table and the pending bits lie in the device's memory. */
export interface MsixCapability {
  /** Entries of the table, 1 to 2048. */
  readonly vectors: number;
  readonly enabled: boolean;
  /** The base address register that the table lies behind, and its offset there. */
  readonly tableBar: number;
  readonly tableOffset: number;
}

export interface FunctionIdentity {
  readonly vendor: number;
  readonly device: number;
  readonly subsystemVendor: number;
  readonly subsystemDevice: number;
  readonly revision: number;
  /** Base class, sub-class and programming interface: 24 bits. */
  readonly classCode: number;
  readonly serialNumber: bigint;
  /** Where the host put the device's memory, below 2^52 and a multiple of {@link BAR_SIZE}. */
  readonly bar0: number;
  /** Entries of the MSI-X table, 1 to 2048. */
  readonly vectors: number;
}

/** The configuration space of a function with one 64-bit memory BAR, power management, PCI Express and MSI-X. */
export function buildConfigSpace(identity: FunctionIdentity): Uint8Array {
  const config = new Uint8Array(CONFIG_SPACE_SIZE);
  const view = viewOf(config);
  view.setUint16(VENDOR, identity.vendor, true);
  view.setUint16(DEVICE, identity.device, true);
  view.setUint16(COMMAND, COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE, true);
  view.setUint16(STATUS, STATUS_CAPABILITY_LIST, true);
  view.setUint32(REVISION, identity.revision, true);
  view.setUint16(CLASS, identity.classCode, true);
  view.setUint8(CLASS + 2, identity.classCode >>> 16);
  view.setUint32(BAR, (identity.bar0 | BAR_MEMORY_64BIT) >>> 0, true);
  view.setUint32(BAR + 4, Math.floor(identity.bar0 / 2 ** 32), true);
  view.setUint16(SUBSYSTEM_VENDOR, identity.subsystemVendor, true);
  view.setUint16(SUBSYSTEM_DEVICE, identity.subsystemDevice, true);

  const powerManagement = CAPABILITIES;
  const pciExpress = powerManagement + 8;
  const msix = pciExpress + 60;
  view.setUint8(CAPABILITY_POINTER, powerManagement);
  view.setUint16(powerManagement, CAPABILITY_POWER_MANAGEMENT | (pciExpress << 8), true);
  view.setUint16(powerManagement + 2, 0x0003, true); // version 3, in D0
  view.setUint16(pciExpress, CAPABILITY_PCI_EXPRESS | (msix << 8), true);
  view.setUint16(pciExpress + 2, 0x0002, true); // version 2, an endpoint
  view.setUint16(msix, CAPABILITY_MSIX, true);
  view.setUint16(msix + 2, MSIX_ENABLE | (identity.vectors - 1), true);
  view.setUint32(msix + 4, MSIX_TABLE, true); // the low three bits are the BAR: 0
  view.setUint32(msix + 8, MSIX_PENDING_BITS, true);

  const aer = EXTENDED_CAPABILITIES;
  const serialNumber = aer + 0x48;
  view.setUint32(aer, EXTENDED_CAPABILITY_AER | (2 << 16) | (serialNumber << 20), true);
  view.setUint32(serialNumber, EXTENDED_CAPABILITY_SERIAL_NUMBER | (1 << 16), true);
  view.setBigUint64(serialNumber + 4, identity.serialNumber, true);
  return config;
}

/** How a function interrupts: the best of the ways that it has, as a VMM chooses for it. */
export interface FunctionInterrupts {
  readonly kind: 'msix' | 'msi' | 'intx' | 'none';
  /** Vectors that the function can have: 1 to 2048, 1 to 32, 1, or 0. */
  readonly vectors: number;
}

/** What a configuration space says the function is. */
export interface FunctionHeader {
  readonly vendor: number;
  readonly device: number;
  /** Base class, sub-class and programming interface: 24 bits. */
  readonly classCode: number;
  /** 0: an endpoint. 1: a bridge between PCI buses. 2: CardBus. */
  readonly headerType: number;
}

/** The first fields of a configuration space, which even 64 bytes have. */
export function functionHeader(config: Uint8Array): FunctionHeader {
  const view = viewOf(config);
  return {
    vendor: view.getUint16(VENDOR, true),
    device: view.getUint16(DEVICE, true),
    classCode: view.getUint16(CLASS, true) | (view.getUint8(CLASS + 2) << 16),
    headerType: view.getUint8(HEADER_TYPE) & HEADER_TYPE_MASK,
  };
}

/** A copy with other ids: those of a virtual function read as 0xffff, because the physical function tells them. */
export function withIds(config: Uint8Array, ids: { readonly vendor: number; readonly device: number }): Uint8Array {
  const copy = config.slice();
  const view = viewOf(copy);
  view.setUint16(VENDOR, ids.vendor, true);
  view.setUint16(DEVICE, ids.device, true);
  return copy;
}

/** Whether there is a capability list to be followed: a header alone may tell of one, but not show it. */
export function hasCapabilities(config: Uint8Array): boolean {
  const claimed = (viewOf(config).getUint16(STATUS, true) & STATUS_CAPABILITY_LIST) !== 0;
  return claimed && config.length > CAPABILITIES;
}

/** The capability list. KHO_EINVAL, with the offset, if it leaves its part of the space or runs in a circle. */
export function* capabilities(config: Uint8Array): Generator<Capability, void> {
  const view = viewOf(config);
  if (!hasCapabilities(config)) return;
  // The two lowest bits of each pointer are reserved.
  const first = view.getUint8(CAPABILITY_POINTER) & 0xfc;
  yield* followList(first, CAPABILITIES, EXTENDED_CAPABILITIES, (offset) => ({
    id: view.getUint8(offset),
    next: view.getUint8(offset + 1) & 0xfc,
  }));
}

/** The list of extended capabilities, from offset 0x100 on. KHO_EINVAL as for {@link capabilities}. */
export function* extendedCapabilities(config: Uint8Array): Generator<Capability, void> {
  const view = viewOf(config);
  if (config.length < CONFIG_SPACE_SIZE || view.getUint32(EXTENDED_CAPABILITIES, true) === 0) return;
  yield* followList(EXTENDED_CAPABILITIES, EXTENDED_CAPABILITIES, CONFIG_SPACE_SIZE, (offset) => {
    const header = view.getUint32(offset, true);
    return { id: header & 0xffff, next: (header >>> 20) & 0xffc };
  });
}

/** The function's MSI-X capability. KHO_EINVAL if it has none. */
export function msixCapability(config: Uint8Array): MsixCapability {
  const found = findMsix(config);
  if (found !== undefined) return found;
  throw new KhoError('KHO_EINVAL', 'the configuration space has no MSI-X capability');
}

/**
 * How the function interrupts, by its configuration space alone: MSI-X before MSI before the wire of a conventional PCI
 * device. Of 64 bytes only the wire can be seen. KHO_EINVAL as for {@link capabilities}.
 */
export function functionInterrupts(config: Uint8Array): FunctionInterrupts {
  const msix = findMsix(config);
  if (msix !== undefined) return { kind: 'msix', vectors: msix.vectors };
  const view = viewOf(config);
  for (const { id, offset } of capabilities(config)) {
    if (id !== CAPABILITY_MSI) continue;
    const capable = (view.getUint16(offset + 2, true) >>> MSI_CAPABLE_SHIFT) & MSI_CAPABLE_MASK;
    return { kind: 'msi', vectors: 2 ** Math.min(capable, MSI_CAPABLE_MAX) };
  }
  return view.getUint8(INTERRUPT_PIN) === 0 ? { kind: 'none', vectors: 0 } : { kind: 'intx', vectors: 1 };
}

function findMsix(config: Uint8Array): MsixCapability | undefined {
  for (const { id, offset } of capabilities(config)) {
    if (id !== CAPABILITY_MSIX) continue;
    if (offset + MSIX_CAPABILITY_SIZE > EXTENDED_CAPABILITIES) {
      const text = `the MSI-X capability at offset 0x${offset.toString(16)} leaves its part of the space`;
      throw new KhoError('KHO_EINVAL', text, { offset });
    }
    const view = viewOf(config);
    const control = view.getUint16(offset + 2, true);
    const table = view.getUint32(offset + 4, true);
    return {
      vectors: (control & MSIX_SIZE_MASK) + 1, // stored less one
      enabled: (control & MSIX_ENABLE) !== 0,
      tableBar: table & 7,
      tableOffset: table - (table & 7),
    };
  }
  return undefined;
}

function* followList(
  first: number,
  start: number,
  end: number,
  read: (offset: number) => { id: number; next: number },
): Generator<Capability, void> {
  const visited = new Set<number>();
  for (let offset = first; offset !== 0; ) {
    if (offset < start || offset + 4 > end || visited.has(offset)) {
      const text = `the capability list is damaged: it leads to offset 0x${offset.toString(16)}`;
      throw new KhoError('KHO_EINVAL', text, { offset });
    }
    visited.add(offset);
    const { id, next } = read(offset);
    yield { id, offset };
    offset = next;
  }
}

/** Views are for speed elsewhere; here the format's widths and byte order matter more. KHO_EINVAL unless 64, 256 or 4096 bytes. */
function viewOf(config: Uint8Array): DataView {
  if (!CONFIG_SPACE_SIZES.some((size) => size === config.length)) {
    const text = `a configuration space has ${CONFIG_SPACE_SIZES.join(', ')} bytes, not ${config.length}`;
    throw new KhoError('KHO_EINVAL', text, { size: config.length });
  }
  return new DataView(config.buffer, config.byteOffset, config.length);
}
