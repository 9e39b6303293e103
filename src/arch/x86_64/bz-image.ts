import { KhoError } from '../../errors.js';
import { alignUp, PAGE_SIZE } from '../../memblock/index.js';

/**
 * A bzImage as far as a loader must know it (Documentation/arch/x86/boot.rst, boot protocol 2.15, Linux 7.2).
 *
 * ```text
 *   0       boot sector and setup code, setup_sects + 1 sectors of 512 bytes
 *   0x1f1     setup header: copied into boot_params at the same offset, up to 0x202 + the byte at 0x201
 *   (setup_sects + 1) * 512
 *           protected-mode kernel, syssize * 16 bytes; its 64-bit entry is 0x200 bytes in
 * ```
 *
 * All fields are little-endian.
 */
export interface BzImage {
  /** The setup header, from {@link SETUP_HEADER} on. */
  readonly setupHeader: Uint8Array;
  /** The protected-mode kernel: what is loaded. */
  readonly kernel: Uint8Array;
  /** Bytes that the kernel needs at its place while it unpacks itself: whole pages, at least those of `kernel`. */
  readonly memorySize: number;
  /** Required alignment of its place, a power of two. */
  readonly alignment: number;
  /** The lowest address that kexec gives it: the one it was linked for, at least 1 MiB. */
  readonly minimumAddress: number;
  /** Characters of command line that it takes, without the NUL. */
  readonly commandLineSize: number;
  /** `7.2.13 (builder@host) #1 SMP …`, or empty. */
  readonly version: string;
}

/** Offset of the setup header in the file and in boot_params. */
export const SETUP_HEADER = 0x1f1;
/** The 64-bit entry point, from the beginning of the protected-mode kernel. */
export const ENTRY_64 = 0x200;

const SECTOR = 512;
const SETUP_SECTS = 0x1f1; // u8, 0 means 4
const SYSSIZE = 0x1f4; // u32, units of 16 bytes
const BOOT_FLAG = 0x1fe; // u16
const JUMP_OFFSET = 0x201; // u8: the setup header ends this many bytes after 0x202
const HEADER = 0x202; // u32
const VERSION = 0x206; // u16
const KERNEL_VERSION = 0x20e; // u16, offset of the text less 0x200
const LOADFLAGS = 0x211; // u8
const KERNEL_ALIGNMENT = 0x230; // u32
const XLOADFLAGS = 0x236; // u16
const CMDLINE_SIZE = 0x238; // u32
const PREF_ADDRESS = 0x258; // u64
const INIT_SIZE = 0x260; // u32
/** The last field that is read ends here. */
const HEADER_END = 0x264;

const BOOT_FLAG_VALUE = 0xaa55;
const HDRS = 0x53726448; // "HdrS"
/** Protocol 2.12 (Linux 3.8) brought xloadflags. */
const MINIMUM_VERSION = 0x020c;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1;
const XLF_CAN_BE_LOADED_ABOVE_4G = 2;
/** kexec's lowest address for a kernel. */
const MIN_KERNEL_LOAD_ADDR = 0x100000;

/**
 * Reads a bzImage with the checks that kexec_file_load() makes of one (7.2), and one more: that it is whole.
 * KHO_EINVAL says what `file` is or lacks.
 */
export function parseBzImage(bytes: Uint8Array, file: string): BzImage {
  const refuse = (why: string): never => {
    throw new KhoError('KHO_EINVAL', `${file} cannot be loaded: ${why}`, { file });
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (
    bytes.length < HEADER_END ||
    view.getUint16(BOOT_FLAG, true) !== BOOT_FLAG_VALUE ||
    view.getUint32(HEADER, true) !== HDRS
  ) {
    refuse(`it is not a bzImage${whatElse(bytes)}`);
  }
  const version = view.getUint16(VERSION, true);
  if (version < MINIMUM_VERSION) {
    refuse(`it speaks boot protocol ${version >> 8}.${version & 0xff}; a 64-bit entry needs 2.12 (Linux 3.8)`);
  }
  if ((view.getUint8(LOADFLAGS) & LOADED_HIGH) === 0) refuse('it is a zImage, not a bzImage (LOADED_HIGH is not set)');
  const xloadflags = view.getUint16(XLOADFLAGS, true);
  if ((xloadflags & XLF_KERNEL_64) === 0) {
    refuse('it has no 64-bit entry (XLF_KERNEL_64 is not set): a 32-bit kernel, which KHO does not know');
  }
  if ((xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) === 0) {
    refuse('it is not relocatable (XLF_CAN_BE_LOADED_ABOVE_4G is not set): build it with CONFIG_RELOCATABLE');
  }
  const start = ((view.getUint8(SETUP_SECTS) || 4) + 1) * SECTOR;
  const end = start + view.getUint32(SYSSIZE, true) * 16;
  if (end <= start || bytes.length < end) refuse(`it is cut short: ${bytes.length} of ${end} bytes`);
  const alignment = view.getUint32(KERNEL_ALIGNMENT, true);
  if (alignment < PAGE_SIZE || (alignment & (alignment - 1)) !== 0) {
    refuse(`its kernel_alignment is ${alignment}, no power of two of at least a page`);
  }
  const preferred = view.getBigUint64(PREF_ADDRESS, true);
  if (preferred > BigInt(Number.MAX_SAFE_INTEGER)) refuse('its pref_address is no address');
  const headerEnd = HEADER + view.getUint8(JUMP_OFFSET);
  return {
    setupHeader: bytes.slice(SETUP_HEADER, headerEnd),
    kernel: bytes.subarray(start, end),
    memorySize: alignUp(Math.max(view.getUint32(INIT_SIZE, true), end - start), PAGE_SIZE),
    alignment,
    minimumAddress: Math.max(Number(preferred), MIN_KERNEL_LOAD_ADDR),
    commandLineSize: view.getUint32(CMDLINE_SIZE, true),
    version: textAt(bytes, view.getUint16(KERNEL_VERSION, true) + 0x200, start),
  };
}

function textAt(bytes: Uint8Array, start: number, limit: number): string {
  if (start === 0x200 || start >= limit) return '';
  const end = bytes.indexOf(0, start);
  return Buffer.from(bytes.subarray(start, end < 0 ? limit : Math.min(end, limit))).toString('latin1');
}

/** Other files that people take for one. */
function whatElse(bytes: Uint8Array): string {
  const starts = (...magic: number[]): boolean => magic.every((byte, index) => bytes[index] === byte);
  if (starts(0x7f, 0x45, 0x4c, 0x46)) return ' but an ELF file (a vmlinux?); give arch/x86/boot/bzImage';
  if (starts(0x1f, 0x8b)) return ' but gzip data; unpack it first';
  if (starts(0x30, 0x37, 0x30, 0x37, 0x30)) return ' but a cpio archive (an initrd?)';
  if (bytes.length >= 0x3c && Buffer.from(bytes.subarray(0x38, 0x3c)).toString('latin1') === 'ARM\x64') {
    return ' but an arm64 Image';
  }
  if (bytes.length < HEADER_END) return `: ${bytes.length} bytes are too few for a setup header`;
  return ' (no boot flag and "HdrS" in its setup header)';
}
