import type { FirmwareRange } from '../arch/index.js';
import { FIRMWARE_RANGES_MAX, type HostMemoryMap, type NodeMemory } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { alignDown, alignUp, PAGE_SIZE, physicalAddress, tokenizeCommandLine } from '../memblock/index.js';
import {
  type AddressRange,
  difference,
  type FoundRange,
  intersection,
  overlapsAny,
  rangeText,
  totalOf,
  union,
} from './address-ranges.js';
import { checkArchitectureMemory, FIRST_PAGE, LEGACY_ROMS } from './architecture.js';
import type { CapturedFiles } from './captured-files.js';
import { FIRMWARE_MEMMAP, type MemmapEntry, readFirmwareMemmap } from './firmware-memmap.js';
import { IOMEM, type Iomem, kernelOf, readIomem, SYSTEM_RAM } from './iomem.js';
import { NODES, type NumaNodes, readNumaNodes } from './numa-nodes.js';

const MIB = 2 ** 20;
/** Words of a command line that add memory to the firmware's map. */
const ADDS_MEMORY: ReadonlySet<string> = new Set(['memmap', 'add_efi_memmap']);
/** Words that take memory away (parse_memopt() and parse_memmap_opt() in arch/x86/kernel/e820.c). */
const TAKES_MEMORY: ReadonlySet<string> = new Set(['mem', 'memmap']);
const NOTHING_TAKES = 'neither mem= nor memmap= is on the command line';

export interface CapturedMemory {
  readonly map: HostMemoryMap;
  /** What is not as it was on the machine, and why. */
  readonly notices: readonly string[];
}

/**
 * The memory map of a machine, from the three places that tell of it. The firmware's map is what firmware gave to the first
 * kernel, `System RAM` of iomem is what the kernel has of it, memory blocks say on which node. Where one is missing the
 * others serve.
 *
 * KHO_EINVAL, naming both files and the ranges, where they contradict each other; and where none of them is there.
 * KHO_EOPNOTSUPP for the memory of another architecture than x86-64.
 */
export function readCapturedMemory(files: CapturedFiles, cmdline: string): CapturedMemory {
  const notices: string[] = [];
  const memmap = readFirmwareMemmap(files);
  const shown = readIomem(files);
  const iomem = shown === 'hidden' ? undefined : shown;
  const nodes = readNumaNodes(files);
  notices.push(...nodes.notices);
  const source = iomem !== undefined ? IOMEM : memmap !== undefined ? FIRMWARE_MEMMAP : NODES;
  if (iomem === undefined) {
    const why = shown === 'hidden' ? 'hides its addresses from everyone but root' : files.absence(IOMEM);
    const instead = `${source === NODES ? 'memory blocks of ' : ''}${files.name(source)}`;
    notices.push(
      `${files.name(IOMEM)} ${why}; the memory map is made from ${instead} instead, without the place of the kernel and of a crash kernel`,
    );
  }
  const firmwareRam = memmap?.filter(({ type }) => type === SYSTEM_RAM) ?? [];
  const sources: Sources = { memmap, firmwareRam, iomem, nodes, cmdline, taking: takingWord(cmdline), notices };
  const usable = usableMemory(files, sources);
  checkArchitectureMemory(files, iomem?.ram ?? [], union(usable, firmwareRam), source);
  const image = iomem && kernelOf(files, iomem);
  checkBlocks(files, sources, usable);
  if (usable.length > FIRMWARE_RANGES_MAX) {
    throw files.invalid(source, `has ${usable.length} ranges of memory; a boot record holds ${FIRMWARE_RANGES_MAX}`);
  }
  const ranges = spreadOverNodes(usable, nodes, notices);
  if (ranges.length === 0) throw files.invalid('', 'has no whole page of memory');
  const reserved = memmap?.filter(({ type }) => type !== SYSTEM_RAM) ?? iomem?.reserved ?? [];
  const known = ranges.map(({ base, size }) => ({ base, end: base + size }));
  const kernel = image && intersection([image], known)[0];
  const taken = intersection(iomem?.taken ?? [], known);
  return {
    map: {
      firmware: firmwareRanges(usable, union(reserved, firmwareRam), notices),
      ranges,
      ...(kernel && { kernel: bootRange(kernel) }),
      ...(taken.length > 0 && { reserved: taken.map(bootRange) }),
    },
    notices,
  };
}

const bootRange = ({ base, end }: AddressRange) => ({ address: physicalAddress(base), size: end - base });

interface Sources {
  readonly memmap: readonly MemmapEntry[] | undefined;
  readonly firmwareRam: readonly FoundRange[];
  readonly iomem: Iomem | undefined;
  readonly nodes: NumaNodes;
  readonly cmdline: string;
  /** The name of the word on the command line that takes memory away. */
  readonly taking: string | undefined;
  readonly notices: string[];
}

function takingWord(cmdline: string): string | undefined {
  return tokenizeCommandLine(cmdline).find(
    ({ name, value }) => TAKES_MEMORY.has(name) && value !== undefined && value !== 'nopentium',
  )?.name;
}

/** What the kernel has, in order: iomem's, if it can be seen. */
function usableMemory(files: CapturedFiles, sources: Sources): AddressRange[] {
  const { memmap, firmwareRam, iomem, nodes, cmdline, taking, notices } = sources;
  if (iomem === undefined) {
    const ram = memmap === undefined ? nodes.blocks : firmwareRam;
    if (ram.length > 0) return difference(ram, [FIRST_PAGE, LEGACY_ROMS]);
    const tried = [IOMEM, FIRMWARE_MEMMAP, NODES].map((path) => files.name(path)).join(', ');
    const text = `nothing says where the memory of this machine lies: no memory in ${tried}; as root there is more to be read`;
    throw new KhoError('KHO_EINVAL', text, { file: files.root });
  }
  if (iomem.ram.length === 0) throw files.invalid(IOMEM, `has no ${SYSTEM_RAM}: it is cut, or of no machine`);
  if (memmap === undefined) return union(iomem.ram);

  const beyond = iomem.ram.find((range) => difference([range], firmwareRam).length > 0);
  if (beyond !== undefined) {
    const [part] = difference([beyond], firmwareRam);
    const other = memmap.find(({ base, end }) => base < part.end && part.base < end);
    const says =
      other === undefined
        ? `no range of ${files.name(FIRMWARE_MEMMAP)} has it`
        : `${other.where} calls it ${other.type}`;
    const contradiction = `${beyond.where} calls ${rangeText(part)} ${SYSTEM_RAM}, but ${says}`;
    const word = tokenizeCommandLine(cmdline).find(({ name }) => ADDS_MEMORY.has(name));
    if (word === undefined)
      throw new KhoError('KHO_EINVAL', contradiction, { file: files.name(IOMEM), address: part.base });
    notices.push(`${contradiction}; '${word.name}' on the command line adds memory, so ${files.name(IOMEM)} counts`);
  }
  if (taking === undefined) checkAllIsThere(files, firmwareRam, iomem);
  const withheld = totalOf(difference(firmwareRam, [...iomem.ram, FIRST_PAGE, LEGACY_ROMS]));
  if (withheld >= MIB) {
    const size = `${Math.round(withheld / MIB)} MiB`;
    const why = taking === undefined ? '' : ` ('${taking}=' on the command line)`;
    notices.push(`the kernel has ${size} less than firmware says${why}: the next kernel is told so too`);
  }
  return union(iomem.ram);
}

/**
 * Memory of firmware is in iomem under some name, be it `Reserved` where the kernel took it away. A range of which nothing is
 * there was lost when the file was copied. Of a part this is not certain: memory may have been unplugged.
 */
function checkAllIsThere(files: CapturedFiles, firmwareRam: readonly FoundRange[], { entries }: Iomem): void {
  const listed = union(entries, [FIRST_PAGE, LEGACY_ROMS]);
  const lost = firmwareRam.find((range) => !overlapsAny(range, listed));
  if (lost === undefined) return;
  const text =
    `${lost.where} calls ${rangeText(lost)} ${SYSTEM_RAM}, but ${files.name(IOMEM)} has nothing there, and ` +
    `${NOTHING_TAKES}: the file is cut`;
  throw new KhoError('KHO_EINVAL', text, { file: files.name(IOMEM), address: lost.base });
}

/**
 * A block of a node must have memory of one of the other sources, be it memory that was plugged in by a driver. It is made of
 * what the kernel had when it booted, or was given later: iomem has that too, if only as `Reserved` where the kernel took it away
 * again.
 */
function checkBlocks(files: CapturedFiles, sources: Sources, usable: readonly AddressRange[]): void {
  const { memmap, firmwareRam, iomem, nodes, taking } = sources;
  const { ram = [], driverManaged = [], reserved = [] } = iomem ?? {};
  const without = (memory: readonly AddressRange[]) => {
    const [block, ...more] = nodes.blocks.filter((block) => !overlapsAny(block, memory));
    if (block === undefined) return undefined;
    const others = more.length === 0 ? '' : ` (as ${more.length} more blocks are)`;
    return { block, text: `${block.where} (${rangeText(block)}) is memory of node ${block.nid}${others}` };
  };
  const empty = without(union(usable, firmwareRam, driverManaged));
  if (empty !== undefined) {
    const tried = [...(iomem ? [IOMEM] : []), ...(memmap ? [FIRMWARE_MEMMAP] : [])].map((path) => files.name(path));
    const text = `${empty.text}, but ${tried.join(' and ')} have no memory there`;
    throw new KhoError('KHO_EINVAL', text, { file: empty.block.where, address: empty.block.base });
  }
  if (iomem === undefined || taking !== undefined) return;
  const lost = without(union(ram, driverManaged, reserved));
  if (lost === undefined) return;
  const text = `${lost.text}, but ${files.name(IOMEM)} has none there, and ${NOTHING_TAKES}: the file is cut`;
  throw new KhoError('KHO_EINVAL', text, { file: files.name(IOMEM), address: lost.block.base });
}

/** Whole pages of memory, each on the node of its block; where no block is, on that of the nearest block below, or above. */
function spreadOverNodes(
  usable: readonly AddressRange[],
  { nids, populated, blocks }: NumaNodes,
  notices: string[],
): NodeMemory[] {
  if (nids.length > 1 && blocks.length === 0) {
    notices.push(
      `nodes ${nids.join(', ')} do not say where their memory lies; all of it is taken to be node ${nids[0]}'s`,
    );
  }
  const ranges: { base: number; end: number; nid: number }[] = [];
  const stray: AddressRange[] = [];
  let next = 0;
  let nid = blocks[0]?.nid ?? nids[0] ?? 0;
  for (const range of usable) {
    const end = alignDown(range.end, PAGE_SIZE);
    for (let at = alignUp(range.base, PAGE_SIZE); at < end; ) {
      while (next < blocks.length && blocks[next].end <= at) nid = blocks[next++].nid;
      const block = blocks.at(next);
      const inside = block !== undefined && block.base <= at;
      if (inside) nid = block.nid;
      const border = Math.min(end, (inside ? block.end : block?.base) ?? end);
      if (!inside) stray.push({ base: at, end: border });
      const last = ranges.at(-1);
      if (last !== undefined && last.end === at && last.nid === nid) last.end = border;
      else ranges.push({ base: at, end: border, nid });
      at = border;
    }
  }
  if (stray.length > 0 && blocks.length > 0) {
    const shown = `${rangeText(stray[0])}${stray.length > 1 ? ` and ${stray.length - 1} more` : ''}`;
    const size = Math.ceil(totalOf(stray) / MIB);
    notices.push(
      `${size} MiB of memory are in no node's blocks (${shown}); they are taken to be on the node below them`,
    );
  }
  for (const nid of populated.filter((nid) => !ranges.some((range) => range.nid === nid))) {
    notices.push(`node ${nid} is without memory here: that of its blocks is another node's, or not of the boot`);
  }
  return ranges.map(({ base, end, nid }) => ({ base: physicalAddress(base), size: end - base, nid }));
}

/** The firmware's map as the next kernel is told it: usable is what this kernel had. */
function firmwareRanges(
  usable: readonly AddressRange[],
  other: readonly AddressRange[],
  notices: string[],
): FirmwareRange[] {
  const unusable = difference(other, usable);
  // What is not mentioned is no memory either, so nothing is lost with ranges that a boot record has no room for.
  const fits = usable.length + unusable.length <= FIRMWARE_RANGES_MAX;
  if (!fits)
    notices.push(`${unusable.length} ranges of firmware that are no memory are left out: a boot record has no room`);
  const all = [
    ...usable.map((range) => ({ ...range, usable: true })),
    ...(fits ? unusable : []).map((range) => ({ ...range, usable: false })),
  ].sort((a, b) => a.base - b.base);
  return all.map(({ base, end, usable }) => ({ base: physicalAddress(base), size: end - base, usable }));
}
