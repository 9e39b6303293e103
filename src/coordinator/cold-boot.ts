import { type Architecture, architectureNamed, type FirmwareRange } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignDown,
  alignUp,
  type BootRange,
  hex,
  type KernelParameters,
  Memblock,
  type MemoryRange,
  PAGE_SIZE,
  PageAllocator,
  type PageRange,
  parseCommandLine,
  physicalAddress,
  type ReservedMem,
  reserveBootAllocations,
  reserveNamedMemory,
  reserveScratch,
  type Scratch,
  SharedPhysicalMemory,
} from '../memblock/index.js';
import { checkKernelPlace, checkMemoryMap, firstOverlapping } from './host-memory-map.js';
import { Inheritance, unclaimedParts } from './inheritance.js';
import type { HostOptions } from './plan.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** What the kernel needs on each node. */
const NODE_MEMORY_MIN = 8 * MIB;
/** NUMA nodes begin at multiples of this: huge pages never lie across two nodes. */
const NODE_ALIGNMENT = 2 * MIB;
/** Where the running kernel's image lies; x86-64 loads at 16 MiB unless told otherwise. */
const KERNEL_ADDRESS = 16 * MIB;
/** The image of a distribution's kernel, data and bss included. */
const KERNEL_SIZE = 32 * MIB;
/** All below 1 MiB is the firmware's and the real-mode trampoline's. */
export const LOW_RESERVED = { address: physicalAddress(0), size: MIB };

/** A machine whose kernel has booted, up to the point where drivers run. */
export interface BootedMachine {
  readonly options: HostOptions;
  readonly arch: Architecture;
  readonly firmware: readonly FirmwareRange[];
  readonly parameters: KernelParameters;
  readonly memory: SharedPhysicalMemory;
  readonly memblock: Memblock;
  readonly reserveMem: readonly ReservedMem[];
  readonly scratch: Scratch;
  readonly pages: PageAllocator;
  readonly kexecCount: number;
  readonly previousRelease: string;
  readonly inheritance: Inheritance;
}

/**
 * Switches a machine on and boots it. KHO_EINVAL for memory or a command line that cannot be (unless `cmdlineRules` says
 * otherwise, what the kernel would silently ignore is an error), KHO_EOPNOTSUPP where KHO is off, KHO_ENOMEM where memory is too small for its scratch.
 */
export function coldBoot(options: HostOptions): BootedMachine {
  const arch = architectureNamed(options.arch);
  const parameters = parseCommandLine(options.cmdline, { mode: options.cmdlineRules ?? 'strict', khoDefault: false });
  if (!parameters.kho) {
    throw new KhoError('KHO_EOPNOTSUPP', "KHO is off: the command line must say 'kho=on'", { field: 'host.cmdline' });
  }
  const { memoryMap: map } = options;
  if (map !== undefined) checkMemoryMap(map);
  const firmware = map?.firmware ?? arch.firmwareMap(options.memory);
  const nodes = map?.ranges.map((range) => ({ ...range, backed: true })) ?? spreadOverNodes(firmware, options.nodes);
  const ranges = setGuestMemoryApart(nodes, options);
  const memory = SharedPhysicalMemory.create(ranges);
  const memblock = new Memblock();
  memblock.allowResize(); // the first thing that e820__memblock_setup() does
  for (const { base, size, nid } of ranges) memblock.addNode(base, size, nid);
  const kernel = {
    address: map?.kernel?.address ?? physicalAddress(KERNEL_ADDRESS),
    size: options.kernelSize ?? map?.kernel?.size ?? KERNEL_SIZE,
  };
  if (map?.reserved !== undefined) checkKernelPlace(kernel, map.reserved);
  const reserved = [LOW_RESERVED, ...(map?.reserved ?? [])];
  reserveGuestMemory(memblock, memory, [kernel, ...reserved]);
  reserveBootAllocations(memblock, { cpus: options.cpus, kernel, reserved });
  const reserveMem = reserveNamedMemory(memblock, parameters.reserveMem);
  const scratch = reserveScratch(memblock, parameters.scratch);
  const pages = freePagesOf(memory, memblock);
  const first = { kexecCount: 0, previousRelease: '', inheritance: new Inheritance() };
  return { options, arch, firmware, parameters, memory, memblock, reserveMem, scratch, pages, ...first };
}

/** A page allocator that has what memblock has left, and of the guests' memory all but `taken`, which is ascending. */
export function freePagesOf(
  memory: SharedPhysicalMemory,
  memblock: Memblock,
  taken: readonly PageRange[] = [],
): PageAllocator {
  const pages = new PageAllocator(memory.ranges);
  for (const { base, size, nid } of wholePages(memblock)) pages.addFreeRange(base, size, nid);
  for (const { base, size, nid, backed } of memory.ranges) {
    if (backed) continue;
    for (const free of unclaimedParts({ base, pages: size / PAGE_SIZE }, taken)) {
      pages.addFreeRange(free.address, free.pages * PAGE_SIZE, nid);
    }
  }
  return pages;
}

/**
 * Takes the guests' memory out of what the kernel allocates from, before it allocates anything: a plain reservation, as
 * `memmap=` or hugetlb's of Linux 7.3 (RSRV_HUGETLB) are, which scratch is not scaled by. The kernel has struct pages for it.
 * KHO_EINVAL if something else is there already, one of `others`.
 */
export function reserveGuestMemory(
  memblock: Memblock,
  { ranges }: SharedPhysicalMemory,
  others: readonly BootRange[] = [],
): void {
  for (const { base, size, nid, backed } of ranges) {
    if (backed) continue;
    const other = firstOverlapping(others, { address: base, size });
    if (other !== undefined) {
      const text = `the guests' memory at ${hex(base)} (${hex(size)} bytes) would take in what is at ${hex(other.address)}`;
      throw new KhoError('KHO_EINVAL', text, { field: 'host.guestMemory', address: base });
    }
    memblock.reserve(base, size, { nid });
  }
}

/** Usable memory in whole pages, cut into nodes of the same size in the order of addresses. */
function spreadOverNodes(firmware: readonly FirmwareRange[], nodes: number): MemoryRange[] {
  const usable = firmware
    .filter((range) => range.usable)
    .map(({ base, size }) => ({ base: alignUp(base, PAGE_SIZE), end: alignDown(base + size, PAGE_SIZE) }));
  const total = usable.reduce((sum, { base, end }) => sum + (end - base), 0);
  const share = total / nodes;
  if (!Number.isInteger(nodes) || nodes < 1 || share < NODE_MEMORY_MIN) {
    throw new KhoError(
      'KHO_EINVAL',
      `${nodes} NUMA nodes cannot share ${total} bytes of memory (at least 8 MiB each)`,
      {
        field: 'host.nodes',
      },
    );
  }
  const ranges: MemoryRange[] = [];
  let nid = 0;
  let left = share;
  for (const { base, end } of usable) {
    for (let at = base; at < end; ) {
      const border = nid === nodes - 1 ? end : Math.min(end, alignUp(at + left, NODE_ALIGNMENT));
      ranges.push({ base: physicalAddress(at), size: border - at, nid, backed: true });
      left -= border - at;
      at = border;
      if (left <= 0 && nid < nodes - 1) {
        nid++;
        left += share;
      }
    }
  }
  return ranges;
}

/** Makes the top of each node unbacked: its share of the guests' memory, in whole GiB at multiples of 1 GiB where it can be. */
function setGuestMemoryApart(ranges: readonly MemoryRange[], { guestMemory = 0, memory }: HostOptions): MemoryRange[] {
  if (guestMemory === 0) return [...ranges];
  if (!(guestMemory > 0 && guestMemory % NODE_ALIGNMENT === 0 && guestMemory < memory)) {
    const wrong =
      guestMemory >= memory
        ? `must be less than the host's memory, ${memory} bytes: its kernel needs some too`
        : 'are not a multiple of 2 MiB';
    const text = `${guestMemory} bytes of guest memory ${wrong}`;
    throw new KhoError('KHO_EINVAL', text, { field: 'host.guestMemory' });
  }
  const nids = [...new Set(ranges.map(({ nid }) => nid))].sort((a, b) => a - b);
  const unit = guestMemory >= nids.length * GIB ? GIB : NODE_ALIGNMENT;
  const units = Math.floor(guestMemory / unit);
  return nids.flatMap((nid, index) => {
    const own = ranges.filter((range) => range.nid === nid);
    // What is no whole unit goes to the last node.
    const rest = index === nids.length - 1 ? guestMemory % unit : 0;
    const share = (Math.floor(units / nids.length) + (index < units % nids.length ? 1 : 0)) * unit + rest;
    const total = own.reduce((sum, { size }) => sum + size, 0);
    const large = cutTop(own, share, GIB);
    const small = cutTop(large.ranges, large.left, NODE_ALIGNMENT);
    if (small.left === 0 && total - share >= NODE_MEMORY_MIN) return small.ranges;
    const text = `node ${nid} has ${total} bytes of memory: too few for ${share} bytes of guests and 8 MiB of its own`;
    throw new KhoError('KHO_EINVAL', text, { field: 'host.guestMemory' });
  });
}

/** Takes up to `bytes` in whole units, at multiples of one, from the top of the backed ranges; `left` is what they lack. */
function cutTop(
  ranges: readonly MemoryRange[],
  bytes: number,
  unit: number,
): { readonly ranges: MemoryRange[]; readonly left: number } {
  const cut: MemoryRange[] = [];
  let left = bytes;
  for (const range of [...ranges].reverse()) {
    const { base, nid, backed } = range;
    const end = base + range.size;
    const top = alignDown(end, unit);
    const size = backed ? Math.max(0, Math.min(alignDown(left, unit), top - alignUp(base, unit))) : 0;
    left -= size;
    const pieces = [
      { base: top, size: end - top, nid, backed },
      { base: top - size, size, nid, backed: false },
      { base, size: top - size - base, nid, backed },
    ];
    cut.push(...(size === 0 ? [range] : pieces.map((piece) => ({ ...piece, base: physicalAddress(piece.base) }))));
  }
  return { ranges: cut.filter(({ size }) => size > 0).reverse(), left };
}

/** The free ranges of memblock, without the pages that something occupies in part. */
function* wholePages(memblock: Memblock): Generator<{ base: MemoryRange['base']; size: number; nid: number }> {
  for (const { start, end, nid } of memblock.freeRanges()) {
    const first = alignUp(start, PAGE_SIZE);
    const last = alignDown(end, PAGE_SIZE);
    if (last > first) yield { base: physicalAddress(first), size: last - first, nid };
  }
}
