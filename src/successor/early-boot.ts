import {
  decodeScratchArray,
  type HandoverRoot,
  type KhoMem,
  memFolios,
  memRanges,
  type OneFdt,
  type PreservedState,
  type Profile,
  preservedProblems,
  ROOT_FDT_SIZE,
  readHandoverRoot,
  type ScratchEntry,
  walkKhoserMem,
  walkPreservedMemory,
} from '../abi/index.js';
import { type Architecture, type BootRecord, usableMemory } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignUp,
  type Folio,
  FolioIndex,
  type FolioVisitor,
  hex,
  type ImageMemory,
  type Memblock,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
  reserveBootAllocations,
} from '../memblock/index.js';
import { PreservedMemory } from './preserved-memory.js';

const MIB = 2 ** 20;

/** What the next kernel knows once its early boot is over. */
export interface EarlyBoot {
  readonly record: BootRecord;
  readonly handover: HandoverRoot;
  readonly scratch: readonly ScratchEntry[];
  readonly memblock: Memblock;
  readonly preserved: PreservedMemory;
}

/**
 * The next kernel's early boot, in the order of Linux 7.2: find the boot record, check the FDT and the scratch array
 * (kho_populate), take memory from the firmware's map, allocate from scratch alone while nothing else is known, read what
 * is preserved and reserve it (kho_memory_init), then let scratch go. The patch series v4 and v5 have the same order. With
 * `as` it is a kernel that speaks that profile alone.
 *
 * Anything that is not as it must be ends it, before a single driver has been asked: KHO_EIMAGE, KHO_ETRACKER or an FDT
 * error that says what and where. KHO_ENOMEM if scratch is too small to boot in.
 */
export function bootEarly(memory: ImageMemory, arch: Architecture, cpus: number, as?: Profile): EarlyBoot {
  const record = arch.findBootRecord(memory);
  if (record.damage !== undefined) throw record.damage;
  const handover = readHandoverRoot(memory, record.root, record.rootSize, as);
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
  memblock.reserve(record.root, handover.form === 'one-fdt' ? handover.fdt.reader.totalSize : ROOT_FDT_SIZE);
  memblock.reserve(record.scratchArray, alignUp(record.scratchArraySize, PAGE_SIZE));
  memblock.setKhoScratchOnly();
  const boot = memblock.clone();
  const preserved = reservePreserved(memory, memblock, handover, scratch, record);
  // What the kernel allocates before it knows the rest must fit into scratch: tried on a copy that knows only that.
  reserveBootAllocations(boot, { cpus, reserved: [{ address: physicalAddress(0), size: MIB }] });
  memblock.clearKhoScratchOnly();
  return { record, handover, scratch, memblock, preserved };
}

function readScratch(memory: ImageMemory, record: BootRecord): ScratchEntry[] {
  if (record.scratchArraySize > PAGE_SIZE * 16) {
    throw new KhoError('KHO_EIMAGE', `the scratch array has ${record.scratchArraySize} bytes, more than 64 KiB`);
  }
  return decodeScratchArray(memory.read(record.scratchArray, record.scratchArraySize));
}

/** Reads what lists preserved memory, checks everything it says, and only then reserves. */
function reservePreserved(
  memory: ImageMemory,
  memblock: Memblock,
  handover: HandoverRoot,
  scratch: readonly ScratchEntry[],
  record: BootRecord,
): PreservedMemory {
  const folios: Folio[] = [];
  const visit: FolioVisitor = (address, order) => void folios.push({ address, order });
  const isMemory = (address: PhysicalAddress, size: number): boolean => memblock.isRegionMemory(address, size);
  let found: Pick<PreservedState, 'trackerPages' | 'blobs'>;
  if (handover.form === 'sub-blobs') {
    const { memoryMap = physicalAddress(0), subtrees } = handover.root;
    const trackerPages = walked(memoryMap, () => walkPreservedMemory(memory, handover.root, visit));
    found = { trackerPages, blobs: [{ name: 'root FDT', address: record.root, size: ROOT_FDT_SIZE }, ...subtrees] };
  } else {
    // The FDT lies in scratch, or anywhere else where nothing is preserved.
    const fdt = pagesOf({ address: record.root, size: handover.fdt.reader.totalSize });
    found = { trackerPages: [...fdt, ...listedInOneFdt(memory, handover.fdt, visit)], blobs: [] };
  }
  const objects = new FolioIndex(folios);
  for (const problem of preservedProblems({ objects, scratch, ...found, isMemory })) throw problem;
  for (const { address, order } of folios) memblock.reserve(address, 2 ** order * PAGE_SIZE);
  if (handover.form === 'one-fdt') {
    // Exactly what the FDT says: an area of reserve_mem need not end with a page.
    for (const { address, size } of handover.fdt.mem.flatMap(memRanges)) memblock.reserve(address, size);
  }
  return new PreservedMemory(objects);
}

/** Visits what the one FDT says is preserved; returns the pages that list it beside the FDT itself. */
function listedInOneFdt(
  memory: ImageMemory,
  { profile, firstChunk, mem }: OneFdt,
  visit: FolioVisitor,
): PhysicalAddress[] {
  for (const range of mem.flatMap(memRanges)) {
    for (const { address, order } of memFolios(range)) visit(address, order);
  }
  const { bitmapBits } = profile;
  if (firstChunk === undefined || bitmapBits === undefined) return [];
  return walked(firstChunk, () => walkKhoserMem(memory, firstChunk, bitmapBits, visit));
}

function pagesOf({ address, size }: KhoMem): PhysicalAddress[] {
  return Array.from({ length: Math.ceil(size / PAGE_SIZE) }, (_, page) => physicalAddress(address + page * PAGE_SIZE));
}

/** What a walk of the tracker returns; its errors say where the tracker is. */
function walked(tracker: PhysicalAddress, walk: () => PhysicalAddress[]): PhysicalAddress[] {
  try {
    return walk();
  } catch (error) {
    const { code, message, details } = KhoError.from(error, 'KHO_ETRACKER');
    throw new KhoError(code, `the tracker at ${hex(tracker)} is damaged: ${message}`, details, { cause: error });
  }
}
