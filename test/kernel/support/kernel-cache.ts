import { randomUUID } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A kernel for the tests. */
export interface TestKernel {
  /** Of Debian's source package: `7.2.13-1`. */
  version: string;
  bzImage: string;
  /** The configuration that it was built with. */
  config: string;
}

/** Names in a kernel's directory. */
const BZ_IMAGE = 'bzImage';
const CONFIG = 'config';
const DESCRIPTION = 'kernel.json';
/** Begins the name of a directory in which somebody works; their process id follows. */
const UNFINISHED = '.unfinished-';

/** Where kernels and parts of their source are kept: `${XDG_CACHE_HOME:-~/.cache}/khorus/`. */
export function cacheDirectory(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'khorus');
}

/**
 * Kernels that were built once: `kernel-VERSION-KEY/` with bzImage, configuration and a description, where the key stands
 * for the configuration; and what else is made of a kernel's source. A directory gets such a name when it is whole, by one rename, and never changes after that.
 */
export class KernelCache {
  readonly #directory: string;

  constructor(directory: string) {
    mkdirSync(directory, { recursive: true });
    this.#directory = directory;
  }

  /** The kernel of the latest version of one of the series (`7.2`), if there is one of this key. */
  find(key: string, series: readonly string[]): TestKernel | undefined {
    const found = this.findDirectory('kernel-', `-${key}`, series);
    if (found === undefined) return undefined;
    const { version, directory } = found;
    return { version, bzImage: join(directory, BZ_IMAGE), config: join(directory, CONFIG) };
  }

  /** The directory `PREFIX VERSION SUFFIX` of the latest version of one of the series. */
  findDirectory(
    prefix: string,
    suffix: string,
    series: readonly string[],
  ): { version: string; directory: string } | undefined {
    const version = readdirSync(this.#directory)
      .filter((name) => name.startsWith(prefix) && name.endsWith(suffix))
      .map((name) => name.slice(prefix.length, name.length - suffix.length))
      .filter((version) => series.some((wanted) => version.startsWith(`${wanted}.`)))
      .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
      .at(-1);
    return version === undefined ? undefined : { version, directory: join(this.#directory, prefix + version + suffix) };
  }

  /** A directory that `fill` fills, which gets its name when that is done. Another may have been first: then theirs stays. */
  async addDirectory(name: string, fill: (directory: string) => Promise<void>): Promise<void> {
    const work = this.createWork();
    try {
      await fill(work);
      renameSync(work, join(this.#directory, name));
    } catch (error) {
      rmSync(work, { recursive: true, force: true });
      if (!existsSync(join(this.#directory, name))) throw error;
    }
  }

  /** An empty directory to work in, on the cache's file system. Whoever gets it removes it. */
  createWork(): string {
    const work = join(this.#directory, `${UNFINISHED}${process.pid}-${randomUUID().slice(0, 8)}`);
    mkdirSync(work);
    return work;
  }

  /** Takes the files of a kernel that is built. Another builder may have been first: then theirs stays, which is as good. */
  add(kernel: TestKernel, key: string): Promise<void> {
    return this.addDirectory(`kernel-${kernel.version}-${key}`, async (work) => {
      copyFileSync(kernel.bzImage, join(work, BZ_IMAGE));
      copyFileSync(kernel.config, join(work, CONFIG));
      const description = { version: kernel.version, key, built: new Date().toISOString() };
      writeFileSync(join(work, DESCRIPTION), `${JSON.stringify(description)}\n`);
    });
  }

  /** Removes the work of builders that are no more: they were killed. */
  removeAbandoned(): void {
    for (const name of readdirSync(this.#directory).filter((name) => name.startsWith(UNFINISHED))) {
      const pid = name.slice(UNFINISHED.length).split('-')[0];
      if (!existsSync(`/proc/${pid}`)) rmSync(join(this.#directory, name), { recursive: true, force: true });
    }
  }
}
