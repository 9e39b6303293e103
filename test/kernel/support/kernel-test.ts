import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject, test } from 'vitest';
import type { Laboratory } from '../setup.js';

/** What a test gets: the kernel, the guest's init, and a directory that is removed when the test is over. */
export interface KernelTestContext extends Laboratory {
  directory: string;
}

/**
 * A test that needs a real kernel. Skipped, with the reason, where there is none. One file's tests run one after the
 * other, so that there are never more guests than vitest has workers.
 */
export function kernelTest(name: string, body: (context: KernelTestContext) => Promise<void>): void {
  test(name, async ({ skip }) => {
    const laboratory = inject('laboratory');
    if ('unavailable' in laboratory) return skip(laboratory.unavailable);
    const directory = mkdtempSync(join(tmpdir(), 'khorus-kernel-test-'));
    try {
      await body({ ...laboratory, directory });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
