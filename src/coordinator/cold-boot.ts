import { type Architecture, architectureNamed, type FirmwareRange } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignDown,
  alignUp,
  type KernelParameters,
  Memblock,
  type MemoryRange,
  PAGE_SIZE,
  PageAllocator,
  parseCommandLine,
  physicalAddress,
  type ReservedMem,
  reserveBootAllocations,
  reserveNamedMemory,
  reserveScratch,
  type Scratch,
  SharedPhysicalMemory,
} from '../memblock/index.js';
import { checkMemoryMap } from './host-memory-map.js';
import { Inheritance } from './inheritance.js';
import type { HostOptions } from './plan.js';

const MIB = 2 ** 20;
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
  const ranges = map?.ranges.map((range) => ({ ...range, backed: true })) ?? spreadOverNodes(firmware, options.nodes);
  const memory = SharedPhysicalMemory.create(ranges);
  const memblock = new Memblock();
  memblock.allowResize(); // the first thing that e820__memblock_setup() does
  for (const { base, size, nid } of ranges) memblock.addNode(base, size, nid);
  reserveBootAllocations(memblock, {
    cpus: options.cpus,
    kernel: {
      address: map?.kernel?.address ?? physicalAddress(KERNEL_ADDRESS),
      size: options.kernelSize ?? map?.kernel?.size ?? KERNEL_SIZE,
    },
    reserved: [LOW_RESERVED, ...(map?.reserved ?? [])],
  });
  const reserveMem = reserveNamedMemory(memblock, parameters.reserveMem);
  const scratch = reserveScratch(memblock, parameters.scratch);
  const pages = freePagesOf(memory, memblock);
  const first = { kexecCount: 0, previousRelease: '', inheritance: new Inheritance() };
  return { options, arch, firmware, parameters, memory, memblock, reserveMem, scratch, pages, ...first };
}

/** A page allocator that has what memblock has left. */
export function freePagesOf(memory: SharedPhysicalMemory, memblock: Memblock): PageAllocator {
  const pages = new PageAllocator(memory.ranges);
  for (const { base, size, nid } of wholePages(memblock)) pages.addFreeRange(base, size, nid);
  return pages;
}

/** Usable memory in whole pages, cut into nodes of the same size in the order of addresses. */
function spreadOverNodes(firmware: readonly FirmwareRange[], nodes: number): MemoryRange[] {
  const usable = firmware
    .filter((range) => range.usable)
    .map(({ base, size }) => ({ base: alignUp(base, PAGE_SIZE), end: alignDown(base + size, PAGE_SIZE) }));
  const total = usable.reduce((sum, { base, end }) => sum + (end - base), 0);
  const share = total / nodes;
  if (!Number.isInteger(nodes) || nodes < 1 || share < 8 * MIB) {
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

/** The free ranges of memblock, without the pages that something occupies in part. */
function* wholePages(memblock: Memblock): Generator<{ base: MemoryRange['base']; size: number; nid: number }> {
  for (const { start, end, nid } of memblock.freeRanges()) {
    const first = alignUp(start, PAGE_SIZE);
    const last = alignDown(end, PAGE_SIZE);
    if (last > first) yield { base: physicalAddress(first), size: last - first, nid };
  }
}
