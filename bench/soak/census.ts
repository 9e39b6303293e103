import { readdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { setImmediate } from 'node:timers/promises';

/** What this process has that a handover could leave behind. Undefined where the system does not tell. */
export interface Census {
  readonly threads: number | undefined;
  readonly fds: number | undefined;
  /** Listeners of `process`. */
  readonly listeners: number;
  /** What would keep the process alive: ports, workers, timers, children, sockets; by kind. */
  readonly handles: Readonly<Record<string, number>>;
  /** Files in this process's directory for temporary ones. */
  readonly temporary: number;
}

/** What there is, once calls that have returned are over: a few turns of the event loop later. */
export async function takeCensus(): Promise<Census> {
  for (let turn = 0; turn < 3; turn++) await setImmediate();
  const handles: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) handles[kind] = (handles[kind] ?? 0) + 1;
  return {
    threads: entries('/proc/self/task'),
    fds: entries('/proc/self/fd'),
    listeners: process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0),
    handles,
    temporary: entries(tmpdir()) ?? 0,
  };
}

/** What there is more of now than before, in words. */
export function leftovers(before: Census, now: Census): string[] {
  const found: string[] = [];
  const compare = (what: string, was = 0, is = 0): void => {
    if (is > was) found.push(`${is - was} ${what} left (${was} before, ${is} now)`);
  };
  compare('threads', before.threads, now.threads);
  compare('file descriptors', before.fds, now.fds);
  compare('listeners of process', before.listeners, now.listeners);
  for (const [kind, count] of Object.entries(now.handles)) compare(`handles ${kind}`, before.handles[kind], count);
  compare('temporary files', before.temporary, now.temporary);
  return found;
}

/** Lets libuv start all its threads, so that they are there before the first census. */
export async function startFileThreads(): Promise<void> {
  await Promise.all(Array.from({ length: 64 }, () => stat(tmpdir())));
}

function entries(directory: string): number | undefined {
  try {
    return readdirSync(directory).length;
  } catch {
    return undefined;
  }
}
