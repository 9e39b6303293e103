import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { KhoError } from '../errors.js';

/** More than any of the files has; what is larger is none of them. */
const FILE_LIMIT = 4 * 2 ** 20;

/**
 * The files of a machine below a directory, under the names that they have on it: `proc/iomem` and so on. The directory is
 * `/` for the machine that this runs on. Paths are without a slash at their beginning.
 *
 * A file that is not there, or that this user may not read, is undefined; {@link unreadable} has the names of the latter.
 * A link on the way that leads nowhere, and a file where a directory is to be, are KHO_EINVAL: in no machine is one, so the
 * copy lacks something. Whatever else the file system says is KHO_EIO; both name the file.
 */
export class CapturedFiles {
  readonly root: string;
  /** Files that are there, and that this user may not read. */
  readonly unreadable = new Set<string>();

  /** KHO_ENOENT, KHO_EINVAL or KHO_EIO unless `root` is a directory that can be read. */
  constructor(root: string) {
    this.root = root;
    try {
      if (!statSync(root).isDirectory()) {
        throw new KhoError('KHO_EINVAL', `${root} is no directory; expected one that 'khorus capture --dir' wrote`, {
          file: root,
        });
      }
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw this.#failure('', error);
      const text = `there is no directory ${root}; expected one that 'khorus capture --dir' wrote`;
      throw new KhoError('KHO_ENOENT', text, { file: root }, { cause: error });
    }
  }

  /** How messages name a file. */
  name(path: string): string {
    return join(this.root, path);
  }

  /** All bytes of a file. KHO_E2BIG above 4 MiB, KHO_EINVAL if it is no regular file, KHO_EIO. */
  bytes(path: string): Uint8Array | undefined {
    const name = this.name(path);
    try {
      // Never opened if it is no regular file: a FIFO would block for ever.
      if (!statSync(name).isFile()) throw this.invalid(path, 'is no regular file');
      // The files of procfs and sysfs do not tell their size, so it is read until it ends.
      const file = openSync(name, 'r');
      try {
        const parts: Uint8Array[] = [];
        let length = 0;
        for (;;) {
          const part = new Uint8Array(65_536);
          const count = readSync(file, part);
          if (count === 0) return Buffer.concat(parts, length);
          length += count;
          if (length > FILE_LIMIT) {
            const text = `${name} has more than ${FILE_LIMIT} bytes; no machine's file is as large`;
            throw new KhoError('KHO_E2BIG', text, { file: name });
          }
          parts.push(part.subarray(0, count));
        }
      } finally {
        closeSync(file);
      }
    } catch (error) {
      return this.#absent(path, error);
    }
  }

  /** A file as text. KHO_EINVAL unless it is UTF-8 without NUL; otherwise as {@link bytes}. */
  text(path: string): string | undefined {
    const bytes = this.bytes(path);
    if (bytes === undefined) return undefined;
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      if (!text.includes('\0')) return text;
    } catch {
      // falls through
    }
    throw this.invalid(path, 'is no text');
  }

  /**
   * The one line that a file of sysfs has, without its end. KHO_EINVAL if it is empty, has several lines, or does not end
   * with a line's end: then it is cut.
   */
  line(path: string): string | undefined {
    const text = this.text(path);
    if (text === undefined) return undefined;
    if (text === '') throw this.invalid(path, 'is empty');
    if (text.indexOf('\n') !== text.length - 1) {
      throw this.invalid(path, text.includes('\n') ? 'has more than one line' : 'is cut: its line has no end');
    }
    return text.slice(0, -1);
  }

  /** {@link line} of a file that must be there, because what is beside it is. KHO_EINVAL if it is not. */
  requiredLine(path: string): string {
    const line = this.line(path);
    if (line === undefined) throw this.invalid(path, this.absence(path));
    return line;
  }

  /** Why nothing was read of a file: what is to be said after its name. */
  absence(path: string): string {
    return this.unreadable.has(path) ? 'may not be read' : 'is missing';
  }

  /** Names in a directory, in the order of their numbers; none if there is no such directory. */
  list(path: string): string[] {
    try {
      return readdirSync(this.name(path)).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    } catch (error) {
      return this.#absent(path, error) ?? [];
    }
  }

  /** Whether it is a directory. KHO_EINVAL for a link to what is not there, as a copy of sysfs has that kept its links. */
  isDirectory(path: string): boolean {
    const stat = this.#stat(path, statSync);
    if (stat === undefined) this.#checkAbsence(path);
    return stat?.isDirectory() === true;
  }

  /** Whether there is anything of that name, be it a link that leads nowhere. */
  has(path: string): boolean {
    return this.#stat(path, lstatSync) !== undefined;
  }

  /**
   * Where a link of sysfs leads, its last name alone. In a copy it may be a file that has this name as its line; or a
   * directory, if links were followed, and then nothing is known.
   */
  link(path: string): string | undefined {
    try {
      return basename(readlinkSync(this.name(path)));
    } catch (error) {
      if (codeOf(error) !== 'EINVAL') return this.#absent(path, error);
      return this.isDirectory(path) ? undefined : this.line(path);
    }
  }

  /** KHO_EINVAL about a file, and a line of it, from 1. */
  invalid(path: string, what: string, line?: number): KhoError {
    const file = this.name(path);
    const where = line === undefined ? file : `${file}:${line}`;
    return new KhoError('KHO_EINVAL', `${where} ${what}`, { file, ...(line !== undefined && { line }) });
  }

  /** Undefined for what is not there, or not for this user; KHO_EIO for all other troubles. */
  #stat(path: string, stat: (name: string) => Stats): Stats | undefined {
    try {
      return stat(this.name(path));
    } catch (error) {
      if (!this.#isAbsent(path, error)) throw this.#failure(path, error);
      return undefined;
    }
  }

  #absent(path: string, error: unknown): undefined {
    if (!this.#isAbsent(path, error)) throw this.#failure(path, error);
    this.#checkAbsence(path);
  }

  #isAbsent(path: string, error: unknown): boolean {
    const code = codeOf(error);
    const forbidden = code === 'EACCES' || code === 'EPERM';
    if (forbidden) this.unreadable.add(path);
    return forbidden || code === 'ENOENT' || code === 'ENOTDIR';
  }

  /** KHO_EINVAL unless `path` is simply not there: what is there of it are directories. */
  #checkAbsence(path: string): void {
    if (this.unreadable.has(path)) return;
    const names = path.split('/');
    for (const end of names.keys()) {
      const part = names.slice(0, end + 1).join('/');
      const stat = this.#stat(part, statSync);
      if (stat?.isDirectory() === true) continue;
      if (stat !== undefined) throw this.invalid(part, 'is no directory');
      if (!this.has(part)) return;
      throw this.invalid(part, "links to what is not here; 'khorus capture --dir' and cp -RL copy what links lead to");
    }
  }

  #failure(path: string, error: unknown): KhoError {
    if (error instanceof KhoError) return error;
    const file = this.name(path);
    const text = `${file} cannot be read: ${codeOf(error) ?? String(error)}`;
    return new KhoError('KHO_EIO', text, { file }, { cause: error });
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
