import {
  type HandoverRoot,
  type KhoMem,
  memFolios,
  memRanges,
  type OneFdt,
  type PreservedState,
  preservedProblems,
  ROOT_FDT_SIZE,
  type ScratchEntry,
  walkKhoserMem,
  walkPreservedMemory,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import {
  FolioIndex,
  FolioRuns,
  hex,
  type Memblock,
  MemblockFlags,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../memblock/index.js';

/** What a kernel knows when it comes to what is preserved. */
export interface PreservedSource {
  /** The memory in which the tracker lies. */
  readonly memory: PhysicalMemory;
  /** Has memory from the firmware's map; gets what is preserved reserved. */
  readonly memblock: Memblock;
  readonly handover: HandoverRoot;
  /** Where the root FDT, or the one FDT, lies. */
  readonly root: PhysicalAddress;
  readonly scratch: readonly ScratchEntry[];
}

/**
 * Walks what lists preserved memory, checks everything it says, and only then reserves it (kho_mem_retrieve and
 * kho_preserved_memory_reserve of Linux 7.2; deserialize_bitmap and kho_init_reserved_pages of the series). Returns the objects. KHO_ETRACKER with
 * an address for the first thing that is wrong; then nothing is reserved.
 *
 * Linux reserves object by object in the order of the walk, and notes the order in the first struct page of each. Here neighbours
 * are reserved together, of whatever orders, ascending: memblock's regions are the same in the end, and the index is the
 * note. (While it goes on there are fewer of them: an array that Linux must grow for a while need not grow here.) Time and
 * memory go by runs of neighbours, not by objects. KHO_ENOMEM if memblock's array must grow and has no room in scratch.
 */
export function reservePreserved({ memory, memblock, handover, root, scratch }: PreservedSource): FolioIndex {
  const runs = new FolioRuns();
  const visit = (address: PhysicalAddress, order: number, count = 1): void => runs.add(address, order, count);
  let found: Pick<PreservedState, 'trackerPages' | 'blobs'>;
  if (handover.form === 'sub-blobs') {
    const { memoryMap = physicalAddress(0), subtrees } = handover.root;
    const trackerPages = walked(memoryMap, () => walkPreservedMemory(memory, handover.root, visit));
    found = { trackerPages, blobs: [{ name: 'root FDT', address: root, size: ROOT_FDT_SIZE }, ...subtrees] };
  } else {
    // The FDT lies in scratch, or anywhere else where nothing is preserved.
    const fdt = pagesOf({ address: root, size: handover.fdt.reader.totalSize });
    found = { trackerPages: [...fdt, ...listedInOneFdt(memory, handover.fdt, visit)], blobs: [] };
  }
  const objects = new FolioIndex(runs);
  const isMemory = (address: PhysicalAddress, size: number): boolean => memblock.isRegionMemory(address, size);
  for (const problem of preservedProblems({ objects, scratch, ...found, isMemory })) throw problem;
  // Linux leaves the struct pages alone, since they say what is preserved; the series did not yet.
  reserveObjects(memblock, objects, handover.form === 'sub-blobs');
  if (handover.form === 'one-fdt') {
    // Exactly what the FDT says: an area of reserve_mem need not end with a page.
    for (const { address, size } of handover.fdt.mem.flatMap(memRanges)) memblock.reserve(address, size);
  }
  return objects;
}

/** Neighbouring runs at once. They ascend and do not overlap. */
function reserveObjects(memblock: Memblock, objects: FolioIndex, noinit: boolean): void {
  for (let run = 0; run < objects.runCount; ) {
    const start = objects.runStart(run);
    let end = objects.runEnd(run++);
    while (run < objects.runCount && objects.runStart(run) === end) end = objects.runEnd(run++);
    const free = !memblock.isRegionReserved(start, end - start);
    // At once where that is the same: marking looks for the regions again, and may have to cut some.
    memblock.reserve(start, end - start, { flags: noinit && free ? MemblockFlags.RSRV_NOINIT : MemblockFlags.NONE });
    if (noinit && !free) memblock.reservedMarkNoinit(start, end - start);
  }
}

/** Visits what the one FDT says is preserved; returns the pages that list it beside the FDT itself. */
function listedInOneFdt(
  memory: PhysicalMemory,
  { profile, firstChunk, mem }: OneFdt,
  visit: FolioRuns['add'],
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
