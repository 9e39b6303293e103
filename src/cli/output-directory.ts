import { constants } from 'node:fs';
import { access, lstat, mkdir, open, readdir, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { KhoError } from '../errors.js';
import { isAlive } from '../temporary-directory.js';

/** Which command writes a directory. One never replaces what the other wrote: a run's records are not to be had again. */
export type OutputKind = 'run' | 'kexec';

/** What `run --out` and `kexec --out` write. A directory that holds anything else is not ours to replace. */
const OUTPUT_ENTRIES: Readonly<Record<OutputKind, readonly string[]>> = {
  run: ['boot.rom', 'kexec', 'kho', 'ram.img', 'run.json'],
  kexec: ['boot.rom', 'kexec.json', 'ram.img'],
};

export interface OutputOptions {
  /** Default: `run`. */
  readonly kind?: OutputKind;
  /** Replace what an earlier run wrote. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
}

/** Temporary directories that this process is filling now. */
const active = new Set<string>();

/**
 * Refuses a target that could not be written later; to be called before the work whose result goes there.
 *
 * KHO_EEXIST if something is there: a file, a directory that holds anything, or, with `force`, anything but the output of
 * an earlier run. KHO_EBUSY for the working directory or one around it, KHO_ENOENT without a parent directory, KHO_EIO if
 * the parent is not writable.
 */
export async function checkTarget(target: string, options: OutputOptions = {}): Promise<void> {
  await inspectTarget(target, options);
}

/**
 * Fills a directory so that it is there as a whole or not at all, even after `kill -9`.
 *
 * `fill` writes into a sibling `.<name>.khorus-<pid>`, which is synced and renamed once. If it fails, or `signal` aborts,
 * the sibling is removed and the target is as before. Siblings of processes that died are cleaned up.
 * Throws what {@link checkTarget} does, what `fill` throws, and KHO_ECANCELED.
 *
 * With `force` the former output has to step aside first, for Node has no way to exchange two directories in one step.
 * A kill between the two renames leaves it as `.<name>.khorus-<pid>-former`; the next call puts it back.
 */
export async function writeDirectory(
  target: string,
  options: OutputOptions,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const { signal } = options;
  const path = await resolveTarget(target);
  await cleanUpStale(path);
  const replaces = await inspectTarget(target, options);
  const temporary = siblingOf(path);
  const former = `${temporary}-former`;
  if (active.has(temporary)) throw new KhoError('KHO_EBUSY', `${target} is being written already`, { file: target });
  active.add(temporary);
  try {
    throwIfAborted(signal);
    await asIoError(target, () => mkdir(temporary));
    await fill(temporary);
    throwIfAborted(signal);
    await asIoError(target, async () => {
      await syncTree(temporary);
      throwIfAborted(signal);
      if (replaces) await rename(path, former);
      try {
        await rename(temporary, path);
      } catch (error) {
        if (replaces) await rename(former, path);
        throw error;
      }
      await syncPath(dirname(path));
      await rm(former, { recursive: true, force: true });
    });
  } finally {
    await rm(temporary, { recursive: true, force: true }).finally(() => active.delete(temporary));
  }
}

/** Whether there is a former output to replace. Throws if the target may not be written. */
async function inspectTarget(target: string, { kind = 'run', force = false }: OutputOptions): Promise<boolean> {
  const path = await resolveTarget(target);
  if (!relative(path, process.cwd()).startsWith('..')) {
    throw new KhoError('KHO_EBUSY', `${target} is the working directory, or holds it; choose another`, {
      file: target,
    });
  }
  await checkParent(path, target);
  const found = await lstat(path).catch(absent);
  if (found === undefined) return false;
  if (!found.isDirectory()) throw exists(target, 'is not a directory', 'choose another');
  const entries = await asIoError(target, () => readdir(path));
  if (entries.length === 0) return false;

  const foreign = entries.filter((entry) => !OUTPUT_ENTRIES[kind].includes(entry)).sort();
  if (foreign.length > 0 || !(await isFormerOutput(path, kind))) {
    const named = (foreign.length > 0 ? foreign : entries).slice(0, 3).join(', ');
    const what = `holds something that khorus ${kind} did not write (${named})`;
    throw exists(target, what, 'choose another, or an empty one');
  }
  if (!force)
    throw exists(target, `holds the output of an earlier ${kind}`, 'replace it with --force, or choose another');
  return true;
}

function exists(target: string, what: string, right: string): KhoError {
  return new KhoError('KHO_EEXIST', `${target} ${what}; ${right}`, { file: target });
}

async function checkParent(path: string, target: string): Promise<void> {
  const parent = dirname(path);
  const found = await lstat(parent).catch(absent);
  if (!found?.isDirectory()) {
    throw new KhoError('KHO_ENOENT', `${target} cannot be made: there is no directory ${parent}`, { file: target });
  }
  try {
    await access(parent, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new KhoError(
      'KHO_EIO',
      `${target} cannot be made: ${parent} is not writable`,
      { file: target },
      { cause: error },
    );
  }
}

/** A directory that the command wrote before: its document with a schemaVersion at the head, or a run's kho/out. */
async function isFormerOutput(path: string, kind: OutputKind): Promise<boolean> {
  if (kind === 'run' && (await lstat(join(path, 'kho', 'out')).catch(absent))?.isDirectory()) return true;
  return isDocument(join(path, `${kind}.json`));
}

async function isDocument(path: string): Promise<boolean> {
  try {
    await using file = disposable(await open(path));
    // The version stands at its head; the whole may have hundreds of megabytes.
    const { buffer, bytesRead } = await file.handle.read(Buffer.alloc(4096), 0, 4096, 0);
    return /^\s*\{\s*"schemaVersion"\s*:\s*\d/.test(buffer.toString('utf8', 0, bytesRead));
  } catch {
    return false;
  }
}

/** The absolute path, through symbolic links as far as it exists: replacing must not replace a link. */
async function resolveTarget(target: string): Promise<string> {
  const path = resolve(target);
  const real = await realpath(path).catch(absent);
  if (real !== undefined) return real;
  const parent = await realpath(dirname(path)).catch(absent);
  return parent === undefined ? path : join(parent, basename(path));
}

function siblingOf(path: string, pid = process.pid): string {
  return join(dirname(path), `.${basename(path)}.khorus-${pid}`);
}

/** Removes what dead processes left beside `path`, and puts a former output back that one of them had moved aside. */
async function cleanUpStale(path: string): Promise<void> {
  const parent = dirname(path);
  const prefix = `.${basename(path)}.khorus-`;
  for (const name of await readdir(parent).catch(() => [])) {
    const match = name.startsWith(prefix) ? /^(\d+)(-former)?$/.exec(name.slice(prefix.length)) : null;
    if (match === null || mayBeFilling(Number(match[1]), path)) continue;
    const stale = join(parent, name);
    if (match[2] !== undefined && (await lstat(path).catch(absent)) === undefined) {
      await asIoError(path, () => rename(stale, path));
    } else {
      await asIoError(path, () => rm(stale, { recursive: true, force: true }));
    }
  }
}

/** Whether process `pid` may still be filling its sibling of `path`. A number may have come to us from a dead process. */
function mayBeFilling(pid: number, path: string): boolean {
  return pid === process.pid ? active.has(siblingOf(path)) : isAlive(pid);
}

async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncPath(path);
  }
  await syncPath(directory);
}

async function syncPath(path: string): Promise<void> {
  await using file = disposable(await open(path));
  await file.handle.sync();
}

function disposable<T extends { close(): Promise<void> }>(handle: T) {
  return { handle, [Symbol.asyncDispose]: () => handle.close() };
}

function absent(error: unknown): undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
  throw KhoError.from(error, 'KHO_EIO');
}

/** Errors of the file system as KhoErrors; what came into the way since the check is KHO_EEXIST. */
async function asIoError<T>(target: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (error instanceof KhoError) throw error;
    if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR') {
      throw exists(target, 'was made by somebody else meanwhile', 'choose another');
    }
    const why = error instanceof Error ? error.message : String(error);
    throw new KhoError('KHO_EIO', `${target} cannot be written: ${why}`, { file: target }, { cause: error });
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new KhoError('KHO_ECANCELED', 'interrupted', {}, { cause: signal.reason });
}
