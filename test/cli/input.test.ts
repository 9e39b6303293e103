import { type ChildProcess, execFile, execFileSync } from 'node:child_process';
import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test, vi } from 'vitest';
import { MAIN, startKhorus, temporaryDirectory } from '../support/run.js';

vi.setConfig({ testTimeout: 120_000 });

const SCENARIO =
  'host: { memory: 256M, cmdline: "kho=on kho_scratch=8M,16M,8M" }\ndrivers: [{ use: ftrace, count: 1 }]\n';
const RESTORED = 'restored 1 of 1 drivers';
const ENDED = {
  SIGINT: { code: 130, stdout: '', stderr: expect.stringContaining('ended by SIGINT') },
  SIGTERM: { code: 143, stdout: '', stderr: expect.stringContaining('ended by SIGTERM') },
};

/** The end of a command that gets a signal when it waits for its input: `waiting` resolves when it has come to that. */
async function interrupted(
  args: readonly string[],
  signal: keyof typeof ENDED,
  waiting: (child: ChildProcess) => Promise<void>,
) {
  const { child, ended } = startKhorus(args, { input: null });
  onTestFinished(() => void child.kill('SIGKILL'));
  await waiting(child);
  child.kill(signal);
  const late = new Promise<string>((resolve) => setTimeout(resolve, 20_000, 'it did not end').unref());
  return await Promise.race([ended, late]);
}

function fifo(): string {
  const path = join(temporaryDirectory(), 'fifo');
  execFileSync('mkfifo', [path]);
  return path;
}

/** Resolves when a process has a file open. */
async function opened({ pid }: ChildProcess, path: string): Promise<void> {
  const files = `/proc/${pid}/fd`;
  const isIt = (fd: string): boolean => {
    try {
      return readlinkSync(join(files, fd)) === path;
    } catch {
      return false; // closed meanwhile
    }
  };
  await vi.waitFor(() => expect(readdirSync(files).some(isIt)).toBe(true), { timeout: 20_000, interval: 50 });
}

test.each([
  ['run', 'SIGINT'],
  ['run', 'SIGTERM'],
  ['chaos', 'SIGINT'],
] as const)('%s waits for the writer of a scenario that is a FIFO, and %s ends that', async (command, signal) => {
  const path = fifo();
  expect(await interrupted([command, path], signal, (child) => opened(child, path))).toEqual(ENDED[signal]);
});

test.each(['run', 'inspect', 'dts'])('%s - waits for the rest of stdin, and SIGINT ends that', async (command) => {
  // More than fits between the two: when it is written, some has been read.
  const written = ({ stdin }: ChildProcess) =>
    new Promise<void>((resolve) => stdin?.write('#'.repeat(2 ** 22), () => resolve()));
  expect(await interrupted([command, '-'], 'SIGINT', written)).toEqual(ENDED.SIGINT);
});

test.each(['"$@" <(cat "$SCENARIO")', 'cat "$SCENARIO" | "$@" /dev/stdin'])(
  'bash runs a scenario by %s',
  async (script) => {
    const file = join(temporaryDirectory(), 'scenario.yaml');
    writeFileSync(file, SCENARIO);
    const env = { ...process.env, SCENARIO: file };
    const { stdout } = await promisify(execFile)('bash', ['-c', script, 'bash', process.execPath, MAIN, 'run'], {
      env,
    });
    expect(stdout).toContain(RESTORED);
  },
);

test('a scenario comes through a FIFO whose writer is late', async () => {
  const path = fifo();
  const { child, ended } = startKhorus(['run', path]);
  await opened(child, path);
  writeFileSync(path, SCENARIO);
  expect(await ended).toMatchObject({ code: 0, stdout: expect.stringContaining(RESTORED) });
});
