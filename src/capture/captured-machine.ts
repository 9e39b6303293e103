import { CMDLINE_MAX, CPUS_MAX, type HostMemoryMap, RELEASE_MAX } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { parseCommandLine, tokenizeCommandLine } from '../memblock/index.js';
import { ARCH, checkArchitectureName } from './architecture.js';
import { CapturedFiles } from './captured-files.js';
import { readCapturedMemory } from './captured-memory.js';
import { FIRMWARE_MEMMAP } from './firmware-memmap.js';
import { IOMEM } from './iomem.js';
import { type NetInterface, readNetInterfaces } from './net-interfaces.js';
import { NODES } from './numa-nodes.js';
import { type PciFunction, readPciFunctions } from './pci-functions.js';

export const CMDLINE = 'proc/cmdline';
export const RELEASE = 'proc/sys/kernel/osrelease';
export const CPUS = ['sys/devices/system/cpu/possible', 'sys/devices/system/cpu/present'] as const;

/** A machine as its files tell of it. */
export interface CapturedMachine {
  readonly arch: 'x86_64';
  readonly release?: string;
  /** With KHO on. */
  readonly cmdline: string;
  /** Possible CPUs. */
  readonly cpus?: number;
  readonly memory: HostMemoryMap;
  readonly functions: readonly PciFunction[];
  readonly interfaces: readonly NetInterface[];
  /** Sentences about what could not be read, or was not taken as it was. */
  readonly notices: readonly string[];
}

export interface ReadMachineOptions {
  /** What uname(2) says, where the files do not: for the machine that this runs on. */
  readonly arch?: string;
  /** False to leave PCI functions and network interfaces alone. */
  readonly devices?: boolean;
}

/**
 * Reads a machine from the files below `root`, synchronously. KHO_EOPNOTSUPP for another architecture than x86-64; KHO_ENOENT
 * and KHO_EINVAL for a directory that is none of a machine; KHO_EINVAL, naming file and line, for files that are cut, damaged
 * or contradict each other; KHO_E2BIG for a file too large to be one; KHO_EIO.
 */
export function readCapturedMachine(root: string, { arch, devices = true }: ReadMachineOptions = {}): CapturedMachine {
  const files = new CapturedFiles(root);
  const sources = [IOMEM, FIRMWARE_MEMMAP, NODES, CMDLINE];
  if (!sources.some((path) => files.has(path))) {
    const [forbidden] = files.unreadable;
    if (forbidden !== undefined) {
      const file = files.name(forbidden);
      throw new KhoError('KHO_EIO', `${file} ${files.absence(forbidden)}`, { file });
    }
    const text = `${root} has no files of a machine (${sources.join(', ')}); expected a directory that 'khorus capture --dir' wrote`;
    throw new KhoError('KHO_ENOENT', text, { file: root });
  }
  const named = checkArchitectureName(files, arch);
  const notices: string[] = [];
  const cmdline = readCmdline(files, notices);
  const memory = readCapturedMemory(files, cmdline);
  if (!named) notices.push(`${files.name(ARCH)} ${files.absence(ARCH)}; the machine is taken to be x86_64`);
  notices.push(...memory.notices);
  const pci = devices ? readPciFunctions(files) : { functions: [], notices: [] };
  const net = devices ? readNetInterfaces(files) : { interfaces: [], notices: [] };
  notices.push(...pci.notices, ...net.notices);
  const cpus = readCpus(files);
  const release = readRelease(files);
  const unreadable = [...files.unreadable].map((path) => files.name(path));
  if (unreadable.length > 0) notices.push(`may not be read by this user: ${unreadable.join(', ')}`);
  return {
    arch: 'x86_64',
    ...(release !== undefined && { release }),
    cmdline,
    ...(cpus !== undefined && { cpus }),
    memory: memory.map,
    functions: pci.functions,
    interfaces: net.interfaces,
    notices,
  };
}

/** The command line as it was, KHO switched on if it was off. */
function readCmdline(files: CapturedFiles, notices: string[]): string {
  const line = files.text(CMDLINE);
  if (line === undefined) {
    notices.push(`${files.name(CMDLINE)} ${files.absence(CMDLINE)}; the command line is taken to be 'kho=on'`);
    return 'kho=on';
  }
  // An empty command line is a line too.
  if (!line.endsWith('\n')) throw files.invalid(CMDLINE, 'is cut: its line has no end');
  const text = line.trimEnd().replaceAll('\t', ' ');
  if (/[^\x20-\x7e]/.test(text)) throw files.invalid(CMDLINE, 'has other characters than printable ASCII in one line');
  const cmdline = withKho(text);
  if (cmdline.length > CMDLINE_MAX) {
    throw files.invalid(CMDLINE, `has ${cmdline.length} characters with KHO on; a kernel takes ${CMDLINE_MAX}`);
  }
  if (cmdline !== text) notices.push("KHO was off on this machine; 'kho=on' is added to its command line");
  return cmdline;
}

/** The command line with KHO on: after the word that says it is off, else before all others. `--` would end the kernel's part. */
export function withKho(cmdline: string): string {
  if (parseCommandLine(cmdline, { mode: 'kernel', khoDefault: false }).kho) return cmdline;
  const last = tokenizeCommandLine(cmdline).findLast(({ name }) => name === 'kho');
  if (last === undefined) return `kho=on ${cmdline}`.trimEnd();
  const word = /\s|$/.exec(cmdline.slice(last.offset))?.index ?? 0;
  const at = last.offset + word;
  return `${cmdline.slice(0, at)} kho=on${cmdline.slice(at)}`;
}

function readRelease(files: CapturedFiles): string | undefined {
  const line = files.line(RELEASE);
  if (line === undefined || (/^[\x20-\x7e]+$/.test(line) && line.length <= RELEASE_MAX)) return line;
  const shown = line.length > 60 ? `${line.slice(0, 60)}…` : line;
  throw files.invalid(RELEASE, `is '${shown}'; expected 1 to ${RELEASE_MAX} characters of printable ASCII`);
}

/** How many CPUs there can be: `0-127,256-383`. */
function readCpus(files: CapturedFiles): number | undefined {
  for (const path of CPUS) {
    const line = files.line(path);
    if (line === undefined) continue;
    let count = 0;
    for (const part of line.split(',')) {
      const [, first, last = first] = /^(\d{1,6})(?:-(\d{1,6}))?$/.exec(part) ?? [];
      if (first === undefined || Number(last) < Number(first)) {
        throw files.invalid(path, `is '${line.slice(0, 60)}'; expected numbers of CPUs such as 0-127,256-383`);
      }
      count += Number(last) - Number(first) + 1;
    }
    if (count > CPUS_MAX) throw files.invalid(path, `has ${count} CPUs; a kernel takes ${CPUS_MAX}`);
    return count;
  }
  return undefined;
}
