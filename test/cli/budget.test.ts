import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { khorus } from '../support/run.js';

const directory = mkdtempSync(join(tmpdir(), 'khorus-budget-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function scenario(name: string, text: string): string {
  const file = join(directory, name);
  writeFileSync(file, `host: { memory: 256M, cmdline: "kho=on kho_scratch=8M,16M,8M" }\n${text}`);
  return file;
}
const SMALL = scenario('small.yaml', 'drivers: [{ use: netdevsim, count: 64 }, { use: kvm-vcpu, count: 4 }]\n');

test('over budget with cancel exits 1, says goal and result in one sentence, and leaves nothing', async () => {
  const out = join(directory, 'cancelled');
  const { code, stdout, stderr } = await khorus([
    'run',
    SMALL,
    '--budget',
    '1us',
    '--on-overrun',
    'cancel',
    '--out',
    out,
  ]);
  expect(code).toBe(1);
  expect(stdout).toBe('');
  expect(stderr).toMatch(
    /^khorus: the blackout had a budget of 0\.001 ms and took [\d.]+ ms so far; it was cancelled, and everything rolled back.*\n$/,
  );
  expect(readdirSync(directory).filter((name) => name.includes('cancelled'))).toEqual([]);
});

test('with ignore it exits 0 and says the same', async () => {
  const { code, stdout, stderr } = await khorus(['run', SMALL, '--budget', '1us', '--on-overrun', 'ignore']);
  expect(code).toBe(0);
  expect(stdout).toContain('restored 2 of 2 drivers');
  expect(stderr).toMatch(
    /^khorus: the blackout had a budget of 0\.001 ms and took [\d.]+ ms; it was handed over nevertheless\n$/,
  );
});

test('budgets of phases and drivers are read from the scenario, and told when they are overrun', async () => {
  const file = scenario(
    'phases.yaml',
    `budget: { phases: { prepare: 1us }, onOverrun: ignore }
drivers: [{ use: netdevsim, count: 64, budget: 1us }]
`,
  );
  const { code, stderr } = await khorus(['run', file]);
  expect(code).toBe(0);
  expect(stderr).toMatch(/^khorus: prepare had a budget of 0\.001 ms and took /m);
  expect(stderr).toMatch(/^khorus: serialize of netdevsim\d+ had a budget of 0\.001 ms and took /m);
});

test('an earlier run tells that a budget cannot be met, before anything is frozen', async () => {
  const out = join(directory, 'earlier');
  expect((await khorus(['run', SMALL, '--out', out])).code).toBe(0);
  const { code, stderr } = await khorus(['run', SMALL, '--predict-from', out, '--budget', '10us']);
  expect(code).toBe(1);
  expect(stderr).toMatch(
    /^khorus: the blackout's budget of 0\.01 ms cannot be met: an earlier run took [\d.]+ ms at least; nothing was frozen/,
  );
  const none = await khorus(['run', SMALL, '--predict-from', join(directory, 'nothing'), '--budget', '10ms']);
  expect(none.code).toBe(2);
});

test('the trigger and its policy are checked together', async () => {
  const { code, stderr } = await khorus(['run', SMALL, '--on-shutdown-failure', 'proceed']);
  expect(code).toBe(2);
  expect(stderr).toContain('trigger: shutdown');
  const shutdown = await khorus(['run', SMALL, '--trigger', 'shutdown', '--on-shutdown-failure', 'proceed']);
  expect(shutdown.code).toBe(0);
  expect(shutdown.stdout).toContain('Blackout: shutdown');
});

test('a callback that hangs ends the run with its name', async () => {
  writeFileSync(
    join(directory, 'hang.mjs'),
    `export default { name: 'stuck', compatible: 'stuck-v1', create: () => 0, snapshot: () => 0, restore: () => 0,
       serialize() { for (;;); } };`,
  );
  const file = scenario('hang.yaml', 'drivers: [{ use: ./hang.mjs }]\n');
  const { code, stderr } = await khorus(['run', file, '--callback-limit', '1s']);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^khorus: serialize of stuck0 did not return within 1000 ms, so its thread was ended/);
});
