import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { khorus, ROOT, SMALL_SCENARIO, temporaryDirectory } from '../support/run.js';

const python = spawnSync('python3', ['--version']).status === 0;
if (!python) console.warn('SKIPPED: no python3, which gives the command a terminal');

/** Runs the command on a pseudo-terminal. */
function onTerminal(columns: number): string {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 's.yaml'), SMALL_SCENARIO);
  const script = join(ROOT, 'test/support/on-terminal.py');
  const command = [process.execPath, join(ROOT, 'dist/cli/main.js'), 'run', join(directory, 's.yaml')];
  // CI is left out: a spinner keeps still where it is set.
  const { CI: _ci, ...env } = process.env;
  return execFileSync('python3', [script, String(columns), ...command], { encoding: 'utf8', timeout: 50_000, env });
}

test.skipIf(!python && !process.env.CI)(
  'on a terminal the progress of the phases is shown, and cleared at the end',
  () => {
    const output = onTerminal(100);
    expect(output).toMatch(/(prepare|freeze|serialize) \d+\/\d+/);
    expect(output).toMatch(/restored 6 of 6 drivers[\s\S]*exit 0 bytes/);
  },
);

test.skipIf(!python && !process.env.CI)('a terminal that has no columns gets the result and no progress', () => {
  const output = onTerminal(0);
  expect(output).not.toMatch(/serialize \d+\/\d+/);
  expect(output).toMatch(/restored 6 of 6 drivers[\s\S]*exit 0 bytes/);
});

test('in a pipe there is no progress', async () => {
  const { stderr } = await khorus(['run', '-'], { input: SMALL_SCENARIO });
  expect(stderr).toBe('');
});
