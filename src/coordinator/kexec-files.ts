import { readFile } from 'node:fs/promises';
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

/** The files of a {@link KexecPlan}, read. KHO_ENOENT or KHO_EIO names the file and what it was to be. */
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
    return { file, bytes: await readFile(file) };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') {
      throw new KhoError('KHO_ENOENT', `there is no ${field} ${file}`, { file, field }, { cause: error });
    }
    const why = error instanceof Error ? error.message : String(error);
    throw new KhoError('KHO_EIO', `the ${field} ${file} cannot be read: ${why}`, { file, field }, { cause: error });
  }
}
