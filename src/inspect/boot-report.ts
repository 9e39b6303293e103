import { decodeScratchArray, readUntrusted, type ScratchEntry } from '../abi/index.js';
import { type BootRecord, usableMemory } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { alignDown, hex, Memblock, PAGE_SIZE, type PhysicalMemory } from '../memblock/index.js';
import type { InspectContext } from './context.js';

/** What the boot record says. */
export interface BootRecordReport {
  readonly kind: string;
  readonly address: number;
  readonly commandLine: string;
  readonly firmware: readonly { readonly base: number; readonly size: number; readonly usable: boolean }[];
}

const SCRATCH_ARRAY_MAX = 64 * 1024;

export function recordReport({ kind, address, commandLine, firmware }: BootRecord): BootRecordReport {
  return { kind, address, commandLine, firmware };
}

/** An image that ends before memory does was cut short, or is another machine's. */
export function noteCutShort({ memory, findings }: InspectContext, { firmware }: BootRecord): void {
  const end = Math.max(0, ...firmware.filter(({ usable }) => usable).map(({ base, size }) => base + size));
  const last = memory.ranges.at(-1);
  const there = last === undefined ? 0 : last.base + last.size;
  if (alignDown(end, PAGE_SIZE) <= there) return;
  const text = `the image is cut short: it ends at ${hex(there)}, and firmware's map has memory up to ${hex(end)}`;
  findings.error(new KhoError('KHO_EIMAGE', text, { address: there }));
}

/** The scratch areas, each of which must be memory; undefined if the array cannot be read. */
export function inspectScratch(
  { memory, findings }: InspectContext,
  record: BootRecord,
): readonly ScratchEntry[] | undefined {
  const { scratchArray: address, scratchArraySize: size } = record;
  const areas = findings.attempt(() => {
    if (size > SCRATCH_ARRAY_MAX) {
      throw new KhoError('KHO_EIMAGE', `the scratch array has ${size} bytes, more than 64 KiB`, { address });
    }
    return decodeScratchArray(readUntrusted(memory, address, size, 'the scratch array'));
  });
  if (areas === undefined) return undefined;
  const usable = usableMemory(record.firmware);
  for (const area of areas) {
    if (area.size === 0 || usable.isRegionMemory(area.address, area.size)) continue;
    const text = `the scratch area at ${hex(area.address)} (${hex(area.size)} bytes) is not in memory`;
    findings.error(new KhoError('KHO_EIMAGE', text, { address: area.address, size: area.size }), 'scratch');
  }
  if (!areas.some((area) => record.address >= area.address && record.address < area.address + area.size)) {
    const text = `the boot record at ${hex(record.address)} lies in none of the scratch areas`;
    findings.add('warning', new KhoError('KHO_EIMAGE', text, { address: record.address }), 'scratch');
  }
  return areas;
}

/** Memory by the firmware's map; where there is no boot record, what the image itself says. */
export function memoryOf(memory: PhysicalMemory, record: BootRecord | undefined): Memblock {
  if (record !== undefined) return usableMemory(record.firmware);
  // Nothing boots here: there is room for all, wherever the ranges are from.
  const memblock = new Memblock(undefined, { initialRegions: 2 * memory.ranges.length + 1 });
  for (const { base, size } of memory.ranges) memblock.add(base, size);
  return memblock;
}
