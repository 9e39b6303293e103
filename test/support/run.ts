import { type ChildProcess, execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const MAIN = join(ROOT, 'dist/cli/main.js');

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface CommandOptions {
  readonly cwd?: string;
  /** What stdin holds; null: it stays open, and silent. Default: nothing. */
  readonly input?: string | null;
  /** Variables beside those of this process. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs the built command in a process of its own. */
export function khorus(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return startKhorus(args, options).ended;
}

/** The same, with the process at hand while it runs. */
export function startKhorus(
  args: readonly string[],
  options: CommandOptions = {},
): { child: ChildProcess; ended: Promise<CommandResult> } {
  let finish: (result: CommandResult) => void = () => {};
  const ended = new Promise<CommandResult>((resolve) => {
    finish = resolve;
  });
  const child = execFile(
    process.execPath,
    [MAIN, ...args],
    { cwd: options.cwd ?? ROOT, maxBuffer: 2 ** 26, env: { ...process.env, NO_COLOR: '1', ...options.env } },
    (_error, stdout, stderr) => finish({ code: child.exitCode, stdout, stderr }),
  );
  if (options.input !== null) child.stdin?.end(options.input ?? '');
  return { child, ended };
}

/** A directory of its own for the calling test; removed when it ends. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'khorus-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A small host with every built-in driver: quick enough to be run many times. */
export const SMALL_SCENARIO = `
host: { memory: 512M, nodes: 2, cmdline: "kho=on kho_scratch=16M,32M,16M reserve_mem=64K:4096:trace" }
seed: 3
drivers:
  - { use: iommu, count: 2 }
  - { use: netdevsim, count: 6, options: { queues: 20 }, after: [iommu] }
  - { use: vfio-pci, count: 4, after: [iommu] }
  - { use: kvm-vcpu, count: 3 }
  - { use: ftrace, count: 1 }
  - { use: memfd, count: 1 }
`;
