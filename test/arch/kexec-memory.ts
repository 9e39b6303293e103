import { physicalAddress as at, SharedPhysicalMemory } from '#dist/memblock/index.js';

/**
 * Memory as kexec_file_load() of a real kernel leaves it for the next one, written byte by byte and without the code
 * under test: boot_params, command line and setup_data in one segment in scratch.
 */
export const MIB = 2 ** 20;
export const PAGE = 4096;
export const SCRATCH = { address: 48 * MIB, size: 8 * MIB };
export const SEGMENT = SCRATCH.address + SCRATCH.size - 3 * PAGE;
export const ROOT = 8 * MIB;
export const ARRAY = SCRATCH.address;
export const COMMAND_LINE = 'console=ttyS0 kho=on liveupdate=on';

/** Types of setup_data beside KHO's own (10). */
const SETUP_EFI = 4;
const SETUP_IMA = 5;
const SETUP_RNG_SEED = 9;

export function emptyMemory(...ranges: [base: number, size: number][]): SharedPhysicalMemory {
  const whole: [number, number][] = ranges.length === 0 ? [[0, 64 * MIB]] : ranges;
  return SharedPhysicalMemory.create(whole.map(([base, size]) => ({ base: at(base), size, nid: 0, backed: true })));
}

export interface BootParamsFields {
  readonly setupData?: number;
  readonly commandLine?: number;
  readonly e820?: readonly (readonly [base: number, size: number, type: number])[];
}

/** A page of boot_params as arch/x86/include/uapi/asm/bootparam.h has it. */
export function bootParamsPage({
  setupData = 0,
  commandLine = 0,
  e820 = [[0, 64 * MIB, 1]],
}: BootParamsFields): Buffer {
  const page = Buffer.alloc(PAGE);
  page.writeUInt32LE(Math.floor(commandLine / 2 ** 32), 0x0c8);
  page.writeUInt8(e820.length, 0x1e8);
  page.writeUInt16LE(0xaa55, 0x1fe);
  page.write('HdrS', 0x202, 'latin1');
  page.writeUInt16LE(0x020f, 0x206);
  page.writeUInt8(0xd0, 0x210); // the loader's type: kexec
  page.writeUInt32LE(commandLine % 2 ** 32, 0x228);
  page.writeBigUInt64LE(BigInt(setupData), 0x250);
  for (const [index, [base, size, type]] of e820.entries()) {
    page.writeBigUInt64LE(BigInt(base), 0x2d0 + index * 20);
    page.writeBigUInt64LE(BigInt(size), 0x2d8 + index * 20);
    page.writeUInt32LE(type, 0x2e0 + index * 20);
  }
  return page;
}

export function setupData(next: number, type: number, data: Uint8Array): Buffer {
  const node = Buffer.alloc(16 + data.length);
  node.writeBigUInt64LE(BigInt(next), 0);
  node.writeUInt32LE(type, 8);
  node.writeUInt32LE(data.length, 12);
  node.set(data, 16);
  return node;
}

export function u64s(...values: (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64LE(BigInt(value), index * 8);
  return bytes;
}

/** A root FDT without subtrees, as libfdt's sequential writer makes it. */
export function rootFdt(compatible = 'kho-v4', map = 0x123000): Buffer {
  const strings = Buffer.from('compatible\0preserved-memory-map\0', 'latin1');
  const words: number[] = [1, 0, 3, compatible.length + 1, 0];
  const text = Buffer.alloc(Math.ceil((compatible.length + 1) / 4) * 4);
  text.write(compatible, 'latin1');
  for (let i = 0; i < text.length; i += 4) words.push(text.readUInt32BE(i));
  words.push(3, 8, 11, u64s(map).readUInt32BE(0), u64s(map).readUInt32BE(4), 2, 9);
  const total = 56 + words.length * 4 + strings.length;
  const header = [0xd00dfeed, total, 56, 56 + words.length * 4, 40, 17, 16, 0, strings.length, words.length * 4];
  const blob = Buffer.alloc(total);
  for (const [index, word] of [...header, 0, 0, 0, 0, ...words].entries()) blob.writeUInt32BE(word, index * 4);
  strings.copy(blob, 56 + words.length * 4);
  return blob;
}

export interface RecordPlace {
  readonly segment?: number;
  readonly root?: number;
  readonly array?: number;
  readonly scratch?: { readonly address: number; readonly size: number };
  readonly e820?: BootParamsFields['e820'];
}

/** Writes what kexec_file_load() loads, with every kind of setup_data in the kernel's order. Root FDT and array too. */
export function loadRecord(memory: SharedPhysicalMemory, place: RecordPlace = {}): void {
  const { segment = SEGMENT, root = ROOT, array = ARRAY, scratch = SCRATCH, e820 } = place;
  const list = segment + PAGE + 64;
  const efi = list;
  const ima = efi + 16 + 24;
  const kho = ima + 16 + 16;
  const seed = kho + 16 + 32;
  const fields = { setupData: seed, commandLine: segment + PAGE };
  memory.write(at(segment), bootParamsPage(e820 === undefined ? fields : { ...fields, e820 }));
  memory.write(at(segment + PAGE), Buffer.from(`${COMMAND_LINE}\0`));
  memory.write(at(efi), setupData(0, SETUP_EFI, Buffer.alloc(24, 1)));
  memory.write(at(ima), setupData(efi, SETUP_IMA, Buffer.alloc(16, 2)));
  memory.write(at(kho), setupData(ima, 10, u64s(root, PAGE, array, 48)));
  memory.write(at(seed), setupData(kho, SETUP_RNG_SEED, Buffer.alloc(32, 3)));
  memory.write(at(root), rootFdt());
  memory.write(at(array), u64s(scratch.address, scratch.size, 0, 0, 0, 0));
}
