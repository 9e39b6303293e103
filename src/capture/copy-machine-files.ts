import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KhoError } from '../errors.js';
import { CapturedFiles } from './captured-files.js';
import { ARCH, CMDLINE, CPUS, RELEASE } from './captured-machine.js';
import { FIRMWARE_MEMMAP } from './firmware-memmap.js';
import { IOMEM } from './iomem.js';
import { NET_INTERFACES } from './net-interfaces.js';
import { MEMORY_BLOCK_SIZE, NODES } from './numa-nodes.js';
import { PCI_DEVICES } from './pci-functions.js';

/**
 * Copies the files that readCapturedMachine() reads from below `from` to the new directory `to`, under the same names; it
 * appears whole or not at all. No links: where a link's target matters, a file has its name. `arch`, what uname(2) says, is
 * written where a kernel before 6.1 has no file for it.
 *
 * KHO_EEXIST if `to` is there, KHO_EIO.
 */
export function copyMachineFiles(from: string, to: string, arch?: string): void {
  if (existsSync(to)) throw new KhoError('KHO_EEXIST', `${to} is there already; name a new directory`, { file: to });
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
  for (const name of files.list(PCI_DEVICES)) {
    const path = `${PCI_DEVICES}/${name}`;
    for (const file of ['config', 'vendor', 'device', 'class']) add(`${path}/${file}`);
    const group = files.link(`${path}/iommu_group`);
    if (group !== undefined) add(`${path}/iommu_group`, Buffer.from(`${group}\n`));
  }
  for (const name of files.list(NET_INTERFACES)) {
    const path = `${NET_INTERFACES}/${name}`;
    if (!files.isDirectory(path) || !files.has(`${path}/device`)) continue;
    for (const file of ['address', 'mtu']) add(`${path}/${file}`);
    add(`${path}/device`, Buffer.from(`${files.link(`${path}/device`) ?? 'device'}\n`));
    directories.push(...files.list(`${path}/queues`).map((queue) => `${path}/queues/${queue}`));
  }
  write(to, copy, directories);
}

function write(to: string, copy: ReadonlyMap<string, string | Uint8Array>, directories: readonly string[]): void {
  const partial = `${to}.partial-${process.pid}`;
  try {
    for (const directory of directories) mkdirSync(join(partial, directory), { recursive: true });
    for (const [path, content] of copy) {
      const file = join(partial, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content);
    }
    renameSync(partial, to);
  } catch (cause) {
    rmSync(partial, { recursive: true, force: true });
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new KhoError('KHO_EIO', `${to} cannot be written: ${why}`, { file: to }, { cause });
  }
}
