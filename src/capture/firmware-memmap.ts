import { PHYS_ADDR_MAX } from '../memblock/index.js';
import { type FoundRange, rangeText, sorted } from './address-ranges.js';
import type { CapturedFiles } from './captured-files.js';
import { FIRMWARE_TYPES, SYSTEM_RAM } from './iomem.js';

export const FIRMWARE_MEMMAP = 'sys/firmware/memmap';

/** One range as firmware gave it to the first kernel, hot-plugged memory beside it (drivers/firmware/memmap.c). */
export interface MemmapEntry extends FoundRange {
  /** `System RAM`, `Reserved`, `ACPI Tables` … */
  readonly type: string;
  /** The directory of the range, below the machine's root. */
  readonly path: string;
}

/**
 * Reads /sys/firmware/memmap, in order of address. Undefined if there is none: only x86 has it, and not in every virtual
 * machine. KHO_EINVAL, naming the files, if a range is cut, of no type that a kernel has, ends above 2^52, or overlaps another: the kernel has sorted that
 * out before it shows the map.
 */
export function readFirmwareMemmap(files: CapturedFiles): MemmapEntry[] | undefined {
  const numbers = files.list(FIRMWARE_MEMMAP).filter((name) => /^\d+$/.test(name));
  if (numbers.length === 0) return undefined;
  const entries = sorted(
    numbers.map((number): MemmapEntry => {
      const path = `${FIRMWARE_MEMMAP}/${number}`;
      const lines = ['start', 'end'].map((name) => address(files, `${path}/${name}`));
      const [base, last] = lines.map(Number);
      // As the files have it: above 2^53 a number would be rounded.
      const text = lines.join('-');
      const where = files.name(path);
      if (last < base) throw files.invalid(path, `ends before it begins: ${text}`);
      if (last >= PHYS_ADDR_MAX) throw files.invalid(path, `is above 2^52: ${text}`);
      const type = files.requiredLine(`${path}/type`);
      if (type !== SYSTEM_RAM && !FIRMWARE_TYPES.test(type)) {
        throw files.invalid(
          `${path}/type`,
          `is '${type.slice(0, 60)}'; expected a type such as ${SYSTEM_RAM} or Reserved`,
        );
      }
      return { base, end: last + 1, type, path, where };
    }),
  );
  for (const [index, entry] of entries.entries()) {
    const before = entries[index - 1];
    if (before === undefined || before.end <= entry.base) continue;
    const text = `calls ${rangeText(entry)} ${entry.type}, but ${before.where} calls ${rangeText(before)} ${before.type}`;
    throw files.invalid(entry.path, text);
  }
  return entries;
}

function address(files: CapturedFiles, path: string): string {
  const line = files.requiredLine(path);
  if (/^0x[0-9a-f]{1,16}$/.test(line)) return line;
  throw files.invalid(path, `is '${line.slice(0, 60)}'; expected an address such as 0x9fbff`);
}
