import type { FirmwareRange } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  type BootRange,
  hex,
  MAX_NUMNODES,
  MemoryStretch,
  PAGE_SIZE,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
} from '../memblock/index.js';

/** A boot record has room for so many ranges of firmware (E820_MAX_ENTRIES_ZEROPAGE of x86-64). */
export const FIRMWARE_RANGES_MAX = 128;

/** Memory of one node. */
export interface NodeMemory {
  readonly base: PhysicalAddress;
  /** Bytes, whole pages. */
  readonly size: number;
  readonly nid: number;
}

/** The memory of a machine that is not made up from a size and a number of nodes: of a real one, usually. */
export interface HostMemoryMap {
  /** What firmware says, as the next kernel is told it. Ascending; what is in none is no memory. */
  readonly firmware: readonly FirmwareRange[];
  /** What the kernel has of it, by node: in usable ranges of {@link firmware}. Ascending. */
  readonly ranges: readonly NodeMemory[];
  /** The running kernel's image, data and bss included. Where the model puts it, if that is not known. */
  readonly kernel?: Readonly<BootRange>;
  /** What else is taken before scratch is, such as a crash kernel's memory. */
  readonly reserved?: readonly Readonly<BootRange>[];
}

/**
 * KHO_EINVAL, with address and field, for a map that contradicts itself: ranges that are empty, overlap, are not in order
 * or end above 2^52; memory that firmware does not call usable; more ranges of firmware than a boot record has room for.
 */
export function checkMemoryMap({ firmware, ranges, kernel, reserved = [] }: HostMemoryMap): void {
  if (firmware.length > FIRMWARE_RANGES_MAX) {
    const text = `${firmware.length} ranges of firmware are more than a boot record holds, ${FIRMWARE_RANGES_MAX}`;
    throw new KhoError('KHO_EINVAL', text, { field: 'host.memoryMap.firmware' });
  }
  checkOrder('firmware', firmware);
  checkOrder('nodes', ranges);
  if (ranges.length === 0) {
    throw new KhoError('KHO_EINVAL', 'a host needs memory on at least one node', { field: 'host.memoryMap.nodes' });
  }
  const usable = new MemoryStretch(firmware.filter((range) => range.usable));
  for (const { base, size, nid } of ranges) {
    const wrong = (text: string) => invalid(`${rangeText({ base, size })} ${text}`, base, 'nodes');
    if (base % PAGE_SIZE !== 0 || size % PAGE_SIZE !== 0) throw wrong('is not in whole pages of 4 KiB');
    if (!Number.isInteger(nid) || nid < 0 || nid >= MAX_NUMNODES) throw wrong(`is on node ${nid}; nodes are 0 to 1023`);
    if (!usable.holds(base, size)) throw wrong('is memory of a node, but firmware calls it not usable');
  }
  const memory = new MemoryStretch(ranges);
  const taken = reserved.map((range) => ({ ...range, field: 'reserved' }));
  if (kernel !== undefined) taken.unshift({ ...kernel, field: 'kernel' });
  for (const { address, size, field } of taken) {
    if (size > 0 && memory.holds(address, size)) continue;
    throw invalid(`${rangeText({ base: address, size })} is no memory of a node`, address, field);
  }
}

/** KHO_EINVAL if the running kernel, wherever it was placed, lies in memory that is reserved for something else. */
export function checkKernelPlace(kernel: BootRange, reserved: readonly BootRange[]): void {
  const other = firstOverlapping(reserved, kernel);
  if (other === undefined) return;
  const [what, where] = [other, kernel].map(({ address, size }) => rangeText({ base: address, size }));
  throw invalid(`${what} is reserved, but the kernel is at ${where}`, other.address, 'reserved');
}

/** The first of `ranges` that shares a byte with another. */
export function firstOverlapping(ranges: readonly BootRange[], { address, size }: BootRange): BootRange | undefined {
  return ranges.find((range) => range.address < address + size && address < range.address + range.size);
}

function checkOrder(field: string, ranges: readonly { base: number; size: number }[]): void {
  let before: { base: number; size: number } | undefined;
  for (const range of ranges) {
    const { base, size } = range;
    if (!Number.isSafeInteger(base) || !Number.isSafeInteger(size) || base < 0 || base + size > PHYS_ADDR_MAX) {
      throw invalid(`${rangeText(range)} is no range of physical addresses below 2^52`, base, field);
    }
    if (size <= 0) throw invalid(`the range at ${hex(base)} is empty`, base, field);
    if (before !== undefined && base < before.base + before.size) {
      const what = base < before.base ? 'stands after' : 'overlaps';
      throw invalid(`${rangeText(range)} ${what} ${rangeText(before)}`, base, field);
    }
    before = range;
  }
}

/** As /proc/iomem writes it: both ends inclusive. */
function rangeText({ base, size }: { base: number; size: number }): string {
  return `${hex(base)}-${hex(base + size - 1)}`;
}

function invalid(text: string, address: number, field: string): KhoError {
  return new KhoError('KHO_EINVAL', `memory map: ${text}`, { address, field: `host.memoryMap.${field}` });
}
