import { existsSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { KhoError } from '../errors.js';
import { readRecord } from '../run.js';

/**
 * Refuses a target that must not be written, before any work is done. A directory that is absent or empty is fine; one
 * that an earlier run wrote needs `force`; anything else is never touched. KHO_EEXIST says what is there.
 */
export async function checkTarget(target: string, force: boolean): Promise<void> {
  let entries: string[];
  try {
    entries = await readdir(target);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') return checkParent(target);
    if (code === 'ENOTDIR')
      throw new KhoError('KHO_EEXIST', `--out ${target} is a file, expected a directory`, { file: target });
    throw new KhoError('KHO_EIO', `--out ${target} cannot be read: ${String(code)}`, { file: target });
  }
  if (entries.length === 0) return;
  if (!(await isRunOutput(target, entries))) {
    const some = entries.slice(0, 3).join(', ');
    throw new KhoError(
      'KHO_EEXIST',
      `--out ${target} holds something that khorus did not write (${some}); name another directory`,
      { file: target },
    );
  }
  if (!force) {
    throw new KhoError('KHO_EEXIST', `--out ${target} holds an earlier run; --force replaces it`, { file: target });
  }
}

/**
 * Fills a directory and puts it in place at once: `fill` gets a sibling, which is renamed when it is whole. On any failure
 * the sibling is removed and the target is as it was; a process that is killed leaves at most a sibling, which the next
 * run removes.
 */
export async function writeDirectory(
  target: string,
  force: boolean,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  await checkTarget(target, force);
  const path = resolve(target);
  const prefix = `.${basename(path)}.khorus-`;
  await removeStale(dirname(path), prefix);
  const temporary = join(dirname(path), `${prefix}${process.pid}`);
  const old = `${temporary}.old`;
  try {
    await mkdir(temporary);
    await fill(temporary);
    await sync(temporary);
    if (existsSync(path)) {
      await rename(path, old);
      try {
        await rename(temporary, path);
      } catch (error) {
        await rename(old, path);
        throw error;
      }
    } else {
      await rename(temporary, path);
    }
    await sync(dirname(path));
  } catch (error) {
    if (error instanceof KhoError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new KhoError('KHO_EIO', `--out ${target} cannot be written: ${reason}`, { file: target }, { cause: error });
  } finally {
    await rm(temporary, { recursive: true, force: true });
    await rm(old, { recursive: true, force: true });
  }
}

async function checkParent(target: string): Promise<void> {
  if (!existsSync(dirname(resolve(target)))) {
    throw new KhoError('KHO_ENOENT', `--out ${target}: the directory above it is not there`, { file: target });
  }
}

const OUTPUT_ENTRIES = new Set(['kho', 'ram.img', 'run.json']);

/** Only what a run writes, and a run.json that says so (or none, where it was moved away). */
async function isRunOutput(target: string, entries: readonly string[]): Promise<boolean> {
  if (!entries.every((entry) => OUTPUT_ENTRIES.has(entry))) return false;
  if (!entries.includes('run.json')) return entries.includes('kho') && entries.includes('ram.img');
  try {
    return (await readRecord(join(target, 'run.json'))) !== undefined;
  } catch {
    return false;
  }
}

/** Removes what runs left that were killed: siblings whose process is gone. */
async function removeStale(directory: string, prefix: string): Promise<void> {
  for (const entry of await readdir(directory)) {
    if (!entry.startsWith(prefix)) continue;
    const pid = Number.parseInt(entry.slice(prefix.length), 10);
    if (Number.isInteger(pid) && pid !== process.pid && !isAlive(pid)) {
      await rm(join(directory, entry), { recursive: true, force: true });
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

async function sync(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
