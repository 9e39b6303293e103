import { KhoError } from '../errors.js';
import { hex, PHYS_ADDR_MAX, physicalAddress } from './address.js';
import type { FileExtent } from './file-extent.js';
import type { MemoryRange } from './memory-map.js';

/**
 * An ELF core of physical memory: what QEMU's dump-guest-memory, /proc/vmcore and `khorus inspect --extract` write.
 * ELF64, little-endian, type CORE; only the program headers count (System V ABI, chapter 5; elf(5)).
 *
 * ```text
 *   ELF header, 64 bytes              program header, 56 bytes
 *    0  7f 45 4c 46 "\x7fELF"          0  u32 p_type = 1 (PT_LOAD)
 *    4  u8  class = 2 (64 bits)        4  u32 p_flags
 *    5  u8  data = 1 (little-endian)   8  u64 p_offset    in the file
 *    6  u8  version = 1               16  u64 p_vaddr
 *   16  u16 e_type = 4 (ET_CORE)      24  u64 p_paddr     physical address
 *   18  u16 e_machine = 62 (x86-64)   32  u64 p_filesz    bytes that the file holds
 *   32  u64 e_phoff                   40  u64 p_memsz     bytes of memory
 *   40  u64 e_shoff                   48  u64 p_align
 *   52  u16 e_ehsize = 64
 *   54  u16 e_phentsize = 56
 *   56  u16 e_phnum, or 0xffff: then it is sh_info (at 44) of the section header at e_shoff
 * ```
 *
 * Memory that a segment has beyond p_filesz exists, but is not in the file: it is unbacked.
 */
export const ELF_MAGIC = 0x464c457f;
export const ELF_HEADER_SIZE = 64;
export const ELF_PROGRAM_HEADER_SIZE = 56;
export const ELF_CLASS_64 = 2;
export const ELF_DATA_LITTLE = 1;
export const ELF_VERSION = 1;
export const ELF_TYPE_CORE = 4;
export const ELF_MACHINE_X86_64 = 62;
/** What QEMU writes for the same machine while its CPU is not in 64-bit mode. */
const ELF_MACHINE_386 = 3;
export const ELF_LOAD = 1;
/** Flags of a segment: readable, writable, executable. */
export const ELF_FLAGS_RWX = 7;
/** e_phnum can count no more; this value itself means that another field has the count. */
export const ELF_PHNUM_EXTENDED = 0xffff;

export const E_CLASS = 4;
export const E_DATA = 5;
export const E_IDENT_VERSION = 6;
export const E_TYPE = 16;
export const E_MACHINE = 18;
export const E_VERSION = 20;
export const E_PHOFF = 32;
export const E_SHOFF = 40;
export const E_EHSIZE = 52;
export const E_PHENTSIZE = 54;
export const E_PHNUM = 56;
export const P_TYPE = 0;
export const P_FLAGS = 4;
export const P_OFFSET = 8;
export const P_VADDR = 16;
export const P_PADDR = 24;
export const P_FILESZ = 32;
export const P_MEMSZ = 40;
export const P_ALIGN = 48;
/** More segments than any machine has pieces of memory. */
const SEGMENTS_MAX = 2 ** 20;
const SECTION_HEADER_SIZE = 64;
const SH_INFO = 44;

/** Segments that overlap are compared, up to so many bytes in all: a hostile core must not take for ever. */
const COMPARED_MAX = 2 ** 30;
const COMPARE_STEP = 2 ** 20;

/** Machines as people call them, for messages. */
const MACHINES: Readonly<Record<number, string>> = {
  3: 'i386',
  22: 's390',
  62: 'x86-64',
  183: 'aarch64',
  243: 'riscv',
};

/** What an ELF core says of memory. */
export interface ElfCore {
  /** What the file holds, in ascending order of address, without overlaps. */
  readonly extents: readonly FileExtent[];
  /** All memory, held or not (`backed: false`), in ascending order of address. */
  readonly ranges: readonly MemoryRange[];
}

/** Reads `length` bytes at a file offset; both lie inside the file. */
export type FileReader = (offset: number, length: number) => Uint8Array;

/** Whether a file begins as any ELF file does. */
export function isElf(head: Uint8Array): boolean {
  return head.length >= 4 && viewOf(head).getUint32(0, true) === ELF_MAGIC;
}

/**
 * Reads the headers of an ELF core. Segments may overlap where they hold the same bytes, as the kernel's text does in
 * /proc/vmcore. KHO_EIMAGE says what is wrong: another class, byte order, type or machine; headers or segments beyond
 * the end of the file; segments without physical addresses, outside of the address space, or that contradict one
 * another.
 */
export function readElfCore(read: FileReader, fileSize: number): ElfCore {
  const table = readProgramHeaders(read, fileSize);
  const segments: Segment[] = [];
  for (let at = 0; at < table.byteLength; at += ELF_PROGRAM_HEADER_SIZE) {
    if (table.getUint32(at + P_TYPE, true) !== ELF_LOAD) continue;
    segments.push(readSegment(table, at, fileSize));
  }
  if (segments.every(({ memorySize }) => memorySize === 0)) {
    throw bad('holds no memory: it has no segment of type PT_LOAD', 0);
  }
  const extents = joinSegments(segments, read);
  return { extents, ranges: memoryRanges(segments, extents) };
}

interface Segment extends FileExtent {
  readonly index: number;
  readonly memorySize: number;
}

function readProgramHeaders(read: FileReader, fileSize: number): DataView {
  if (fileSize < ELF_HEADER_SIZE) throw bad(`has ${fileSize} bytes, too few for its header: cut short`, fileSize);
  const header = viewOf(read(0, ELF_HEADER_SIZE));
  const machine = header.getUint16(E_MACHINE, true);
  const wanted: [what: string, at: number, value: number, found: number][] = [
    ['class', E_CLASS, ELF_CLASS_64, header.getUint8(E_CLASS)],
    ['byte order', E_DATA, ELF_DATA_LITTLE, header.getUint8(E_DATA)],
    ['version', E_IDENT_VERSION, ELF_VERSION, header.getUint8(E_IDENT_VERSION)],
    ['type', E_TYPE, ELF_TYPE_CORE, header.getUint16(E_TYPE, true)],
    ['machine', E_MACHINE, ELF_MACHINE_X86_64, machine === ELF_MACHINE_386 ? ELF_MACHINE_X86_64 : machine],
    ['size of a program header', E_PHENTSIZE, ELF_PROGRAM_HEADER_SIZE, header.getUint16(E_PHENTSIZE, true)],
  ];
  for (const [what, at, value, found] of wanted) {
    if (found === value) continue;
    const name = what === 'machine' && found in MACHINES ? ` (${MACHINES[found]})` : '';
    throw bad(`has the ${what} ${found}${name}, expected ${value}: a core of a 64-bit x86 machine is needed`, at);
  }
  const at = Number(header.getBigUint64(E_PHOFF, true));
  let count = header.getUint16(E_PHNUM, true);
  if (count === ELF_PHNUM_EXTENDED) {
    const section = Number(header.getBigUint64(E_SHOFF, true));
    if (section < ELF_HEADER_SIZE || section + SECTION_HEADER_SIZE > fileSize) {
      throw bad(`keeps its number of segments at ${hex(section)}, where the file has no section header`, E_SHOFF);
    }
    count = viewOf(read(section, SECTION_HEADER_SIZE)).getUint32(SH_INFO, true);
  }
  if (count > SEGMENTS_MAX) throw bad(`says that it has ${count} segments, more than ${SEGMENTS_MAX}`, E_PHNUM);
  const size = count * ELF_PROGRAM_HEADER_SIZE;
  if (at + size > fileSize) {
    throw bad(`has ${count} program headers at ${hex(at)}, but ends at ${hex(fileSize)}: cut short`, E_PHOFF);
  }
  return viewOf(read(at, size));
}

function readSegment(table: DataView, at: number, fileSize: number): Segment {
  const index = at / ELF_PROGRAM_HEADER_SIZE;
  const field = (name: string, offset: number): number => {
    const value = table.getBigUint64(at + offset, true);
    if (value > PHYS_ADDR_MAX) throw bad(`has a ${name} of ${hex(value)} in segment ${index}, beyond 2^52`, 0);
    return Number(value);
  };
  const offset = field('p_offset', P_OFFSET);
  const address = field('p_paddr', P_PADDR);
  const size = field('p_filesz', P_FILESZ);
  const memorySize = field('p_memsz', P_MEMSZ);
  if (size > memorySize) {
    throw bad(`holds ${hex(size)} bytes for the ${hex(memorySize)} bytes of memory of segment ${index}`, offset);
  }
  if (size > 0 && offset + size > fileSize) {
    const what = `holds segment ${index} (memory at ${hex(address)}) up to ${hex(offset + size)}`;
    throw bad(`${what}, but ends at ${hex(fileSize)}: cut short`, fileSize);
  }
  if (address + memorySize > PHYS_ADDR_MAX) {
    throw bad(`has segment ${index} at ${hex(address)} with ${hex(memorySize)} bytes, beyond 2^52`, offset);
  }
  return { index, address: physicalAddress(address), offset, size, memorySize };
}

/** What the file holds, each byte of memory once. */
function joinSegments(segments: readonly Segment[], read: FileReader): FileExtent[] {
  const joined: { address: number; offset: number; size: number; index: number }[] = [];
  let compared = 0;
  for (const { address, offset, size, index } of [...segments].sort((a, b) => a.address - b.address)) {
    if (size === 0) continue;
    const last = joined.at(-1);
    const common = last === undefined ? 0 : Math.min(last.address + last.size, address + size) - address;
    if (last === undefined || common < 0 || (common === 0 && last.offset + last.size !== offset)) {
      joined.push({ address, offset, size, index });
      continue;
    }
    const there = last.offset + (address - last.address);
    if (there !== offset && common > 0) {
      compared += common;
      if (compared > COMPARED_MAX || !sameBytes(read, there, offset, common)) {
        const hint = address === 0 ? ' (a core of a process has no physical addresses)' : '';
        throw bad(`has two segments, ${last.index} and ${index}, for the memory at ${hex(address)}${hint}`, offset);
      }
      if (common < size)
        joined.push({ address: address + common, offset: offset + common, size: size - common, index });
    } else {
      last.size = Math.max(last.size, address + size - last.address);
    }
  }
  return joined.map(({ address, offset, size }) => ({ address: physicalAddress(address), offset, size }));
}

function sameBytes(read: FileReader, first: number, second: number, length: number): boolean {
  for (let done = 0; done < length; done += COMPARE_STEP) {
    const size = Math.min(COMPARE_STEP, length - done);
    // The reader may use its room again: what is compared second is read second.
    const one = Buffer.from(read(first + done, size));
    if (!one.equals(read(second + done, size))) return false;
  }
  return true;
}

/** The held memory, and around it what segments have beyond what they hold. */
function memoryRanges(segments: readonly Segment[], extents: readonly FileExtent[]): MemoryRange[] {
  const ranges: MemoryRange[] = extents.map(({ address, size }) => ({ base: address, size, nid: 0, backed: true }));
  let next = 0; // the first extent that ends after what has been covered
  let covered = 0;
  const all = segments.filter(({ memorySize }) => memorySize > 0).sort((a, b) => a.address - b.address);
  for (const { address, memorySize } of all) {
    const end = address + memorySize;
    for (let at = Math.max(address, covered); at < end; ) {
      while (next < extents.length && extents[next].address + extents[next].size <= at) next++;
      const held = extents[next];
      const free = Math.min(end, held === undefined ? end : Math.max(at, held.address));
      if (free > at) ranges.push({ base: physicalAddress(at), size: free - at, nid: 0, backed: false });
      at = free < end && held !== undefined ? held.address + held.size : end;
    }
    covered = Math.max(covered, end);
  }
  return ranges.sort((a, b) => a.base - b.base);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bad(what: string, offset: number): KhoError {
  return new KhoError('KHO_EIMAGE', `the ELF file ${what}`, { offset });
}
