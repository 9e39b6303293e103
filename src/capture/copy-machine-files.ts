import { existsSync, lstatSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { KhoError } from '../errors.js';
import { ARCH } from './architecture.js';
import { CapturedFiles } from './captured-files.js';
import { CMDLINE, CPUS, RELEASE, type ReadMachineOptions } from './captured-machine.js';
import { FIRMWARE_MEMMAP } from './firmware-memmap.js';
import { IOMEM } from './iomem.js';
import { NET_INTERFACES } from './net-interfaces.js';
import { MEMORY_BLOCK_SIZE, NODES } from './numa-nodes.js';
import { PCI_DEVICES } from './pci-functions.js';

/**
 * Copies the files that readCapturedMachine() reads from below `from` to the new directory `to`, under the same names; it
 * appears whole or not at all. No links: where a link's target matters, a file has its name. `arch`, what uname(2) says, is
 * written where a kernel before 6.1 has no file for it. Without `devices` nothing of any device is copied.
 *
 * KHO_EINVAL if `to` is empty, KHO_EEXIST if it is there, KHO_ENOENT if the directory that it is to be in is not; KHO_EIO.
 */
export function copyMachineFiles(from: string, to: string, { arch, devices = true }: ReadMachineOptions = {}): void {
  if (to === '') throw new KhoError('KHO_EINVAL', "'' is no name of a new directory", { file: to });
  if (isThere(resolve(to)))
    throw new KhoError('KHO_EEXIST', `${to} is there already; name a new directory`, { file: to });
  const files = new CapturedFiles(from);
  const copy = new Map<string, string | Uint8Array>();
  const add = (path: string, content = files.bytes(path)): void => {
    if (content !== undefined) copy.set(path, content);
  };
  for (const path of [IOMEM, CMDLINE, RELEASE, ARCH, MEMORY_BLOCK_SIZE, ...CPUS]) add(path);
  if (!copy.has(ARCH) && arch !== undefined) copy.set(ARCH, `${arch}\n`);
  for (const entry of files.list(FIRMWARE_MEMMAP)) {
    for (const name of ['start', 'end', 'type']) add(`${FIRMWARE_MEMMAP}/${entry}/${name}`);
  }
  const directories: string[] = [];
  for (const node of files.list(NODES).filter((name) => /^node\d+$/.test(name))) {
    const blocks = files.list(`${NODES}/${node}`).filter((name) => /^memory\d+$/.test(name));
    directories.push(`${NODES}/${node}`, ...blocks.map((block) => `${NODES}/${node}/${block}`));
  }
  for (const name of devices ? files.list(PCI_DEVICES) : []) {
    const path = `${PCI_DEVICES}/${name}`;
    for (const file of ['config', 'vendor', 'device', 'class']) add(`${path}/${file}`);
    const group = files.link(`${path}/iommu_group`);
    if (group !== undefined) add(`${path}/iommu_group`, Buffer.from(`${group}\n`));
  }
  for (const name of devices ? files.list(NET_INTERFACES) : []) {
    const path = `${NET_INTERFACES}/${name}`;
    if (!files.isDirectory(path) || !files.has(`${path}/device`)) continue;
    for (const file of ['address', 'mtu']) add(`${path}/${file}`);
    add(`${path}/device`, Buffer.from(`${files.link(`${path}/device`) ?? 'device'}\n`));
    directories.push(...files.list(`${path}/queues`).map((queue) => `${path}/queues/${queue}`));
  }
  write(to, copy, directories);
}

/** Be it a link that leads nowhere, which no directory can be renamed to. What cannot be looked at cannot be made either, and that says why. */
function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
}

function write(to: string, copy: ReadonlyMap<string, string | Uint8Array>, directories: readonly string[]): void {
  // Without a slash at its end, or the partial directory would be inside of it.
  const target = resolve(to);
  const partial = `${target}.partial-${process.pid}`;
  makeDirectory(partial, to);
  try {
    for (const directory of directories) mkdirSync(join(partial, directory), { recursive: true });
    for (const [path, content] of copy) {
      const file = join(partial, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content);
    }
    renameSync(partial, target);
  } catch (cause) {
    try {
      rmSync(partial, { recursive: true, force: true });
    } catch {
      // Why it could not be written is what counts.
    }
    throw notWritten(to, cause);
  }
}

/** One directory in one that is there: Node's `recursive` never ends on procfs, where nothing can be made. */
function makeDirectory(path: string, to: string): void {
  try {
    mkdirSync(path);
  } catch (cause) {
    const parent = dirname(path);
    if (existsSync(parent)) throw notWritten(to, cause);
    const text = `${to} cannot be written: there is no directory ${parent}`;
    throw new KhoError('KHO_ENOENT', text, { file: to }, { cause });
  }
}

function notWritten(to: string, cause: unknown): KhoError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new KhoError('KHO_EIO', `${to} cannot be written: ${why}`, { file: to }, { cause });
}
