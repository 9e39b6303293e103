import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { khorus, ROOT, temporaryDirectory } from '../support/run.js';

vi.setConfig({ testTimeout: 300_000 });

interface Report {
  readonly outcome: string;
  readonly failures: readonly { code: string; message: string; driver?: string; instance?: string }[];
}

/** A run whose successor finds, or does, something wrong. Nothing of it may be left: no process, no temporary file. */
async function run(env: Record<string, string>, args: readonly string[] = []) {
  const directory = temporaryDirectory();
  const [temporary, log, scenario] = ['tmp', 'log', 'scenario.yaml'].map((name) => join(directory, name));
  mkdirSync(temporary);
  writeFileSync(
    scenario,
    `
host: { memory: 256M, cmdline: "kho=on kho_scratch=8M,16M,8M" }
seed: 3
drivers:
  - { use: ${JSON.stringify(join(ROOT, 'test/fixtures/faulty-driver.js'))}, count: 1 }
  - { use: ftrace, count: 1 }
`,
  );
  const { code, stdout } = await khorus(['run', scenario, '--json', ...args], {
    env: { ...env, KHORUS_FAULT_LOG: log, TMPDIR: temporary },
  });
  expect(readdirSync(temporary)).toEqual([]);
  for (const line of existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []) {
    const pid = Number(line.split(' ').at(-1));
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), { timeout: 60_000, interval: 50 });
  }
  return { code, ...(JSON.parse(stdout) as Report) };
}

const FAULTY = { driver: 'faulty', instance: 'faulty0' };

test.each<[string, Record<string, string>, object]>([
  [
    'throws in restore',
    { KHORUS_FAULT_AT: 'restore', KHORUS_FAULT: 'throw' },
    { code: 'KHO_EDRIVER', message: expect.stringContaining('boom'), ...FAULTY },
  ],
  [
    'throws in finish',
    { KHORUS_FAULT_AT: 'finish', KHORUS_FAULT: 'throw' },
    { code: 'KHO_EDRIVER', message: expect.stringContaining('boom'), ...FAULTY },
  ],
  [
    'ends the process in restore',
    { KHORUS_FAULT_AT: 'restore', KHORUS_FAULT: 'exit' },
    {
      code: 'KHO_EWORKER',
      message: 'the successor exited with code 3 without an answer in restore of faulty faulty0',
      ...FAULTY,
    },
  ],
  [
    'is not known to the successor',
    { KHORUS_SUCCESSOR_COMPATIBLE: 'faulty-v2', KHORUS_FAULT_AT: 'nowhere' },
    {
      code: 'KHO_ENOENT',
      message: "no driver here is compatible with 'faulty-v1' (subtree 'faulty')",
      driver: 'faulty',
    },
  ],
  [
    'leaves memory that nobody claims',
    { KHORUS_FAULT_AT: 'claim' },
    { code: 'KHO_EBUSY', message: expect.stringMatching(/^nobody claimed the preserved object of order 0 at 0x/) },
  ],
])('a driver that %s fails the run, which tells it', async (_, env, failure) => {
  const { code, outcome, failures } = await run(env);
  expect([code, outcome]).toEqual([1, 'failed']);
  expect(failures).toContainEqual(expect.objectContaining(failure));
});

test.each([
  ['hangs in restore without giving the loop back', 'restore', 'hang', 'restore of faulty faulty0'],
  ['waits in restore for what never comes', 'restore', 'never settle', 'restore of faulty faulty0'],
  ['hangs in finish', 'finish', 'hang', 'finish of faulty faulty0'],
])('a driver that %s is named when the limit is over', async (_, at, fault, where) => {
  const { code, failures } = await run({ KHORUS_FAULT_AT: at, KHORUS_FAULT: fault }, ['--callback-limit', '5s']);
  expect(code).toBe(1);
  expect(failures).toContainEqual({
    code: 'KHO_ETIMEDOUT',
    message: `the successor hangs: ${where} has taken more than 5000 ms`,
    ...FAULTY,
  });
});

test('a successor that runs out of memory is told with the driver whose fault it is', async () => {
  const { code, failures } = await run({
    KHORUS_FAULT_AT: 'restore',
    KHORUS_FAULT: 'out of memory',
    NODE_OPTIONS: '--max-old-space-size=200',
  });
  expect(code).toBe(1);
  const message = expect.stringMatching(
    /^the successor was ended by SIGABRT without an answer in restore of faulty faulty0: /,
  );
  expect(failures).toContainEqual({ code: 'KHO_EWORKER', message, ...FAULTY });
});
