import { type Stats, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { KhoError } from './errors.js';

/**
 * Makes sure that `file` has an end: a device may have none, and opening a pipe waits for its writer. `what` is for
 * messages, such as `the kernel`. Returns its size in bytes.
 *
 * KHO_ENOENT if there is none, KHO_EINVAL if it is no regular file, KHO_E2BIG above `maximum`, KHO_EIO for the rest.
 */
export function checkRegularFile(file: string, what: string, maximum = Number.POSITIVE_INFINITY): number {
  let found: Stats;
  try {
    found = statSync(file);
  } catch (error) {
    throw unreadable(file, what, error);
  }
  if (!found.isFile()) {
    const kind = found.isDirectory() ? 'a directory' : 'not a regular file';
    throw new KhoError('KHO_EINVAL', `${what} ${file} is ${kind}`, { file });
  }
  if (found.size > maximum) {
    const text = `${what} ${file} has ${found.size} bytes, more than the ${maximum} that are read`;
    throw new KhoError('KHO_E2BIG', text, { file, size: found.size });
  }
  return found.size;
}

/** The bytes of a file that {@link checkRegularFile} lets pass. */
export async function readRegularFile(file: string, what: string, maximum: number): Promise<Uint8Array> {
  checkRegularFile(file, what, maximum);
  try {
    return await readFile(file);
  } catch (error) {
    throw unreadable(file, what, error);
  }
}

function unreadable(file: string, what: string, cause: unknown): KhoError {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'ENOENT') {
    const kind = what.replace(/^the /, '');
    return new KhoError('KHO_ENOENT', `there is no ${kind} ${file}`, { file }, { cause });
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return new KhoError('KHO_EIO', `${what} ${file} cannot be read: ${why}`, { file }, { cause });
}
