import {
  decodeScratchArray,
  type HandoverRoot,
  type Profile,
  ROOT_FDT_SIZE,
  readHandoverRoot,
  type ScratchEntry,
} from '../abi/index.js';
import { type Architecture, type BootRecord, usableMemory } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignUp,
  hex,
  type ImageMemory,
  type Memblock,
  PAGE_SIZE,
  physicalAddress,
  reserveBootAllocations,
} from '../memblock/index.js';
import { PreservedMemory } from './preserved-memory.js';
import { reservePreserved } from './reserve-preserved.js';

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
  const objects = reservePreserved({ memory, memblock, handover, root: record.root, scratch });
  // What the kernel allocates before it knows the rest must fit into scratch: tried on a copy that knows only that.
  reserveBootAllocations(boot, { cpus, reserved: [{ address: physicalAddress(0), size: MIB }] });
  memblock.clearKhoScratchOnly();
  return { record, handover, scratch, memblock, preserved: new PreservedMemory(objects) };
}

function readScratch(memory: ImageMemory, record: BootRecord): ScratchEntry[] {
  if (record.scratchArraySize > PAGE_SIZE * 16) {
    throw new KhoError('KHO_EIMAGE', `the scratch array has ${record.scratchArraySize} bytes, more than 64 KiB`);
  }
  return decodeScratchArray(memory.read(record.scratchArray, record.scratchArraySize));
}
