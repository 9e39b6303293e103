import { createHash, randomUUID } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command, outputOf, Unavailable } from './command.js';
import { findKernelSource, SERIES, type Series } from './kernel-source.js';

/** A kernel for the tests, built once a version and configuration. */
export interface TestKernel {
  /** Of Debian's source package: `7.2.13-1`. */
  version: string;
  bzImage: string;
  /** The configuration that it was built with. */
  config: string;
}

const FRAGMENT = fileURLToPath(new URL('kernel.config', import.meta.url));
/** To be raised when the way of building changes. */
const RECIPE = 1;
/** Files of a whole one. The description is written last; the directory gets its name after that. */
const FILES = { bzImage: 'bzImage', config: 'config', description: 'kernel.json' } as const;
const UNFINISHED = '.unfinished-';
/** What `make bzImage` and the rest needs; each found by running or including it. */
const PROGRAMS = ['cc', 'make', 'flex', 'bison', 'bc', 'ld', 'tar', 'xz', 'dpkg-deb'];
const HEADERS = { 'gelf.h': 'libelf-dev', 'openssl/opensslv.h': 'libssl-dev' };

/**
 * The test kernel: from `${XDG_CACHE_HOME:-~/.cache}/khorus/`, or built (6 to 8 minutes on two cores) and kept there.
 * `KHORUS_TEST_KERNEL=7.3` asks for one series instead of the first that can be had.
 *
 * {@link Unavailable} when this machine cannot have one. A kernel that does not build is an error, not a reason to skip.
 */
export async function testKernel(log: (text: string) => void): Promise<TestKernel> {
  const series = wantedSeries();
  const fragment = readFileSync(FRAGMENT, 'utf8');
  const key = createHash('sha256').update(`${RECIPE}\n${fragment}`).digest('hex').slice(0, 12);
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'khorus');
  mkdirSync(cache, { recursive: true });
  const kept = keptKernel(cache, key, series);
  if (kept !== undefined) return kept;

  checkTools();
  removeAbandoned(cache);
  const work = join(cache, `${UNFINISHED}${process.pid}-${randomUUID().slice(0, 8)}`);
  mkdirSync(work);
  try {
    const source = await findKernelSource(series, join(work, 'apt'), log);
    const name = `kernel-${source.version}-${key}`;
    const download = join(work, 'download');
    mkdirSync(download);
    const tar = await source.fetch(download);
    log('unpacking the source');
    const tree = join(work, 'linux');
    mkdirSync(tree);
    await command('tar', ['-xf', tar, '-C', tree, '--strip-components=1'], { log });
    await configure(tree, fragment, log);
    const jobs = availableParallelism();
    log(`building Linux ${source.version} with ${jobs} jobs (6 to 8 minutes on two cores)`);
    await command('make', [`-j${jobs}`, 'bzImage'], { cwd: tree, env: BUILD_NAMES, log });

    const whole = join(work, 'whole');
    mkdirSync(whole);
    copyFileSync(join(tree, 'arch/x86/boot/bzImage'), join(whole, FILES.bzImage));
    copyFileSync(join(tree, '.config'), join(whole, FILES.config));
    const description = { version: source.version, key, built: new Date().toISOString() };
    writeFileSync(join(whole, FILES.description), `${JSON.stringify(description)}\n`);
    publish(whole, join(cache, name));
    log(`kept as ${name}`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const built = keptKernel(cache, key, series);
  if (built === undefined) throw new Error(`the kernel just built is not in ${cache}`);
  return built;
}

/** The kernel does not tell who built it where. */
const BUILD_NAMES = { KBUILD_BUILD_USER: 'khorus', KBUILD_BUILD_HOST: 'test', KBUILD_BUILD_TIMESTAMP: '2026-01-01' };

function wantedSeries(): readonly Series[] {
  const wanted = process.env.KHORUS_TEST_KERNEL;
  if (!wanted) return SERIES;
  const known = SERIES.filter((series) => series === wanted);
  if (known.length === 0) throw new Error(`KHORUS_TEST_KERNEL=${wanted} is none of ${SERIES.join(', ')}`);
  return known;
}

/** The newest whole kernel of this configuration. */
function keptKernel(cache: string, key: string, series: readonly Series[]): TestKernel | undefined {
  const found = readdirSync(cache)
    .map((name) => ({ name, version: /^kernel-(.+)-([0-9a-f]{12})$/.exec(name) }))
    .filter(({ version }) => version?.[2] === key && series.some((wanted) => version[1].startsWith(`${wanted}.`)))
    .filter(({ name }) => existsSync(join(cache, name, FILES.description)))
    .sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
    .at(-1);
  if (found === undefined) return undefined;
  return {
    version: found.version?.[1] ?? '',
    bzImage: join(cache, found.name, FILES.bzImage),
    config: join(cache, found.name, FILES.config),
  };
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

/** Gives a whole kernel its name. Another builder may have been first: theirs is as good. */
function publish(whole: string, target: string): void {
  try {
    renameSync(whole, target);
  } catch (error) {
    if (!existsSync(join(target, FILES.description))) throw error;
  }
}

/** Work of builders that are no more. */
function removeAbandoned(cache: string): void {
  for (const name of readdirSync(cache).filter((name) => name.startsWith(UNFINISHED))) {
    const pid = Number(name.slice(UNFINISHED.length).split('-')[0]);
    if (!existsSync(`/proc/${pid}`)) rmSync(join(cache, name), { recursive: true, force: true });
  }
}
