import { hex, PHYS_ADDR_MAX } from '../memblock/index.js';
import { type FoundRange, overlapsAny, rangeText } from './address-ranges.js';
import type { CapturedFiles } from './captured-files.js';

export const IOMEM = 'proc/iomem';
/** The name that every architecture gives to memory (kernel/resource.c looks for it by flags, tools by this name). */
export const SYSTEM_RAM = 'System RAM';
/** r_show() of kernel/resource.c indents so many levels; what is deeper stands among its parents. */
const INDENTED_LEVELS = 5;
const LINE = /^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.+)$/;
/** What the firmware's map calls its ranges (e820_type_to_string() in arch/x86/kernel/e820.c), memory aside. */
export const FIRMWARE_TYPES =
  /^(reserved|acpi tables|acpi non-volatile storage|unusable memory|persistent memory( \(legacy\))?|soft reserved|unknown e820 type)$/i;

const KERNEL_PARTS = ['Kernel code', 'Kernel data', 'Kernel bss'];

/** One resource. */
export interface IomemEntry extends FoundRange {
  readonly name: string;
  /** Both ends as the file has them: a number above 2^53 would be rounded. */
  readonly text: string;
  /** 0: not inside of another. */
  readonly depth: number;
}

/** What /proc/iomem says of memory. */
export interface Iomem {
  /** All that it has, of whatever name. */
  readonly entries: readonly FoundRange[];
  /** Memory that the kernel had at boot, or that was plugged in later. */
  readonly ram: readonly FoundRange[];
  /** Memory of drivers that is used as the kernel's (`System RAM (kmem)`; plain before 5.8), which was not there at boot. */
  readonly driverManaged: readonly FoundRange[];
  /** Ranges of the firmware's map that are no memory. */
  readonly reserved: readonly FoundRange[];
  /** `Kernel code`, `Kernel data` and so on, in memory; of a kernel that is not cut see {@link kernelOf}. */
  readonly kernelParts: readonly IomemEntry[];
  /** What is taken inside of memory: a crash kernel's, and what firmware left there. */
  readonly taken: readonly FoundRange[];
}

/**
 * Reads /proc/iomem. Undefined if there is none; `'hidden'` if all addresses are 0, as they are for readers without
 * CAP_SYS_ADMIN. KHO_EINVAL with file and line if it is cut or no such file, if ranges overlap, or if memory ends above 2^52.
 */
export function readIomem(files: CapturedFiles): Iomem | 'hidden' | undefined {
  const text = files.text(IOMEM);
  if (text === undefined) return undefined;
  const entries = parseIomem(files, text);
  if (entries.every(({ base, end }) => base === 0 && end === 1)) return 'hidden';
  checkNesting(files, entries);
  const levelOf = levelsIn(entries);
  const memory = entries.filter(({ name }) => name === SYSTEM_RAM);
  const ram = memory.filter((entry) => levelOf(entry) === 0);
  const nested = entries.filter((entry) => levelOf(entry) === 1 && ram.some((range) => isInside(entry, range)));
  const driverManaged = [
    ...memory.filter((entry) => levelOf(entry) > 0),
    ...entries.filter(({ name }) => name.startsWith(`${SYSTEM_RAM} (`)),
  ];
  for (const range of [...ram, ...driverManaged]) {
    if (range.end > PHYS_ADDR_MAX) throw files.invalid(IOMEM, `has memory above 2^52: ${range.text}`);
  }
  return {
    entries,
    ram,
    driverManaged,
    reserved: entries.filter((entry) => levelOf(entry) === 0 && FIRMWARE_TYPES.test(entry.name)),
    kernelParts: nested.filter(({ name }) => name.startsWith('Kernel ')),
    taken: nested.filter(({ name }) => /^(crash kernel|reserved)$/i.test(name)),
  };
}

/**
 * How deep inside of others something is, windows of CXL aside: cxl_acpi puts them around what firmware gave out as memory
 * at boot, and stretches them over all of it (add_cxl_resources()).
 */
function levelsIn(entries: readonly IomemEntry[]): (entry: IomemEntry) => number {
  const windows = entries.filter(({ name }) => name.startsWith('CXL Window'));
  return (entry) =>
    entry.depth - windows.filter((window) => entry.depth > window.depth && isInside(entry, window)).length;
}

function isInside(inner: FoundRange, outer: FoundRange): boolean {
  return outer.base <= inner.base && inner.end <= outer.end;
}

function parseIomem(files: CapturedFiles, text: string): IomemEntry[] {
  if (text.trim() === '') throw files.invalid(IOMEM, 'is empty');
  const lines = text.split('\n');
  if (lines.pop() !== '') throw files.invalid(IOMEM, 'is cut: the line has no end', lines.length + 1);
  return lines.map((line, index) => {
    const [, indent, start, end, name] = LINE.exec(line) ?? [];
    if (name === undefined || indent.length % 2 !== 0) {
      const shown = line.length > 60 ? `${line.slice(0, 60)}…` : line;
      throw files.invalid(IOMEM, `is '${shown}'; expected a line such as '00100000-bfffffff : System RAM'`, index + 1);
    }
    // Above 2^53 a number is not exact; memory there is refused, and nothing else is looked at.
    const [base, last] = [Number.parseInt(start, 16), Number.parseInt(end, 16)];
    if (last < base) throw files.invalid(IOMEM, `ends before it begins: ${start}-${end}`, index + 1);
    const where = `${files.name(IOMEM)}:${index + 1}`;
    const text = [start, end].map((digits) => hex(BigInt(`0x${digits}`))).join('-');
    return { base, end: last + 1, name, text, depth: indent.length / 2, where };
  });
}

/** Resources are a tree: those inside of one follow it, in order and apart. */
function checkNesting(files: CapturedFiles, entries: readonly IomemEntry[]): void {
  const open: IomemEntry[] = [];
  for (const [index, entry] of entries.entries()) {
    if (entry.depth >= INDENTED_LEVELS) continue;
    const parent = open[entry.depth - 1];
    const before = open[entry.depth];
    if (entry.depth > 0 && parent === undefined) {
      throw files.invalid(IOMEM, 'is inside of a range that is not there; the file is cut', index + 1);
    }
    if (parent !== undefined && !isInside(entry, parent)) {
      const text = `has ${entry.text}, which is not inside of ${parent.text} (${parent.where})`;
      throw files.invalid(IOMEM, text, index + 1);
    }
    if (before !== undefined && entry.base < before.end) {
      const text = `has ${entry.text} (${entry.name}), which overlaps ${before.text} (${before.name}, ${before.where})`;
      throw files.invalid(IOMEM, text, index + 1);
    }
    open.length = entry.depth;
    open[entry.depth] = entry;
  }
}

/**
 * From the first byte of the kernel's code to the last of its bss. KHO_EINVAL where a part is missing: x86-64 enters them all,
 * whatever its configuration (setup_kernel_resources() in arch/x86/kernel/setup.c); and where something else is in its place.
 */
export function kernelOf(files: CapturedFiles, { kernelParts, taken }: Iomem): FoundRange {
  const missing = KERNEL_PARTS.filter((part) => !kernelParts.some(({ name }) => name === part));
  if (missing.length > 0) {
    throw files.invalid(IOMEM, `has no ${missing.join(', ')} in ${SYSTEM_RAM}, as every x86_64 kernel has: it is cut`);
  }
  const [{ base, where }] = kernelParts;
  const kernel = { base, end: Math.max(...kernelParts.map(({ end }) => end)), where };
  const other = taken.find((range) => overlapsAny(range, [kernel]));
  if (other === undefined) return kernel;
  throw files.invalid(IOMEM, `has ${rangeText(other)} (${other.where}) where the kernel is, ${rangeText(kernel)}`);
}
