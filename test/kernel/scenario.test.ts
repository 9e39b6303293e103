import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { initramfs } from './support/cpio.js';
import { kernelTest } from './support/kernel-test.js';
import { khorus } from './support/khorus.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

kernelTest('scenarios/kernel.yaml arrives, by the commands of docs/real-kernel.md', async ({ directory, kernel }) => {
  const out = join(directory, 'D');
  const run = await khorus(['run', join(ROOT, 'scenarios/kernel.yaml'), '--out', out]);
  expect([run.status, run.stderr]).toEqual([0, '']);

  const initrd = join(directory, 'guest.cpio.gz');
  const guest = spawnSync('npx', ['tsx', 'scripts/guest.ts', out, initrd], { cwd: ROOT, encoding: 'utf8' });
  expect([guest.status, guest.stdout]).toEqual([0, '']);

  const boot = await khorus(['kexec', out, '--kernel', kernel.bzImage, '--initrd', initrd, '--qemu']);
  expect([boot.status, boot.stderr]).toEqual([0, '']);
  const lines = boot.stdout.split('\n').map((line) => line.replace(/^\[[ \d.]+\] /, ''));
  expect(lines).toEqual(
    expect.arrayContaining([
      'KHO: found kexec handover data.',
      "Revived memory reservation 'trace' from KHO",
      "Revived memory reservation 'pstore' from KHO",
      'KHO: exec from: 7.2.0-khorus (count 1)',
      'test_kho: KHO restore succeeded',
    ]),
  );
  // Two areas, eleven memfds.
  expect(boot.stdout).toMatch(
    /\nLinux 7\.\d+\.\d+ took over: 2 reservations revived, kho_test restored, 13 digests equal\n$/,
  );
});

kernelTest(
  'a kernel with KHO off finds the handover and does nothing with it, which is told as one failure',
  async ({ directory, kernel, init }) => {
    const out = join(directory, 'D');
    await khorus(['run', join(ROOT, 'scenarios/kernel.yaml'), '--out', out, '--quiet']);
    const initrd = join(directory, 'initrd');
    writeFileSync(initrd, initramfs({ init: readFileSync(init) }));
    const flags = ['--kernel', kernel.bzImage, '--initrd', initrd, '--cmdline', 'kho=off khorus.mode=report'];
    const boot = await khorus(['kexec', out, ...flags, '--qemu', '--quiet']);
    expect(boot.status).toBe(1);
    expect(boot.stderr).toMatch(
      /^khorus: Linux 7\.\S+ found the handover, but never said 'exec from: .*KHO is off there.*\n$/,
    );
  },
);
