import { setImmediate } from 'node:timers/promises';
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
  /**
   * What the record of the run that wrote the image says of it. Such an image holds no boot record but this one: if it is
   * there, as it is said to be, no other is searched for.
   */
  readonly recorded?: { readonly bootParams: number; readonly root: number };
  /** Aborting ends a search. */
  readonly signal?: AbortSignal;
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
 * closes it. `flat` says that it is known to be none. Errors as ImageMemory.open().
 */
export function openImageFile(
  path: string,
  { flat = false }: { readonly flat?: boolean } = {},
): { memory: ImageMemory; report: ImageFileReport } {
  const memory = ImageMemory.open(path);
  try {
    const extents = flat ? undefined : findQemuRamExtents(memory);
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
 * KHO_ECANCELED, or the signal's own reason, when it aborts: other things of this thread go on meanwhile.
 */
export async function chooseStart(
  memory: PhysicalMemory,
  { bootParams, root, recorded, signal }: StartOptions,
): Promise<ChosenStart> {
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
  if (recorded !== undefined) {
    const page = { address: physicalAddress(recorded.bootParams), size: PAGE_SIZE };
    for (const { record, doubt } of X86_64.bootRecords(memory, [page])) {
      const same = record.address === recorded.bootParams && record.root === recorded.root;
      if (same && doubt === undefined) return { start: { record }, others: [] };
    }
  }
  let doubtful: FoundBootRecord | undefined;
  let first: BootRecord | undefined;
  for await (const found of inTurns(X86_64.searchBootRecords(memory), signal)) {
    if (found.doubt === undefined) {
      first = found.record;
      break;
    }
    doubtful ??= found;
  }
  if (first !== undefined) {
    const [best = first, ...others] = await recordsBeside(memory, first, signal);
    return { start: { record: best }, others };
  }
  if (doubtful !== undefined) {
    const { record, doubt } = doubtful;
    return { start: { record }, others: [], ...(doubt === undefined ? {} : { doubt }) };
  }
  throw await noHandover(memory, signal);
}

/**
 * A record that looks real and all others of its host, the newest first, pages before copies. They lie in the same scratch
 * areas, which every kernel of a chain hands on.
 */
async function recordsBeside(
  memory: PhysicalMemory,
  first: BootRecord,
  signal: AbortSignal | undefined,
): Promise<BootRecord[]> {
  const areas = decodeScratchArray(memory.read(first.scratchArray, first.scratchArraySize));
  const records: BootRecord[] = [];
  for await (const { record, doubt } of inTurns(X86_64.searchBootRecords(memory, areas), signal)) {
    if (doubt === undefined) records.push(record);
  }
  return records
    .map((record) => ({ record, copy: record.address % PAGE_SIZE !== 0, count: kexecCount(memory, record) }))
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

async function noHandover(memory: PhysicalMemory, signal: AbortSignal | undefined): Promise<KhoError> {
  const roots = await namedRoots(memory, signal);
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
export async function namedRoots(memory: PhysicalMemory, signal?: AbortSignal): Promise<PhysicalAddress[]> {
  const roots: PhysicalAddress[] = [];
  for await (const address of inTurns(rootFdts(memory), signal)) {
    if (roots.push(address) === ROOTS_NAMED) break;
  }
  return roots;
}

/**
 * What a search in steps finds. After each step (undefined) other things of this thread have their turn, such as a signal
 * that ends it.
 */
async function* inTurns<Found>(
  search: Iterable<Found | undefined>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Found, void> {
  for (const found of search) {
    if (found !== undefined) {
      yield found;
      continue;
    }
    await setImmediate();
    if (signal?.aborted !== true) continue;
    throw signal.reason instanceof KhoError
      ? signal.reason
      : new KhoError('KHO_ECANCELED', 'the search of the image was cancelled', {}, { cause: signal.reason });
  }
}

/** Pages at which an FDT begins whose compatible is a KHO's; undefined after each piece of memory that was searched. */
function* rootFdts(memory: PhysicalMemory): Generator<PhysicalAddress | undefined, void> {
  for (const { start, bytes } of memoryChunksDown(memory, 0, SEARCH_END)) {
    const first = (PAGE_SIZE - (start % PAGE_SIZE)) % PAGE_SIZE;
    for (let at = first; at + 4 <= bytes.length; at += PAGE_SIZE) {
      const address = physicalAddress(start + at);
      if (bytes.readUInt32BE(at) === FDT_MAGIC && isRoot(memory, address)) yield address;
    }
    yield undefined;
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
