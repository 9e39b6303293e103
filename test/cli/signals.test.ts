import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test, vi } from 'vitest';
import { khorus, ROOT, temporaryDirectory } from '../support/run.js';

vi.setConfig({ testTimeout: 300_000 });

const DRIVER = join(ROOT, 'test/fixtures/faulty-driver.js');
const PRELOAD = pathToFileURL(join(ROOT, 'test/fixtures/signal-in-core.js')).href;
const SCENARIO = `
host: { memory: 256M, cmdline: "kho=on kho_scratch=8M,16M,8M" }
seed: 3
drivers:
  - { use: ${JSON.stringify(DRIVER)}, count: 1 }
  - { use: ftrace, count: 1 }
`;

interface Attempt {
  readonly code: number | null;
  readonly stderr: string;
  /** What is beside `--out`, but for the scenario; and in the directory for temporary files. */
  readonly beside: readonly string[];
  readonly temporary: readonly string[];
  /** The processes in which the driver's callback was. */
  readonly pids: readonly number[];
  readonly directory: string;
}

/** One run with `--out` that gets the signal at a point; again in the same directory, if there was one. */
async function run(at: string, fault: string, directory = temporaryDirectory()): Promise<Attempt> {
  const [target, temporary, log] = ['target', 'tmp', 'log'].map((name) => join(directory, name));
  mkdirSync(target, { recursive: true });
  mkdirSync(temporary, { recursive: true });
  writeFileSync(join(directory, 'scenario.yaml'), SCENARIO);
  const { code, stderr } = await khorus(['run', join(directory, 'scenario.yaml'), '--out', join(target, 'out')], {
    env: {
      KHORUS_FAULT_AT: at,
      KHORUS_FAULT: fault,
      KHORUS_FAULT_LOG: log,
      TMPDIR: temporary,
      NODE_OPTIONS: `--import=${PRELOAD}`,
    },
  });
  const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  return {
    ...{ code, stderr, directory, beside: readdirSync(target), temporary: readdirSync(temporary) },
    pids: lines.map((line) => Number(line.split(' ').at(-1))),
  };
}

/** Waits until none of these processes is there. Bounded by the test's own limit alone. */
async function expectGone(pids: readonly number[]): Promise<void> {
  for (const pid of pids) {
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), { timeout: 60_000, interval: 50 });
  }
}

const CALLBACKS = ['shards', 'prepare', 'freeze', 'serialize', 'snapshot', 'restore', 'finish'];
const CORE = ['phase finalize', 'phase jump', 'open image', 'mkdir out', 'open out', 'writeFile record'];

describe('Ctrl-C', () => {
  for (const at of [...CALLBACKS, ...CORE]) {
    test(`in ${at}: rolled back, exit 130, nothing is left`, async () => {
      const attempt = await run(at, 'SIGINT');
      expect(attempt).toMatchObject({ code: 130, beside: [], temporary: [] });
      expect(attempt.stderr).toMatch(/^khorus: ended by SIGINT; everything was rolled back$/m);
      if (CALLBACKS.includes(at)) expect(attempt.pids.length).toBeGreaterThan(0);
      await expectGone(attempt.pids);
    });
  }

  test('when the output is given its name: it is complete, or it is not there', async () => {
    const { code, beside, temporary } = await run('rename out', 'SIGINT');
    expect([
      [0, ['out']],
      [130, []],
    ]).toContainEqual([code, beside]);
    expect(temporary).toEqual([]);
  });

  test('a second time, while a driver rolls back for ever: the command ends at once', async () => {
    const attempt = await run('prepare', 'SIGINT twice');
    expect(attempt).toMatchObject({ code: 130, beside: [], temporary: [] });
    expect(attempt.stderr).not.toContain('everything was rolled back');
  });
});

test.each(['serialize', 'restore', 'open out'])('SIGTERM in %s: rolled back, exit 143', async (at) => {
  const attempt = await run(at, 'SIGTERM');
  expect(attempt).toMatchObject({ code: 143, beside: [], temporary: [] });
  expect(attempt.stderr).toContain('ended by SIGTERM; everything was rolled back');
  await expectGone(attempt.pids);
});

describe('kill -9', () => {
  for (const at of [...CALLBACKS, ...CORE, 'rename out']) {
    test(`in ${at}: --out is not there, and the next run finds nothing in its way and leaves nothing of it`, async () => {
      const attempt = await run(at, 'SIGKILL');
      expect(attempt.code).toBeNull();
      expect(attempt.beside).not.toContain('out');
      expect(attempt.temporary.length).toBeLessThanOrEqual(1);
      await expectGone(attempt.pids);
      const next = await run('nowhere', '', attempt.directory);
      expect(next).toMatchObject({ code: 0, beside: ['out'], temporary: [] });
      const out = join(attempt.directory, 'target', 'out');
      expect(readdirSync(out).sort()).toEqual(['kho', 'ram.img', 'run.json']);
    });
  }
});
