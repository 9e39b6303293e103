import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command, outputOf, Unavailable } from './command.js';
import { cacheDirectory, KernelCache, type TestKernel } from './kernel-cache.js';
import { findKernelSource, SERIES, type Series } from './kernel-source.js';
import { keepMemblockSource } from './memblock-source.js';

const FRAGMENT = fileURLToPath(new URL('../kernel.config', import.meta.url));
/** To be raised when the way of building changes. */
const RECIPE = 1;
/** What building needs; each found by running or including it. */
const PROGRAMS = ['cc', 'make', 'flex', 'bison', 'bc', 'ld', 'tar', 'xz', 'dpkg-deb'];
const HEADERS = { 'gelf.h': 'libelf-dev', 'openssl/opensslv.h': 'libssl-dev' };
/** The kernel does not tell who built it where and when. */
const BUILD_NAMES = { KBUILD_BUILD_USER: 'khorus', KBUILD_BUILD_HOST: 'test', KBUILD_BUILD_TIMESTAMP: '2026-01-01' };

/**
 * The test kernel: from `${XDG_CACHE_HOME:-~/.cache}/khorus/`, or built (about 10 minutes on two cores) and kept there.
 * `KHORUS_TEST_KERNEL=7.3` asks for one series instead of any that can be had.
 *
 * {@link Unavailable} when this machine cannot have one. A kernel that does not build is an error, not a reason to skip.
 */
export async function testKernel(log: (text: string) => void): Promise<TestKernel> {
  const series = wantedSeries();
  const fragment = readFileSync(FRAGMENT, 'utf8');
  const key = createHash('sha256').update(`${RECIPE}\n${fragment}`).digest('hex').slice(0, 12);
  const cache = new KernelCache(cacheDirectory());
  const kept = cache.find(key, series);
  if (kept !== undefined) {
    log(`Linux ${kept.version} is there`);
    return kept;
  }
  checkTools();
  cache.removeAbandoned();
  const work = cache.createWork();
  try {
    await cache.add(await build(cache, work, series, fragment, log), key);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const built = cache.find(key, series);
  if (built === undefined) throw new Error('the kernel just built is not in the cache');
  return built;
}

async function build(
  cache: KernelCache,
  work: string,
  series: readonly Series[],
  fragment: string,
  log: (text: string) => void,
): Promise<TestKernel> {
  const directories = { apt: join(work, 'apt'), download: join(work, 'download'), tree: join(work, 'linux') };
  for (const directory of Object.values(directories)) mkdirSync(directory);
  const { tree } = directories;
  const { version, fetch } = await findKernelSource(series, directories.apt, log);
  const tar = await fetch(directories.download);
  log('unpacking the source');
  await command('tar', ['-xf', tar, '-C', tree, '--strip-components=1'], { log });
  rmSync(directories.download, { recursive: true });
  // For npm run test:memblock, which would have to fetch the package once more.
  await keepMemblockSource(cache, version, tree);
  await configure(tree, fragment, log);
  const jobs = availableParallelism();
  log(`building Linux ${version} with ${jobs} jobs (about 10 minutes on two cores)`);
  await command('make', [`-j${jobs}`, 'bzImage'], { cwd: tree, env: BUILD_NAMES, log });
  log(`Linux ${version} is built`);
  return { version, bzImage: join(tree, 'arch/x86/boot/bzImage'), config: join(tree, '.config') };
}

/** tinyconfig, the fragment, olddefconfig; an error that names the options that did not come out as wanted. */
async function configure(tree: string, fragment: string, log: (text: string) => void): Promise<void> {
  const options = { cwd: tree, log };
  await command('make', ['tinyconfig'], options);
  await command('scripts/kconfig/merge_config.sh', ['-m', '.config', FRAGMENT], options);
  await command('make', ['olddefconfig'], options);
  const lost = lostOptions(fragment, readFileSync(join(tree, '.config'), 'utf8'));
  if (lost.length > 0) throw new Error(`the kernel's configuration did not take: ${lost.join(', ')}`);
}

/** The lines of a fragment that a configuration does not follow. */
export function lostOptions(fragment: string, config: string): string[] {
  const lines = new Set(config.split('\n'));
  return fragment.split('\n').filter((line) => {
    if (/^CONFIG_\w+=/.test(line)) return !lines.has(line);
    const unset = /^# (CONFIG_\w+) is not set$/.exec(line);
    return unset !== null && [...lines].some((set) => set.startsWith(`${unset[1]}=`));
  });
}

/** The series that may be taken, by KHORUS_TEST_KERNEL. */
export function wantedSeries(): readonly Series[] {
  const wanted = process.env.KHORUS_TEST_KERNEL;
  if (!wanted) return SERIES;
  const known = SERIES.filter((series) => series === wanted);
  if (known.length === 0) throw new Error(`KHORUS_TEST_KERNEL=${wanted} is none of ${SERIES.join(', ')}`);
  return known;
}

function checkTools(): void {
  const missing = PROGRAMS.filter((program) => outputOf('sh', ['-c', `command -v ${program}`]) === undefined);
  if (!missing.includes('cc')) {
    for (const [header, debianPackage] of Object.entries(HEADERS)) {
      if (outputOf('cc', ['-E', '-'], `#include <${header}>\n`) === undefined) missing.push(debianPackage);
    }
  }
  if (missing.length > 0) throw new Unavailable(`building a kernel needs ${missing.join(', ')}`);
}
