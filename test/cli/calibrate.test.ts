import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { khorus } from '../support/run.js';

const SCENARIO = `
host: { arch: x86_64, memory: 256M, nodes: 1, cmdline: "kho=on kho_scratch=8M,16M,8M" }
profile: kho-v4
drivers: [{ use: netdevsim, count: 2 }]
`;
let cache = '';
let scenario = '';
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'khorus-calibrate-'));
  scenario = join(cache, 'small.yaml');
  writeFileSync(scenario, SCENARIO);
});
afterEach(() => rmSync(cache, { recursive: true, force: true }));

const run = (args: readonly string[]) => khorus(args, { env: { XDG_CACHE_HOME: cache } });
const kept = () => JSON.parse(readFileSync(join(cache, 'khorus/calibration.json'), 'utf8'));

test('calibrate measures, says what it comes to, and keeps it once for each number of workers', async () => {
  const first = await run(['calibrate', '--workers', '2']);
  expect([first.code, first.stderr]).toEqual([0, expect.stringContaining('measuring what the modes cost')]);
  for (const mode of ['sequential', 'hash', 'subfdt']) expect(first.stdout).toMatch(new RegExp(`^${mode} .* us`, 'm'));
  expect(first.stdout).toContain('auto takes');
  const again = await run(['calibrate', '--workers', '2', '--json']);
  expect(again.code).toBe(0);
  const { calibration, file, schemaVersion } = JSON.parse(again.stdout);
  expect([schemaVersion, file]).toEqual([1, join(cache, 'khorus/calibration.json')]);
  expect(kept().calibrations).toEqual([calibration]);
  for (const costs of Object.values(calibration.modes)) {
    expect(costs).toMatchObject({ fixed: expect.any(Number), parallelism: expect.any(Number) });
  }
  await run(['calibrate', '--workers', '1', '--quiet']);
  expect(kept().calibrations.map(({ workers }: { workers: number }) => workers)).toEqual([2, 1]);
});

test('run --mode auto calibrates when it must, says why it chose, and keeps that in run.json', async () => {
  const out = join(cache, 'out');
  const first = await run(['run', scenario, '--mode', 'auto', '--workers', '2', '--out', out]);
  expect(first.code).toBe(0);
  expect(first.stderr).toContain('measuring what the modes cost');
  expect(first.stdout).toMatch(/^auto chose (sequential|hash|subfdt): .* by declaration, work unknown; predicted /m);
  const { mode, modeChoice } = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8'));
  expect(modeChoice.mode).toBe(mode);
  const second = await run(['run', scenario, '--mode', 'auto', '--workers', '2', '--json']);
  expect([second.code, second.stderr]).toEqual([0, '']);
  expect(JSON.parse(second.stdout)).toMatchObject({
    mode: expect.any(String),
    modeChoice: { load: { source: 'declared' } },
  });
  expect((await run(['verify', out])).code).toBe(0);
});

test.each(['', '{', '{"schemaVersion":1,"calibrations":[{"machine":1}]}', '{"schemaVersion":99}'])(
  'a kept file that holds %j is measured anew',
  async (text) => {
    mkdirSync(join(cache, 'khorus'));
    writeFileSync(join(cache, 'khorus/calibration.json'), text);
    const result = await run(['run', scenario, '--mode', 'auto', '--workers', '1', '--quiet']);
    expect(result.code).toBe(0);
    expect(kept().calibrations).toHaveLength(1);
  },
);

test('where nothing can be kept, a run goes on and says so, and calibrate fails', async () => {
  writeFileSync(join(cache, 'khorus'), 'not a directory');
  const result = await run(['run', scenario, '--mode', 'auto', '--workers', '1']);
  expect([result.code, result.stderr]).toEqual([0, expect.stringContaining('cannot keep the calibration')]);
  const calibrate = await run(['calibrate', '--workers', '1']);
  expect([calibrate.code, calibrate.stderr]).toEqual([1, expect.stringContaining('cannot keep the calibration')]);
});

test('where there can be no directory, a run goes on, too', async () => {
  const result = await khorus(['run', scenario, '--mode', 'auto', '--workers', '1'], {
    env: { XDG_CACHE_HOME: '/proc/nope' },
  });
  expect([result.code, result.stderr]).toEqual([0, expect.stringContaining('cannot keep the calibration')]);
});

test.each([['0'], ['1025'], ['two']])('calibrate --workers %s is wrong usage', async (workers) => {
  expect((await run(['calibrate', '--workers', workers])).code).toBe(2);
});
