import { KhoError } from '../errors.js';
import { PAGE_SIZE } from '../memblock/index.js';
import { type AddressRange, type FoundRange, overlapsAny } from './address-ranges.js';
import type { CapturedFiles } from './captured-files.js';

/** The machine name of uname(2), since Linux 6.1. */
export const ARCH = 'proc/sys/kernel/arch';

const MIB = 2 ** 20;
/** What x86-64 takes out of the firmware's map whatever that says: the first page, and the legacy ROMs (trim_bios_range()). */
export const FIRST_PAGE: AddressRange = { base: 0, end: PAGE_SIZE };
export const LEGACY_ROMS: AddressRange = { base: 0xa0000, end: MIB };

/** KHO_EOPNOTSUPP for a machine whose name is another than x86-64's. `uname` serves where no file says it. False if nothing does. */
export function checkArchitectureName(files: CapturedFiles, uname: string | undefined): boolean {
  const name = files.line(ARCH) ?? uname;
  if (name !== undefined && name !== 'x86_64') throw otherArchitecture(files, files.name(ARCH), `is '${name}'`);
  return name !== undefined;
}

/**
 * KHO_EOPNOTSUPP for memory that no x86-64 machine has, whatever it is called. A PC's memory begins below 1 MiB, in one source
 * at least; that of an arm64 server does not. Raspberry Pi and s390 have memory from 0 on too, but without a hole for ROMs,
 * which the kernel of a PC makes even where its firmware has none: `ram` is what the kernel has, `memory` all that is known.
 */
export function checkArchitectureMemory(
  files: CapturedFiles,
  ram: readonly FoundRange[],
  memory: readonly AddressRange[],
  source: string,
): void {
  const overRoms = ram.find((range) => overlapsAny(range, [LEGACY_ROMS]));
  if (overRoms !== undefined) {
    const what = 'has memory in the place of the legacy ROMs (0xa0000-0xfffff), where the kernel of x86_64 has none';
    throw otherArchitecture(files, overRoms.where, what, files.name(source));
  }
  if (memory.every(({ base }) => base >= MIB)) {
    throw otherArchitecture(files, files.name(source), 'has no memory below 1 MiB, as every x86_64 machine has');
  }
}

function otherArchitecture(files: CapturedFiles, where: string, what: string, file = where): KhoError {
  const text = `the machine of ${files.root} is no x86_64, which alone is modelled so far: ${where} ${what}`;
  return new KhoError('KHO_EOPNOTSUPP', text, { file });
}
