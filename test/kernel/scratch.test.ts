import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { Host } from '#dist/coordinator/host.js';
import { initramfs } from './support/cpio.js';
import { guestReport, troubleOn } from './support/guest-console.js';
import { type KernelTestContext, kernelTest } from './support/kernel-test.js';
import { CONSOLE_AND_END } from './support/predecessor.js';
import { bootOrdinarily } from './support/qemu.js';

const MIB = 2 ** 20;
const CPUS = 2;

/** The sizes of a kernel's scratch areas, and of its own image. */
async function report(context: KernelTestContext, memory: number, cmdline: string) {
  const initrd = join(context.directory, 'initrd');
  writeFileSync(initrd, initramfs({ init: readFileSync(context.init) }));
  const end = await bootOrdinarily({
    kernel: context.kernel.bzImage,
    initrd,
    memory,
    cpus: CPUS,
    cmdline: `${CONSOLE_AND_END} khorus.mode=report ${cmdline}`,
  });
  expect(troubleOn(end.console)).toEqual([]);
  const { scratch, kernelImage } = guestReport(end.console);
  if (kernelImage === undefined) throw new Error('/proc/iomem has no kernel image');
  return { sizes: scratch.map(({ size }) => size), kernelSize: kernelImage.size };
}

/** What our model makes of the same machine. */
function model(memory: number, cmdline: string, kernelSize: number): number[] {
  const options = { arch: 'x86_64', memory, nodes: 1, cpus: CPUS, release: 'model', cmdline, kernelSize } as const;
  return new Host(options).scratch.areas.map(({ size }) => size);
}

const sum = (sizes: readonly number[]): number => sizes.reduce((total, size) => total + size, 0);

describe.each([512 * MIB, 1024 * MIB, 2048 * MIB])('the scratch of a kernel with %d bytes of memory', (memory) => {
  kernelTest('is within 10 % of what our model says, each area for itself', async (context) => {
    const { sizes, kernelSize } = await report(context, memory, 'kho=on');
    const expected = model(memory, 'kho=on', kernelSize);
    console.log(`${memory / MIB} MiB: kernel ${inMib(sizes)}, model ${inMib(expected)}`);
    expect(sizes).toHaveLength(3);
    expect(Math.abs(sum(expected) - sum(sizes))).toBeLessThanOrEqual(sum(sizes) / 10);
    for (const [index, size] of sizes.entries()) {
      expect(Math.abs(expected[index] - size)).toBeLessThanOrEqual(size / 10);
    }
  });

  // The fifth level costs 1 MiB for a table of all memory sections that there could be. The model has four levels.
  kernelTest('is exactly that of our model where page tables have four levels', async (context) => {
    const { sizes, kernelSize } = await report(context, memory, 'kho=on no5lvl');
    expect(sizes).toEqual(model(memory, 'kho=on', kernelSize));
  });
});

kernelTest('the kernel rounds each fixed size of scratch up to 4 MiB, as our model does', async (context) => {
  const cmdline = 'kho=on kho_scratch=5M,9M,3M';
  const { sizes, kernelSize } = await report(context, 512 * MIB, cmdline);
  expect(sizes.map((size) => size / MIB)).toEqual([8, 12, 4]);
  expect(model(512 * MIB, cmdline, kernelSize)).toEqual(sizes);
});

function inMib(sizes: readonly number[]): string {
  return sizes.map((size) => size / MIB).join(' + ');
}
