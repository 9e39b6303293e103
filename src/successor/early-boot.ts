import {
  decodeScratchArray,
  KHO_V4,
  type KhoRoot,
  preservedProblems,
  ROOT_FDT_SIZE,
  readKhoRoot,
  type ScratchEntry,
} from '../abi/index.js';
import { type Architecture, type BootRecord, usableMemory } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignUp,
  type Folio,
  FolioIndex,
  hex,
  type ImageMemory,
  type Memblock,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
  reserveBootAllocations,
  walkRadixTree,
} from '../memblock/index.js';
import { PreservedMemory } from './preserved-memory.js';

const MIB = 2 ** 20;

/** What the next kernel knows once its early boot is over. */
export interface EarlyBoot {
  readonly record: BootRecord;
  readonly root: KhoRoot;
  readonly scratch: readonly ScratchEntry[];
  readonly memblock: Memblock;
  readonly preserved: PreservedMemory;
}

/**
 * The next kernel's early boot, in the order of Linux 7.2: find the boot record, check the root FDT and the scratch
 * array (kho_populate), take memory from the firmware's map, allocate from scratch alone while nothing else is known,
 * walk the tracker and reserve every preserved object (kho_memory_init), then let scratch go.
 *
 * Anything that is not as it must be ends it, before a single driver has been asked: KHO_EIMAGE, KHO_ETRACKER or an FDT
 * error that says what and where. KHO_ENOMEM if scratch is too small to boot in.
 */
export function bootEarly(memory: ImageMemory, arch: Architecture, cpus: number): EarlyBoot {
  const record = arch.findBootRecord(memory);
  if (record.damage !== undefined) throw record.damage;
  const root = readRoot(memory, record);
  const scratch = readScratch(memory, record);
  const memblock = usableMemory(record.firmware);
  for (const { address, size } of scratch) {
    if (size === 0) continue;
    if (!memblock.isRegionMemory(address, size)) {
      throw new KhoError('KHO_EIMAGE', `the scratch area at ${hex(address)} (${hex(size)} bytes) is not in memory`, {
        address,
        size,
      });
    }
    memblock.markKhoScratch(address, size);
  }
  memblock.reserve(record.root, ROOT_FDT_SIZE);
  memblock.reserve(record.scratchArray, alignUp(record.scratchArraySize, PAGE_SIZE));
  memblock.setKhoScratchOnly();
  const boot = memblock.clone();
  const preserved = reservePreserved(memory, memblock, root, scratch, record);
  // What the kernel allocates before it knows the rest must fit into scratch: tried on a copy that knows only that.
  reserveBootAllocations(boot, { cpus, reserved: [{ address: physicalAddress(0), size: MIB }] });
  memblock.clearKhoScratchOnly();
  return { record, root, scratch, memblock, preserved };
}

function readRoot(memory: ImageMemory, record: BootRecord): KhoRoot {
  if (record.rootSize !== ROOT_FDT_SIZE) {
    throw new KhoError('KHO_EIMAGE', `the boot record gives the root FDT ${record.rootSize} bytes, expected one page`);
  }
  try {
    return readKhoRoot(memory.read(record.root, ROOT_FDT_SIZE), [KHO_V4]);
  } catch (error) {
    const known = KhoError.from(error, 'KHO_EIMAGE');
    throw new KhoError(known.code, `root FDT at ${hex(record.root)}: ${known.message}`, {
      ...known.details,
      address: record.root,
    });
  }
}

function readScratch(memory: ImageMemory, record: BootRecord): ScratchEntry[] {
  if (record.scratchArraySize > PAGE_SIZE * 16) {
    throw new KhoError('KHO_EIMAGE', `the scratch array has ${record.scratchArraySize} bytes, more than 64 KiB`);
  }
  return decodeScratchArray(memory.read(record.scratchArray, record.scratchArraySize));
}

/** Walks the tracker, checks everything it says, and only then reserves. */
function reservePreserved(
  memory: ImageMemory,
  memblock: Memblock,
  root: KhoRoot,
  scratch: readonly ScratchEntry[],
  record: BootRecord,
): PreservedMemory {
  const folios: Folio[] = [];
  const tables = walkTracker(memory, root.memoryMap, folios);
  const objects = new FolioIndex(folios);
  const problems = preservedProblems({
    objects,
    scratch,
    trackerPages: tables,
    blobs: [{ name: 'root FDT', address: record.root, size: ROOT_FDT_SIZE }, ...root.subtrees],
    isMemory: (address, size) => memblock.isRegionMemory(address, size),
  });
  for (const problem of problems) throw problem;
  for (const { address, order } of folios) memblock.reserve(address, 2 ** order * PAGE_SIZE);
  return new PreservedMemory(objects);
}

function walkTracker(memory: ImageMemory, map: PhysicalAddress, folios: Folio[]): readonly PhysicalAddress[] {
  try {
    return walkRadixTree(memory, map, (address, order) => folios.push({ address, order }));
  } catch (error) {
    const { code, message, details } = KhoError.from(error, 'KHO_ETRACKER');
    throw new KhoError(code, `the tracker at ${hex(map)} is damaged: ${message}`, details, { cause: error });
  }
}
