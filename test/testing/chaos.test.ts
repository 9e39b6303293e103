import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { type ChaosOptions, type ChaosSummary, chaos, summaryLine } from '#dist/testing/chaos.js';
import { CHAOS_KINDS, chaosPlan } from '#dist/testing/chaos-plan.js';
import { impossible } from '#dist/testing/fault.js';
import { khorus, ROOT, startKhorus, temporaryDirectory } from '../support/run.js';

const LAST_LINE = /^runs \d+, handed over \d+, rolled back \d+, violations \d+, leaked pages \d+, hung \d+$/;

function planted(fixture: string, options: Partial<ChaosOptions> = {}): Promise<ChaosSummary> {
  const process = pathToFileURL(join(ROOT, 'test/fixtures', fixture));
  return chaos({ seed: 1, runs: 6, jobs: 1, process, ...options });
}

test('a run is a function of seed and index alone', () => {
  const plans = Array.from({ length: 200 }, (_, index) => chaosPlan(1, index));
  expect(plans).toEqual(Array.from({ length: 200 }, (_, index) => chaosPlan(1, index)));
  expect(plans).not.toEqual(Array.from({ length: 200 }, (_, index) => chaosPlan(2, index)));
});

test('among many runs there is every kind of fault, and none that cannot exist', () => {
  const plans = Array.from({ length: 2000 }, (_, index) => chaosPlan(1, index));
  const kinds = new Set(plans.flatMap(({ faults, outer }) => [...faults.map(({ fault }) => fault), outer]));
  expect(CHAOS_KINDS.filter((kind) => !kinds.has(kind))).toEqual([]);
  for (const { fault, callback } of plans.flatMap(({ faults }) => faults)) {
    expect(impossible(fault, callback)).toBeUndefined();
  }
});

test('every run ends in one of two states, with nothing left behind', async () => {
  const { code, stdout } = await khorus(['chaos', '--seed', '11', '--runs', '40']);
  const last = stdout.trimEnd().split('\n').at(-1) ?? '';
  expect(last).toMatch(LAST_LINE);
  expect([code, stdout]).toEqual([0, expect.stringContaining('violations 0, leaked pages 0, hung 0')]);
});

test("a user's scenario goes through the same, and one run of it can be repeated", async () => {
  const file = join(temporaryDirectory(), 'small.yaml');
  writeFileSync(
    file,
    'host: { memory: 256M, cmdline: "kho=on kho_scratch=8M,16M,8M" }\ndrivers: [{ use: iommu, count: 2 }]\n',
  );
  const { code, stdout } = await khorus(['chaos', file, '--seed', '3', '--only', '7', '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ seed: 3, runs: 1, violations: 0, leakedPages: 0, hung: 0, failed: [] });
});

test('a page that is lost is found in every run, with the run that lost it', async () => {
  const summary = await planted('chaos-leak.js');
  expect(summary).toMatchObject({ runs: 6, violations: 6, hung: 0 });
  expect(summary.leakedPages).toBeGreaterThanOrEqual(6);
  expect(summary.failed.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(summary.failed[0]?.violations).toContain('1 pages are not free any more');
  expect(summaryLine(summary)).toMatch(/^runs 6, .*violations 6, leaked pages \d+, hung 0$/);
});

test('a coordinator that does not unfreeze what it froze is found', async () => {
  const { failed } = await planted('chaos-without-unfreeze.js', { runs: 25 });
  const all = failed.flatMap(({ violations }) => violations).join('\n');
  expect(all).toContain('cancelled while it was frozen, without unfreeze');
});

test('a run that neither ends nor fails is counted as hung, and its process does not hold up the rest', async () => {
  expect(await planted('chaos-hang.js', { runs: 2, limit: 4000 })).toMatchObject({ runs: 2, violations: 0, hung: 2 });
});

test('Ctrl-C ends chaos at once, with its processes', async () => {
  const { child, ended } = startKhorus(['chaos', '--runs', '1000', '-v']);
  child.stderr?.once('data', () => child.kill('SIGINT'));
  expect((await ended).code).toBe(130);
});
