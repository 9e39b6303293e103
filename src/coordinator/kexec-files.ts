import { open } from 'node:fs/promises';
import type { LoadedFile } from '../arch/index.js';
import { KhoError } from '../errors.js';

/** What is to be loaded for the jump, as `kexec -l` takes it. */
export interface KexecPlan {
  /** A file; the architecture says of which kind (x86_64: a bzImage). */
  readonly kernel: string;
  readonly initrd?: string;
  /** The next kernel's command line; the host's own where it is absent. */
  readonly commandLine?: string;
}

/** The largest file that is read: more than any scratch will hold. */
const MAX_FILE = 2 ** 30;

/**
 * The files of a {@link KexecPlan}, read. KHO_ENOENT, KHO_EIO, KHO_EINVAL for what is no regular file (a device has no
 * end) or KHO_E2BIG above 1 GiB; each names the file and what it was to be.
 */
export async function readKexecFiles({
  kernel,
  initrd,
}: KexecPlan): Promise<{ kernel: LoadedFile; initrd?: LoadedFile }> {
  return {
    kernel: await read(kernel, 'kernel'),
    ...(initrd !== undefined && { initrd: await read(initrd, 'initrd') }),
  };
}

async function read(file: string, field: string): Promise<LoadedFile> {
  try {
    const handle = await open(file);
    try {
      const found = await handle.stat();
      if (!found.isFile())
        throw new KhoError('KHO_EINVAL', `the ${field} ${file} is not a regular file`, { file, field });
      if (found.size > MAX_FILE) {
        const text = `the ${field} ${file} has ${found.size} bytes; no more than 1 GiB can be loaded`;
        throw new KhoError('KHO_E2BIG', text, { file, field, size: found.size });
      }
      return { file, bytes: await handle.readFile() };
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof KhoError) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') {
      throw new KhoError('KHO_ENOENT', `there is no ${field} ${file}`, { file, field }, { cause: error });
    }
    const why = error instanceof Error ? error.message : String(error);
    throw new KhoError('KHO_EIO', `the ${field} ${file} cannot be read: ${why}`, { file, field }, { cause: error });
  }
}
