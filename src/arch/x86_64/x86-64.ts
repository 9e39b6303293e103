import { KhoError } from '../../errors.js';
import {
  after,
  hex,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../../memblock/index.js';
import type { Architecture, BootRecord } from '../architecture.js';
import { BOOT_PARAMS_SIZE, decodeBootParams, readCommandLine } from './boot-params.js';
import { e820Map } from './e820.js';
import { loadKexec } from './load-kexec.js';
import { decodeKhoData, KHO_DATA_SIZE, SETUP_DATA_HEADER_SIZE, SETUP_KEXEC_KHO } from './setup-data.js';

/** Where boot_params are looked for. */
const LOW_LIMIT = 2 ** 32;
/** A list of setup_data longer than this is a loop. */
const MAX_SETUP_DATA = 64;
/** How much memory is looked at in one step when searching. */
const SEARCH_STEP = 2 ** 20;

/** x86-64: boot_params → setup_data → kho_data, all in scratch. */
export const X86_64: Architecture = {
  name: 'x86_64',
  firmwareMap: e820Map,
  loadKexec,
  findBootRecord,
};

/**
 * A kernel is handed boot_params in a register, which a memory image does not hold. So they are searched for: a page
 * below 4 GiB with the magic numbers of boot_params, whose setup_data list leads to a kho_data. Kexec puts them near
 * the top of the low scratch area, so the search goes downwards.
 */
function findBootRecord(memory: PhysicalMemory): BootRecord {
  for (const range of [...memory.ranges].reverse()) {
    const end = Math.min(range.base + range.size, LOW_LIMIT);
    for (let top = end; top > range.base; ) {
      const start = Math.max(range.base, top - SEARCH_STEP);
      const record = searchChunk(memory, physicalAddress(start), top - start);
      if (record !== undefined) return record;
      top = start;
    }
  }
  throw new KhoError(
    'KHO_EIMAGE',
    'no boot record: nothing below 4 GiB is a boot_params page whose setup_data has a kho_data (type 10)',
  );
}

function searchChunk(memory: PhysicalMemory, start: PhysicalAddress, length: number): BootRecord | undefined {
  const bytes = memory.view(start, length);
  for (let at = Math.floor(length / PAGE_SIZE) * PAGE_SIZE - PAGE_SIZE; at >= 0; at -= PAGE_SIZE) {
    const params = decodeBootParams(bytes.subarray(at, at + BOOT_PARAMS_SIZE));
    if (params === undefined) continue;
    const data = findKhoData(memory, params.setupData);
    if (data === undefined) continue;
    return {
      kind: 'x86_64 setup_data',
      address: after(start, at),
      firmware: params.firmware,
      commandLine: readCommandLine(memory, params.commandLineAddress),
      root: addressField(data.fdtAddress, 'fdt_addr'),
      rootSize: data.fdtSize,
      scratchArray: addressField(data.scratchAddress, 'scratch_addr'),
      scratchArraySize: data.scratchSize,
    };
  }
  return undefined;
}

function findKhoData(memory: PhysicalMemory, first: PhysicalAddress) {
  let address = first;
  for (let nodes = 0; address !== 0 && nodes < MAX_SETUP_DATA; nodes++) {
    try {
      const type = memory.readU32(after(address, 8));
      const length = memory.readU32(after(address, 12));
      if (type === SETUP_KEXEC_KHO && length === KHO_DATA_SIZE) {
        return decodeKhoData(memory.read(after(address, SETUP_DATA_HEADER_SIZE), KHO_DATA_SIZE));
      }
      address = physicalAddress(memory.readU64Number(address));
    } catch (error) {
      if (error instanceof KhoError) return undefined; // a pointer to nowhere: these were no boot_params
      throw error;
    }
  }
  return undefined;
}

function addressField(value: number, field: string): PhysicalAddress {
  if (value === 0 || value % PAGE_SIZE !== 0 || value > 2 ** 52) {
    throw new KhoError('KHO_EIMAGE', `the boot record's ${field} is ${hex(value)}, which is not the address of a page`);
  }
  return physicalAddress(value);
}
