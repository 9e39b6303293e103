import {
  decodeKexecMetadata,
  decodeScratchArray,
  KEXEC_METADATA_NAME,
  KHO_V3,
  KHO_V4,
  ONE_FDT_ROOM_MAX,
  ROOT_FDT_SIZE,
  readKhoRoot,
  readRootBytes,
} from '../abi/index.js';
import { type BootRecord, type FoundBootRecord, findQemuRamExtents, X86_64 } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { FDT_MAGIC, FdtReader } from '../fdt/index.js';
import {
  hex,
  ImageMemory,
  memoryChunksDown,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../memblock/index.js';
import type { HandoverStart } from './handover-report.js';

/** Where a user says that the handover begins. */
export interface StartOptions {
  /** The address of boot_params. */
  readonly bootParams?: number;
  /** The address of a root FDT. */
  readonly root?: number;
}

/** How the file was read. */
export interface ImageFileReport {
  readonly path: string;
  readonly format: 'flat' | 'elf';
  /** Bytes of the file. */
  readonly size: number;
  /** Bytes of memory, and of those that the file holds. */
  readonly memory: number;
  readonly held: number;
  /** Where memory from 4 GiB on lies in a flat file that leaves out the hole below; absent where offsets are addresses. */
  readonly highMemoryAt?: number;
}

const GIB = 2 ** 30;
/** Where root FDTs are looked for, and how many are named. */
const SEARCH_END = 64 * GIB;
const ROOTS_NAMED = 4;

/**
 * Opens a memory image, and reads a RAM file of QEMU's that leaves out the hole below 4 GiB as what it is. The caller
 * closes it. Errors as ImageMemory.open().
 */
export function openImageFile(path: string): { memory: ImageMemory; report: ImageFileReport } {
  const memory = ImageMemory.open(path);
  try {
    const extents = findQemuRamExtents(memory);
    if (extents !== undefined) memory.setExtents(extents);
    const total = (backed: boolean): number =>
      memory.ranges.reduce((sum, range) => sum + (range.backed || !backed ? range.size : 0), 0);
    const high = extents?.find(({ address }) => address >= 4 * GIB);
    return {
      memory,
      report: {
        path,
        format: memory.format,
        size: memory.fileSize,
        memory: total(false),
        held: total(true),
        ...(high === undefined ? {} : { highMemoryAt: high.offset }),
      },
    };
  } catch (error) {
    memory.close();
    throw error;
  }
}

/** A start, and other places that might have been it. */
export interface ChosenStart {
  readonly start: HandoverStart;
  /** Other boot records that look as real, and are older or copies. */
  readonly others: readonly BootRecord[];
  /** Why the start may be none. */
  readonly doubt?: KhoError;
}

/**
 * Where the handover begins: where the user says, else at the boot record that the next kernel gets. Several may look
 * real, since every kexec leaves one and the next overwrites it only where it happens to load its own to the same place:
 * of those the one with the highest kexec count is taken, pages before copies.
 *
 * KHO_EINVAL for an address that cannot be one, KHO_EIMAGE if there is none; the message names root FDTs that lie in memory all the same.
 */
export function chooseStart(memory: PhysicalMemory, { bootParams, root }: StartOptions): ChosenStart {
  if (root !== undefined) {
    if (root % PAGE_SIZE !== 0) {
      throw new KhoError('KHO_EINVAL', `${hex(root)} is not the address of a page, as a root FDT's is`, {
        field: 'root',
      });
    }
    return { start: { root: physicalAddress(root) }, others: [] };
  }
  if (bootParams !== undefined) {
    return { start: { record: X86_64.readBootRecord(memory, physicalAddress(bootParams)) }, others: [] };
  }
  let doubtful: FoundBootRecord | undefined;
  let first: BootRecord | undefined;
  for (const found of X86_64.bootRecords(memory)) {
    if (found.doubt === undefined) {
      first = found.record;
      break;
    }
    doubtful ??= found;
  }
  if (first !== undefined) {
    const [best = first, ...others] = recordsBeside(memory, first);
    return { start: { record: best }, others };
  }
  if (doubtful !== undefined) {
    const { record, doubt } = doubtful;
    return { start: { record }, others: [], ...(doubt === undefined ? {} : { doubt }) };
  }
  throw noHandover(memory);
}

/**
 * A record that looks real and all others of its host, the newest first, pages before copies. They lie in the same scratch
 * areas, which every kernel of a chain hands on.
 */
function recordsBeside(memory: PhysicalMemory, first: BootRecord): BootRecord[] {
  const areas = decodeScratchArray(memory.read(first.scratchArray, first.scratchArraySize));
  return [...X86_64.bootRecords(memory, areas)]
    .filter(({ doubt }) => doubt === undefined)
    .map(({ record }) => ({ record, copy: record.address % PAGE_SIZE !== 0, count: kexecCount(memory, record) }))
    .sort((a, b) => b.count - a.count || Number(a.copy) - Number(b.copy))
    .map(({ record }) => record);
}

/** How many kexecs lie behind a handover; 0 if it does not say. */
function kexecCount(memory: PhysicalMemory, { root }: BootRecord): number {
  try {
    const { subtrees } = readKhoRoot(memory.read(root, ROOT_FDT_SIZE), [KHO_V4, KHO_V3], memory);
    const blob = subtrees.find(({ name }) => name === KEXEC_METADATA_NAME);
    if (blob === undefined || blob.size > PAGE_SIZE) return 0;
    return decodeKexecMetadata(memory.read(blob.address, blob.size)).kexecCount;
  } catch (error) {
    if (error instanceof KhoError) return 0;
    throw error;
  }
}

function noHandover(memory: PhysicalMemory): KhoError {
  const roots = namedRoots(memory);
  const none =
    'no boot record: nothing in memory below 64 GiB is a boot_params page whose setup_data has a kho_data (type 10)';
  if (roots.length === 0) {
    const text = `${none}, and there is no root FDT of KHO either: no handover, or a file that is cut short before it`;
    return new KhoError('KHO_EIMAGE', text);
  }
  return new KhoError(
    'KHO_EIMAGE',
    `${none}; it was never written, as before kexec jumps, or has been overwritten since, or the file is cut short before it. ` +
      `There are root FDTs of KHO at ${roots.map(hex).join(', ')}: read one with --root ADDRESS`,
  );
}

/** Addresses of root FDTs that lie in memory, whether anything leads to them or not; the first few, from the top down. */
export function namedRoots(memory: PhysicalMemory): PhysicalAddress[] {
  const roots: PhysicalAddress[] = [];
  for (const address of rootFdts(memory)) {
    if (roots.push(address) === ROOTS_NAMED) break;
  }
  return roots;
}

/** Pages at which an FDT begins whose compatible is a KHO's. */
function* rootFdts(memory: PhysicalMemory): Generator<PhysicalAddress, void> {
  for (const { start, bytes } of memoryChunksDown(memory, 0, SEARCH_END)) {
    const first = (PAGE_SIZE - (start % PAGE_SIZE)) % PAGE_SIZE;
    for (let at = first; at + 4 <= bytes.length; at += PAGE_SIZE) {
      const address = physicalAddress(start + at);
      if (bytes.readUInt32BE(at) === FDT_MAGIC && isRoot(memory, address)) yield address;
    }
  }
}

function isRoot(memory: PhysicalMemory, address: PhysicalAddress): boolean {
  try {
    const { root } = FdtReader.open(readRootBytes(memory, address, ONE_FDT_ROOM_MAX));
    return /^kho-v\d/.test(root.property('compatible')?.string() ?? '');
  } catch (error) {
    if (error instanceof KhoError) return false;
    throw error;
  }
}
