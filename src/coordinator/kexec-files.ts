import type { LoadedFile } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { readRegularFile } from '../regular-file.js';

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
    return { file, bytes: await readRegularFile(file, `the ${field}`, MAX_FILE) };
  } catch (error) {
    throw KhoError.from(error).with({ field });
  }
}
