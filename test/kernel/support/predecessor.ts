import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { initramfs } from './cpio.js';
import type { KernelTestContext } from './kernel-test.js';
import { type MemfdOrder, sessionsFile } from './memfd-order.js';
import { type BootEnd, bootOrdinarily } from './qemu.js';
import { DEBUG_EXIT_DEVICE, tinyKernel } from './tiny-kernel.js';

const MIB = 2 ** 20;
/** Of every kernel that is to power off: QEMU ends with the first reboot. */
export const CONSOLE_AND_END = 'console=ttyS0 reboot=k panic=-1';

/** A real kernel that prepares a handover and kexecs. */
export interface Predecessor {
  /** Bytes of RAM. */
  memory: number;
  reserveMem: readonly { name: string; size: number }[];
  memfds: readonly MemfdOrder[];
  /** What memfds are made of: folios of one page, or of 2 MiB where they fit. */
  folios?: 'small' | 'large';
  /** More of the kernel's command line. */
  cmdline?: string;
}

/** What is left when QEMU has ended. */
export interface Departure {
  end: BootEnd;
  /** The RAM, as a file. */
  ramFile: string;
}

/**
 * Boots a predecessor and lets it kexec: into `linux`, the same kernel with the same init as a successor, or to `the-jump`,
 * where QEMU ends (tiny-kernel.ts) and RAM is whole. The caller looks at how it ended.
 */
export async function depart(
  { kernel, init, directory }: KernelTestContext,
  { memory, reserveMem, memfds, folios = 'small', cmdline = '' }: Predecessor,
  into: 'linux' | 'the-jump',
): Promise<Departure> {
  const reserveMemWords = reserveMem.map(({ name, size }) => `reserve_mem=${size}:4096:${name}`);
  const common = [CONSOLE_AND_END, 'kho=on liveupdate=on', ...reserveMemWords, cmdline].join(' ');
  const ownFiles = { init: readFileSync(init), 'khorus-sessions': sessionsFile(memfds) };
  const next =
    into === 'linux'
      ? { 'next/kernel': readFileSync(kernel.bzImage), 'next/initrd': initramfs(ownFiles), 'next/cmdline': common }
      : { 'next/kernel': tinyKernel(), 'next/cmdline': '' };
  const initrd = join(directory, 'initrd');
  writeFileSync(initrd, initramfs({ ...ownFiles, ...next }));
  const ramFile = join(directory, 'ram.img');
  const end = await bootOrdinarily({
    kernel: kernel.bzImage,
    initrd,
    memory,
    ramFile,
    devices: DEBUG_EXIT_DEVICE,
    cmdline: `${common} khorus.mode=predecessor khorus.shmem=${folios === 'large' ? 'always' : 'never'}`,
  });
  return { end, ramFile };
}

/** A small handover that has a bit of everything. */
export const BIT_OF_EVERYTHING: Predecessor = {
  memory: 512 * MIB,
  reserveMem: [
    { name: 'trace', size: MIB },
    { name: 'pstore', size: 64 * 1024 },
  ],
  memfds: [
    { session: 'vm 0', token: 0, size: 3 * MIB, seed: 11 },
    { session: 'vm 0', token: 7, size: 10_001, seed: 12, position: 77, holes: [{ start: 4096, length: 4096 }] },
    { session: 'vm 0', token: 2 ** 40 + 1, size: 0, seed: 0 },
    { session: 'agent', token: 1, size: 4096, seed: 13, seals: 2 },
  ],
};
