/**
 * A bzImage of a few instructions. A real kernel that kexecs into it hands over everything as it would to Linux, but QEMU
 * ends at the first instruction, so that its RAM is exactly as at the jump: a Linux would soon use what is not preserved.
 *
 *     0x000 ┌───────────────────────────┐
 *     0x1f1 │ setup header              │  what bzImage64_probe() looks at (7.2: arch/x86/kernel/kexec-bzimage64.c)
 *     0x400 ├───────────────────────────┤  (setup_sects + 1) × 512: the protected-mode kernel
 *     0x600 │ 64-bit entry, at + 0x200  │  out 0x501, al; hlt
 *           └───────────────────────────┘
 */

/** QEMU: `-device isa-debug-exit`, at its default port; it ends with status (byte written × 2) + 1. */
export const DEBUG_EXIT_DEVICE = ['-device', 'isa-debug-exit'];
const DEBUG_EXIT_PORT = 0x501;
const DEBUG_EXIT_BYTE = 0x2a;
/** The exit status of a QEMU that came as far as the tiny kernel. Nothing else makes this number. */
export const AT_THE_JUMP = DEBUG_EXIT_BYTE * 2 + 1;

const SECTOR = 512;
const SETUP_SECTS = 1;
const ENTRY_64 = 0x200;
/** The header's fields (Linux: Documentation/arch/x86/boot.rst), and where each is. */
const HEADER = {
  setup_sects: 0x1f1,
  boot_flag: 0x1fe,
  /** A jump over the header; its second byte is where the header ends, counted from 0x202. */
  jump: 0x200,
  header: 0x202,
  version: 0x206,
  loadflags: 0x211,
  initrd_addr_max: 0x22c,
  kernel_alignment: 0x230,
  relocatable_kernel: 0x234,
  xloadflags: 0x236,
  cmdline_size: 0x238,
  pref_address: 0x258,
  init_size: 0x260,
  end: 0x268,
} as const;
const LOADED_HIGH = 1;
/** XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G | XLF_5LEVEL. */
const XLOADFLAGS = 0x01 | 0x02 | 0x20;
const MIB = 2 ** 20;

export function tinyKernel(): Uint8Array {
  const code = Uint8Array.of(
    ...[0xb0, DEBUG_EXIT_BYTE], //                                     mov al, byte
    ...[0x66, 0xba, DEBUG_EXIT_PORT & 0xff, DEBUG_EXIT_PORT >> 8], //  mov dx, port
    0xee, //                                                           out dx, al
    0xfa, //                                                           cli
    0xf4, //                                                           hlt
  );
  const start = (SETUP_SECTS + 1) * SECTOR;
  const image = new Uint8Array(start + 2 * SECTOR);
  const view = new DataView(image.buffer);
  view.setUint8(HEADER.setup_sects, SETUP_SECTS);
  view.setUint16(HEADER.boot_flag, 0xaa55, true);
  view.setUint16(HEADER.jump, 0xeb | ((HEADER.end - HEADER.header) << 8), true);
  image.set(Buffer.from('HdrS'), HEADER.header);
  view.setUint16(HEADER.version, 0x020f, true);
  view.setUint8(HEADER.loadflags, LOADED_HIGH);
  view.setUint32(HEADER.initrd_addr_max, 0x7fffffff, true);
  view.setUint32(HEADER.kernel_alignment, 2 * MIB, true);
  view.setUint8(HEADER.relocatable_kernel, 1);
  view.setUint16(HEADER.xloadflags, XLOADFLAGS, true);
  view.setUint32(HEADER.cmdline_size, 2047, true);
  view.setBigUint64(HEADER.pref_address, BigInt(MIB), true);
  view.setUint32(HEADER.init_size, image.length - start, true);
  image.set(code, start + ENTRY_64);
  return image;
}
