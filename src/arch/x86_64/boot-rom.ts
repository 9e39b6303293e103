import { PAGE_SIZE, type PhysicalAddress } from '../../memblock/index.js';

/**
 * The ROM that starts a loaded kernel without any firmware, in QEMU's `pc` machine: it stands for what purgatory and
 * relocate_kernel() leave behind. A firmware would scribble over memory that was handed over; this writes nothing.
 *
 * The last 64 KiB below 4 GiB, seen at 0xf0000 too. A CPU starts at offset 0xfff0, in real mode.
 *
 * ```text
 *   0x0000  16-bit code: interrupts off, GDT, PAE, identity map, long mode, paging
 *           64-bit code: data segments, rsi = boot_params, rbx = 0 (boot CPU), jump to the kernel's 64-bit entry
 *   0x0100  GDT: null, unused, CS 0x10 (64-bit code), DS 0x18; the 64-bit boot protocol asks for these selectors
 *   0x0120  pointer for lgdt: u16 limit, u32 base
 *   0xfff0  far jump to f000:0000
 * ```
 */
export const BOOT_ROM_SIZE = 0x10000;

const GDT = 0x100;
const GDT_SIZE = 4 * 8;
const GDT_POINTER = GDT + GDT_SIZE;
const RESET = 0xfff0;
/** Where the ROM is seen below 1 MiB: segment 0xf000. */
const SEGMENT = 0xf000;
const LINEAR = SEGMENT * 16;
const CODE_SELECTOR = 0x10;
const DATA_SELECTOR = 0x18;
/** Present, accessed (so the CPU need not write it), code, readable, long mode, 4 KiB granularity. */
const CODE_DESCRIPTOR = 0x00af9b000000ffffn;
/** Present, accessed, data, writable, 32-bit, 4 KiB granularity. */
const DATA_DESCRIPTOR = 0x00cf93000000ffffn;

/** The identity map's tables, in this order: one PML4 page, one page of page-directory pointers. */
export const IDENTITY_MAP_SIZE = 2 * PAGE_SIZE;
const ENTRIES = PAGE_SIZE / 8;
const PRESENT_WRITABLE = 0x3n;
const ACCESSED = 0x20n;
const DIRTY = 0x40n;
const HUGE = 0x80n;

/**
 * Page tables for {@link BootRomInput.identityMap}: every address below 512 GiB maps to itself, in pages of 1 GiB (the CPU
 * must have `pdpe1gb`; QEMU's `-cpu max` does). `address` is where they will lie, a page below 4 GiB.
 */
export function encodeIdentityMap(address: PhysicalAddress): Uint8Array {
  const words = new BigUint64Array(IDENTITY_MAP_SIZE / 8);
  words[0] = BigInt(address + PAGE_SIZE) | PRESENT_WRITABLE | ACCESSED;
  for (let gigabyte = 0; gigabyte < ENTRIES; gigabyte++) {
    words[ENTRIES + gigabyte] = (BigInt(gigabyte) << 30n) | PRESENT_WRITABLE | ACCESSED | DIRTY | HUGE;
  }
  return new Uint8Array(words.buffer);
}

export interface BootRomInput {
  /** The kernel's 64-bit entry point. */
  readonly entry: number;
  readonly bootParams: PhysicalAddress;
  /** A PML4 page below 4 GiB. */
  readonly identityMap: PhysicalAddress;
}

/** The ROM's {@link BOOT_ROM_SIZE} bytes. */
export function encodeBootRom({ entry, bootParams, identityMap }: BootRomInput): Uint8Array {
  const rom = new Uint8Array(BOOT_ROM_SIZE);
  const view = new DataView(rom.buffer);
  let at = 0;
  const code = (...bytes: number[]): void => {
    rom.set(bytes, at);
    at += bytes.length;
  };
  const u16 = (value: number): void => {
    view.setUint16(at, value, true);
    at += 2;
  };
  const u32 = (value: number): void => {
    view.setUint32(at, value, true);
    at += 4;
  };
  const u64 = (value: number): void => {
    view.setBigUint64(at, BigInt(value), true);
    at += 8;
  };

  code(0xfa, 0xfc); // cli; cld
  code(0x66, 0x2e, 0x0f, 0x01, 0x16); // lgdt cs:[GDT_POINTER], with a 32-bit base
  u16(GDT_POINTER);
  code(0x0f, 0x20, 0xe0, 0x66, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0); // cr4 |= PAE
  code(0x66, 0xb8); // cr3 = identity map
  u32(identityMap);
  code(0x0f, 0x22, 0xd8);
  code(0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32); // rdmsr EFER
  code(0x66, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30); // EFER |= LME
  code(0x0f, 0x20, 0xc0, 0x66, 0x25, 0xff, 0xff, 0xff, 0x9f); // cr0 &= ~(CD | NW): caches on
  code(0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0); // cr0 |= PG | PE
  code(0x66, 0xea); // far jump into long mode: the instruction after it
  u32(LINEAR + at + 6);
  u16(CODE_SELECTOR);
  code(0xb8, DATA_SELECTOR, 0x00, 0x00, 0x00); // mov eax, DATA_SELECTOR
  code(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x8e, 0xe0, 0x8e, 0xe8); // ds, es, ss, fs, gs
  code(0x31, 0xdb); // xor ebx, ebx
  code(0x48, 0xbe); // mov rsi, boot_params
  u64(bootParams);
  code(0x48, 0xb8); // mov rax, entry
  u64(entry);
  code(0xff, 0xe0); // jmp rax

  view.setBigUint64(GDT + CODE_SELECTOR, CODE_DESCRIPTOR, true);
  view.setBigUint64(GDT + DATA_SELECTOR, DATA_DESCRIPTOR, true);
  view.setUint16(GDT_POINTER, GDT_SIZE - 1, true);
  view.setUint32(GDT_POINTER + 2, LINEAR + GDT, true);

  at = RESET;
  code(0xea); // far jump to SEGMENT:0
  u16(0);
  u16(SEGMENT);
  return rom;
}
