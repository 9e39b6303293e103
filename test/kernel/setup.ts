import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { outputOf, Unavailable } from './support/command.js';
import { buildGuestInit } from './support/guest-init.js';
import type { TestKernel } from './support/kernel-cache.js';
import { testKernel } from './support/test-kernel.js';

/** What all tests with real kernels use. */
export interface Laboratory {
  kernel: TestKernel;
  /** The guest's init (guest/init.c), a static program. */
  init: string;
}

declare module 'vitest' {
  interface ProvidedContext {
    /** Or the reason why every test is skipped. */
    laboratory: Laboratory | { unavailable: string };
  }
}

const log = (text: string): void => console.log(`test kernel: ${text}`);

/** Before all tests: QEMU, the kernel, the guest's init. Where one cannot be had, the tests are skipped with the reason. */
export default async function setup(project: TestProject): Promise<() => void> {
  const directory = mkdtempSync(join(tmpdir(), 'khorus-guest-'));
  try {
    const kernel = await prepare(directory);
    project.provide('laboratory', kernel);
  } catch (error) {
    if (!(error instanceof Unavailable)) {
      rmSync(directory, { recursive: true });
      throw error;
    }
    console.log(`skipped: ${error.message}`);
    project.provide('laboratory', { unavailable: error.message });
  }
  return () => rmSync(directory, { recursive: true });
}

async function prepare(directory: string): Promise<Laboratory> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Unavailable(`the test kernel is for x86-64 Linux, this is ${process.arch} ${process.platform}`);
  }
  if (outputOf('qemu-system-x86_64', ['--version']) === undefined)
    throw new Unavailable('there is no qemu-system-x86_64');
  const init = await buildGuestInit(directory, log);
  return { kernel: await testKernel(log), init };
}
