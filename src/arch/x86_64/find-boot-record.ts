import { decodeScratchArray, isOneFdtCompatible, readRootBytes, type ScratchEntry } from '../../abi/index.js';
import { KhoError } from '../../errors.js';
import { FdtReader } from '../../fdt/index.js';
import {
  after,
  hex,
  memoryChunksDown,
  PAGE_SIZE,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../../memblock/index.js';
import type { BootRecord, FoundBootRecord } from '../architecture.js';
import { BOOT_FLAG, BOOT_PARAMS_SIZE, decodeBootParams, HEADER_MAGIC, readCommandLine } from './boot-params.js';
import { decodeKhoData, KHO_DATA_SIZE, type KhoData, SETUP_DATA_HEADER_SIZE, SETUP_KEXEC_KHO } from './setup-data.js';

/** A part of memory to search, downwards. */
interface SearchWindow {
  readonly low: number;
  readonly high: number;
}

const GIB = 2 ** 30;
/** A list of setup_data longer than this is a loop. */
const MAX_SETUP_DATA = 64;
/**
 * Where the search looks, best place first. Kexec puts boot_params into the first scratch area that has room, which is
 * the low one unless `kho_scratch=` made it too small. The end bounds the time that a search takes in a huge image.
 */
const SEARCH_WINDOWS: readonly SearchWindow[] = [
  { low: 0, high: 4 * GIB },
  { low: 4 * GIB, high: 64 * GIB },
];
/** The alignment of any boot_params: the kernel's variable has it too, kexec's segments are whole pages. */
const BOOT_PARAMS_ALIGNMENT = 16;
/** So many places that are no page are looked at: memory made of nothing but magic numbers must not take for ever. */
const MAX_COPIES = 4096;
/** The compatible of any root FDT, known here or not. */
const KHO_COMPATIBLE = /^kho-v\d/;
/** A scratch array is small: two areas and one for each node (MAX_NUMNODES is at most 1024). */
const SCRATCH_ARRAY_MAX = 64 * 1024;

/**
 * Reads the boot record whose boot_params lie at `address`. KHO_EIMAGE says what is missing there. Whether root FDT and
 * scratch array are what they should be is not judged.
 */
export function readBootRecord(memory: PhysicalMemory, address: PhysicalAddress): BootRecord {
  let params: ReturnType<typeof decodeBootParams>;
  try {
    params = decodeBootParams(memory.read(address, BOOT_PARAMS_SIZE));
  } catch (error) {
    throw unreadable('boot_params', address, error);
  }
  if (params === undefined) {
    throw new KhoError(
      'KHO_EIMAGE',
      `there are no boot_params at ${hex(address)}: the magic numbers 0xaa55 and "HdrS", or an e820 map, are missing`,
      { address },
    );
  }
  const { data, problem } = findKhoData(memory, params.setupData);
  if (data === undefined) {
    throw new KhoError(
      'KHO_EIMAGE',
      `the boot_params at ${hex(address)} lead to no kho_data: ${problem ?? 'no setup_data of type 10 is in their list'}`,
      { address },
    );
  }
  return {
    kind: 'x86_64 setup_data',
    address,
    firmware: params.firmware,
    ...commandLineAt(memory, params.commandLineAddress),
    root: addressField(data.fdtAddress, 'fdt_addr'),
    rootSize: data.fdtSize,
    scratchArray: addressField(data.scratchAddress, 'scratch_addr'),
    scratchArraySize: data.scratchSize,
  };
}

/**
 * Every place that is a boot record by its form, best guess first: downwards from 4 GiB, then above it.
 *
 * A kernel is handed boot_params in a register, which a memory image does not hold, so they are searched for. A real
 * kernel's memory has several copies, most of them of no meaning: the one that it was booted with itself, its own
 * variable, what kexec_file_load() prepared elsewhere. Only those are yielded that lead to a kho_data; those whose root
 * FDT or scratch array do not look real come with a `doubt`. With `areas` only those are searched.
 */
export function* bootRecords(
  memory: PhysicalMemory,
  areas?: readonly ScratchEntry[],
): Generator<FoundBootRecord, void> {
  for (const found of searchBootRecords(memory, areas)) if (found !== undefined) yield found;
}

/** {@link bootRecords} in steps: undefined after each piece of memory that was searched, of at most 1 MiB. */
export function* searchBootRecords(
  memory: PhysicalMemory,
  areas?: readonly ScratchEntry[],
): Generator<FoundBootRecord | undefined, void> {
  const windows = areas === undefined ? undefined : windowsOf(areas);
  for (const address of searchBootParams(memory, windows)) {
    if (address === undefined) {
      yield undefined;
      continue;
    }
    let record: BootRecord;
    try {
      record = readBootRecord(memory, address);
    } catch (error) {
      if (error instanceof KhoError && error.code === 'KHO_EIMAGE') continue;
      throw error;
    }
    const doubt = doubtOf(memory, record);
    yield doubt === undefined ? { record } : { record, doubt };
  }
}

/**
 * The boot record that the next kernel gets: the first of {@link bootRecords} that is a page of its own and of which
 * nothing makes doubt, else the first of which nothing does, else the first. KHO_EIMAGE if there is none.
 */
export function findBootRecord(memory: PhysicalMemory): BootRecord {
  let copy: BootRecord | undefined;
  let doubtful: BootRecord | undefined;
  for (const { record, doubt } of bootRecords(memory)) {
    if (doubt !== undefined) doubtful ??= record;
    else if (record.address % PAGE_SIZE === 0) return record;
    else copy ??= record;
  }
  const record = copy ?? doubtful;
  if (record !== undefined) return record;
  throw new KhoError(
    'KHO_EIMAGE',
    'no boot record: nothing in memory below 64 GiB is a boot_params page whose setup_data has a kho_data (type 10)',
  );
}

/** Addresses that have the magic numbers of boot_params in their place: nothing else is known of them. */
export function* bootParamsPlaces(memory: PhysicalMemory): Generator<PhysicalAddress, void> {
  for (const address of searchBootParams(memory)) if (address !== undefined) yield address;
}

/** The same in steps, as {@link searchBootRecords}. */
function* searchBootParams(
  memory: PhysicalMemory,
  windows: readonly SearchWindow[] = SEARCH_WINDOWS,
): Generator<PhysicalAddress | undefined, void> {
  let copies = 0;
  for (const { low, high } of windows) {
    for (const { start, bytes } of memoryChunksDown(memory, low, high)) {
      for (const at of magicNumbers(bytes).reverse()) {
        const address = start + at - HEADER_MAGIC;
        if (address < 0 || address % BOOT_PARAMS_ALIGNMENT !== 0) continue;
        if (address % PAGE_SIZE !== 0 && copies++ >= MAX_COPIES) continue;
        yield physicalAddress(address);
      }
      yield undefined;
    }
  }
}

/** Areas as windows, highest first, each byte once: a damaged scratch array may name the same memory a thousand times. */
function windowsOf(areas: readonly ScratchEntry[]): SearchWindow[] {
  const windows: { low: number; high: number }[] = [];
  for (const { address, size } of [...areas].sort((a, b) => a.address - b.address)) {
    const last = windows.at(-1);
    if (last !== undefined && address <= last.high) last.high = Math.max(last.high, address + size);
    else windows.push({ low: address, high: address + size });
  }
  return windows.reverse();
}

/** Offsets of "HdrS" behind a boot flag. One search for a text is far quicker than a look at every page. */
function magicNumbers(bytes: Buffer): number[] {
  const found: number[] = [];
  for (let at = bytes.indexOf('HdrS'); at >= 0; at = bytes.indexOf('HdrS', at + 4)) {
    const flag = at - (HEADER_MAGIC - BOOT_FLAG);
    if (flag < 0 || (bytes[flag] === 0x55 && bytes[flag + 1] === 0xaa)) found.push(at);
  }
  return found;
}

function commandLineAt(memory: PhysicalMemory, address: PhysicalAddress): Pick<BootRecord, 'commandLine' | 'damage'> {
  try {
    return { commandLine: readCommandLine(memory, address) };
  } catch (error) {
    return { commandLine: '', damage: unreadable('command line', address, error) };
  }
}

/** Why this boot record may be none: what a stale one points to has long been overwritten. */
function doubtOf(memory: PhysicalMemory, record: BootRecord): KhoError | undefined {
  if (record.damage !== undefined) return record.damage;
  try {
    const { root } = FdtReader.open(readRootBytes(memory, record.root, record.rootSize));
    const compatible = root.property('compatible')?.string();
    if (compatible === undefined || !KHO_COMPATIBLE.test(compatible))
      return doubtful(`leads to a root FDT '${compatible}'`, record);
    if (record.rootSize !== PAGE_SIZE && !isOneFdtCompatible(compatible))
      return doubtful(`gives the root FDT ${record.rootSize} bytes, not a page`, record);
    const { scratchArraySize: size } = record;
    if (size > SCRATCH_ARRAY_MAX) return doubtful(`has a scratch array of ${size} bytes`, record);
    const areas = decodeScratchArray(memory.read(record.scratchArray, size));
    // The next kernel and all that it is given lie in scratch, wherever in it.
    const inside = areas.some((area) => record.address >= area.address && record.address < area.address + area.size);
    return inside ? undefined : doubtful('lies in none of its scratch areas', record);
  } catch (error) {
    if (error instanceof KhoError) return doubtful(`leads nowhere: ${error.message}`, record);
    throw error;
  }
}

function doubtful(why: string, { address }: BootRecord): KhoError {
  return new KhoError('KHO_EIMAGE', `the boot record at ${hex(address)} ${why}`, { address });
}

/** The first kho_data of a list of setup_data. Others in the list: EFI, device tree, IMA log, random seed. */
function findKhoData(memory: PhysicalMemory, first: PhysicalAddress): { data?: KhoData; problem?: string } {
  let address = first;
  for (let nodes = 0; address !== 0; nodes++) {
    if (nodes === MAX_SETUP_DATA) return { problem: `their list of setup_data has more than ${MAX_SETUP_DATA} nodes` };
    try {
      const type = memory.readU32(after(address, 8));
      const length = memory.readU32(after(address, 12));
      if (type === SETUP_KEXEC_KHO && length === KHO_DATA_SIZE) {
        const data = decodeKhoData(memory.read(after(address, SETUP_DATA_HEADER_SIZE), KHO_DATA_SIZE));
        return data === undefined ? { problem: `the kho_data at ${hex(address)} holds no addresses` } : { data };
      }
      address = physicalAddress(memory.readU64Number(address));
    } catch (error) {
      if (error instanceof KhoError) return { problem: `their setup_data points nowhere: ${error.message}` };
      throw error;
    }
  }
  return {};
}

function addressField(value: number, field: string): PhysicalAddress {
  if (value === 0 || value % PAGE_SIZE !== 0 || value > PHYS_ADDR_MAX) {
    throw new KhoError('KHO_EIMAGE', `the boot record's ${field} is ${hex(value)}, which is not the address of a page`);
  }
  return physicalAddress(value);
}

function unreadable(what: string, address: PhysicalAddress, error: unknown): KhoError {
  const cause = KhoError.from(error, 'KHO_EIMAGE');
  if (cause.code !== 'KHO_EFAULT') return cause;
  return new KhoError('KHO_EIMAGE', `no ${what} can be read at ${hex(address)}: ${cause.message}`, { address });
}
