/**
 * `npm run guest -- DIR FILE`: writes an initrd for the handover in DIR (a directory of `khorus run --out`), whose program
 * finds every reserve_mem area and every memfd, prints their digests, and powers off.
 */
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunRecord } from '#dist/coordinator/index.js';
import { Unavailable } from '../test/kernel/support/command.js';
import { initramfs } from '../test/kernel/support/cpio.js';
import { buildGuestInit } from '../test/kernel/support/guest-init.js';
import { sessionLines } from '../test/kernel/support/run-digests.js';

const [run, file] = process.argv.slice(2);
if (run === undefined || file === undefined) {
  process.stderr.write('usage: npm run guest -- DIR FILE   (DIR: of khorus run --out; FILE: such as guest.cpio.gz)\n');
  process.exit(2);
}
const directory = mkdtempSync(join(tmpdir(), 'khorus-guest-'));
try {
  const record: RunRecord = JSON.parse(readFileSync(join(run, 'run.json'), 'utf8'));
  const init = await buildGuestInit(directory, (text) => process.stderr.write(`guest: ${text}\n`));
  const bytes = initramfs({ init: readFileSync(init), 'khorus-sessions': `${sessionLines(record).join('\n')}\n` });
  const temporary = `${file}.${process.pid}`;
  try {
    writeFileSync(temporary, bytes);
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
} catch (error) {
  const known =
    error instanceof Unavailable || error instanceof SyntaxError || (error instanceof Error && 'code' in error);
  if (!known || !(error instanceof Error)) throw error;
  process.stderr.write(`no guest was made: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true });
}
