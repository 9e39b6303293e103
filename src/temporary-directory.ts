import { readlinkSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A directory of this process in the system's directory for temporary files. Its name tells whose it is: process ids mean something
 * only within one PID namespace, and several may share one /tmp.
 */
const NAME = /^khorus-run-(\d+)-(\d+)-/;

/**
 * Makes a temporary directory, and removes those of processes that were killed, so that no more is ever left behind than
 * one for each process killed since the last call. The caller removes it.
 */
export async function makeTemporaryDirectory(): Promise<string> {
  const parent = tmpdir();
  for (const name of await readdir(parent).catch(() => [])) {
    const [, namespace, pid] = NAME.exec(name) ?? [];
    if (namespace !== pidNamespace() || isAlive(Number(pid))) continue;
    // Another user's stays: it is his to remove.
    await rm(join(parent, name), { recursive: true, force: true }).catch(() => {});
  }
  return mkdtemp(join(parent, `khorus-run-${pidNamespace()}-${process.pid}-`));
}

/** The number of this process's PID namespace; 0 where the system has none. */
function pidNamespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
  } catch {
    return '0';
  }
}

/** Whether there is a process of this number, also if it is another user's. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
