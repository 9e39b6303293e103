import {
  after,
  PAGE_SIZE,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../../memblock/index.js';
import type { FirmwareRange } from '../architecture.js';
import { SETUP_HEADER } from './bz-image.js';
import { E820_TYPE_RAM, E820_TYPE_RESERVED } from './e820.js';

/**
 * struct boot_params, the "zero page" that a 64-bit kernel is entered with in RSI (Documentation/arch/x86/boot.rst and
 * zero-page.rst). One page; only the fields that matter here are named.
 */
export const BOOT_PARAMS_SIZE = PAGE_SIZE;
const E820_ENTRIES = 0x1e8; // u8
export const BOOT_FLAG = 0x1fe; // u16
export const HEADER_MAGIC = 0x202; // u32
const VERSION = 0x206; // u16
const TYPE_OF_LOADER = 0x210; // u8
const LOADFLAGS = 0x211; // u8
const RAMDISK_IMAGE = 0x218; // u32, its upper half at 0x0c0
const RAMDISK_SIZE = 0x21c; // u32, its upper half at 0x0c4
const EXT_RAMDISK_IMAGE = 0x0c0; // u32
const EXT_RAMDISK_SIZE = 0x0c4; // u32
const CMD_LINE_PTR = 0x228; // u32, its upper half at 0x0c8
const EXT_CMD_LINE_PTR = 0x0c8; // u32
const SETUP_DATA = 0x250; // u64
const E820_TABLE = 0x2d0; // 128 entries {u64 addr, u64 size, u32 type}
const E820_ENTRY_SIZE = 20;
const E820_MAX_ENTRIES = 128;

const BOOT_FLAG_VALUE = 0xaa55;
const HDRS = 0x53726448; // "HdrS"
/** Protocol 2.15 (Linux 5.5 and later). */
const PROTOCOL_VERSION = 0x020f;
/** Loader 0xd, version 0: kexec. */
const LOADER_KEXEC = 0xd0;
/** COMMAND_LINE_SIZE of x86, with the NUL. */
export const COMMAND_LINE_SIZE = 2048;

export interface BootParams {
  readonly firmware: readonly FirmwareRange[];
  readonly commandLineAddress: PhysicalAddress;
  /** First node of the setup_data list, 0 for none. */
  readonly setupData: PhysicalAddress;
}

/** What a loader adds for a kernel: both or neither are absent without one. */
export interface KernelParams {
  /** The kernel's own setup header, from {@link SETUP_HEADER} on. */
  readonly setupHeader?: Uint8Array;
  readonly ramdisk?: { readonly address: PhysicalAddress; readonly size: number };
}

export function encodeBootParams({
  firmware,
  commandLineAddress,
  setupData,
  setupHeader,
  ramdisk,
}: BootParams & KernelParams): Uint8Array {
  const bytes = new Uint8Array(BOOT_PARAMS_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(BOOT_FLAG, BOOT_FLAG_VALUE, true);
  view.setUint32(HEADER_MAGIC, HDRS, true);
  view.setUint16(VERSION, PROTOCOL_VERSION, true);
  if (setupHeader !== undefined) bytes.set(setupHeader, SETUP_HEADER);
  view.setUint8(TYPE_OF_LOADER, LOADER_KEXEC);
  view.setUint8(LOADFLAGS, 0);
  const split = (low: number, high: number, value: number): void => {
    view.setUint32(low, value % 2 ** 32, true);
    view.setUint32(high, Math.floor(value / 2 ** 32), true);
  };
  split(CMD_LINE_PTR, EXT_CMD_LINE_PTR, commandLineAddress);
  split(RAMDISK_IMAGE, EXT_RAMDISK_IMAGE, ramdisk?.address ?? 0);
  split(RAMDISK_SIZE, EXT_RAMDISK_SIZE, ramdisk?.size ?? 0);
  view.setBigUint64(SETUP_DATA, BigInt(setupData), true);
  view.setUint8(E820_ENTRIES, firmware.length);
  for (const [index, { base, size, usable }] of firmware.entries()) {
    const at = E820_TABLE + index * E820_ENTRY_SIZE;
    view.setBigUint64(at, BigInt(base), true);
    view.setBigUint64(at + 8, BigInt(size), true);
    view.setUint32(at + 16, usable ? E820_TYPE_RAM : E820_TYPE_RESERVED, true);
  }
  return bytes;
}

/** Reads boot_params, or undefined if the page is none: cheap for pages that do not have both magic numbers. */
export function decodeBootParams(page: Uint8Array): BootParams | undefined {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  if (view.getUint32(HEADER_MAGIC, true) !== HDRS || view.getUint16(BOOT_FLAG, true) !== BOOT_FLAG_VALUE) return;
  const entries = view.getUint8(E820_ENTRIES);
  if (entries === 0 || entries > E820_MAX_ENTRIES) return;
  const firmware: FirmwareRange[] = [];
  for (let index = 0; index < entries; index++) {
    const at = E820_TABLE + index * E820_ENTRY_SIZE;
    const base = Number(view.getBigUint64(at, true));
    const size = Number(view.getBigUint64(at + 8, true));
    if (base + size > PHYS_ADDR_MAX) return;
    firmware.push({ base: physicalAddress(base), size, usable: view.getUint32(at + 16, true) === E820_TYPE_RAM });
  }
  const setupData = Number(view.getBigUint64(SETUP_DATA, true));
  const commandLine = view.getUint32(EXT_CMD_LINE_PTR, true) * 2 ** 32 + view.getUint32(CMD_LINE_PTR, true);
  if (setupData > PHYS_ADDR_MAX || commandLine > PHYS_ADDR_MAX) return;
  return {
    firmware,
    commandLineAddress: physicalAddress(commandLine),
    setupData: physicalAddress(setupData),
  };
}

/**
 * The NUL-terminated command line at `address`; at most {@link COMMAND_LINE_SIZE} bytes. Read a page at a time, because
 * what follows its last page may be no memory, or not in the image.
 */
export function readCommandLine(memory: PhysicalMemory, address: PhysicalAddress): string {
  if (address === 0) return '';
  const text = new Uint8Array(COMMAND_LINE_SIZE);
  for (let length = 0; length < COMMAND_LINE_SIZE; ) {
    const at = after(address, length);
    const part = text.subarray(length, Math.min(COMMAND_LINE_SIZE, length + PAGE_SIZE - (at % PAGE_SIZE)));
    memory.readInto(at, part);
    const end = part.indexOf(0);
    if (end >= 0) return new TextDecoder().decode(text.subarray(0, length + end));
    length += part.length;
  }
  return new TextDecoder().decode(text);
}
