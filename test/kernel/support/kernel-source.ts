import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { command, outputOf, Unavailable } from './command.js';
import { readSources, withSuite } from './debian-sources.js';

/** Debian's source packages of the kernels that speak kho-v4. */
export const SERIES = ['7.2', '7.3'] as const;
export type Series = (typeof SERIES)[number];
/** Where Debian has them when the machine's own release does not. */
const OTHER_SUITES = ['sid', 'trixie-backports'];

/** A kernel's source that can be had. */
export interface KernelSource {
  /** Of the package: `7.2.13-1`. */
  version: string;
  /** Puts the source tree's tar file into an empty directory, or finds it installed; returns its path. */
  fetch(directory: string): Promise<string>;
}

/**
 * Looks for a linux-source package: installed, in the machine's own apt, then in another suite of Debian through an apt
 * of our own in `aptDirectory`, which the machine's does not notice. {@link Unavailable} with the reason.
 */
export async function findKernelSource(
  series: readonly Series[],
  aptDirectory: string,
  log: (text: string) => void,
): Promise<KernelSource> {
  for (const name of series.map(packageName)) {
    const installed = `/usr/src/${name}.tar.xz`;
    const version = /^Version: (\S+)$/m.exec(outputOf('dpkg-query', ['-s', name]) ?? '')?.[1];
    if (existsSync(installed) && version !== undefined) return { version, fetch: async () => installed };
  }
  if (outputOf('apt-get', ['--version']) === undefined) throw new Unavailable('there is no apt to get a kernel from');
  const own = candidate(series, []);
  if (own !== undefined) return packageSource(own, [], log);

  const debian = debianEntry();
  const failures: string[] = [];
  for (const suite of OTHER_SUITES) {
    const directory = join(aptDirectory, suite);
    const options = privateApt(directory, withSuite(debian, suite));
    log(`reading the package lists of ${suite}`);
    try {
      await command('apt-get', [...options, 'update'], { log });
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
      continue;
    }
    const found = candidate(series, options);
    if (found !== undefined) return packageSource(found, options, log);
  }
  const what = series.map(packageName).join(' or ');
  throw new Unavailable(`no ${what} in this machine's apt, ${OTHER_SUITES.join(' or ')}. ${failures.join(' ')}`.trim());
}

function packageName(series: Series): string {
  return `linux-source-${series}`;
}

/** The first of the packages that apt could install, and its version. */
function candidate(
  series: readonly Series[],
  options: readonly string[],
): { name: string; version: string } | undefined {
  for (const name of series.map(packageName)) {
    const policy = outputOf('apt-cache', [...options, 'policy', name]) ?? '';
    const version = /^ {2}Candidate: (\S+)$/m.exec(policy)?.[1];
    if (version !== undefined && version !== '(none)') return { name, version };
  }
  return undefined;
}

function packageSource(
  { name, version }: { name: string; version: string },
  options: readonly string[],
  log: (text: string) => void,
): KernelSource {
  return {
    version,
    async fetch(directory) {
      log(`downloading ${name} ${version} (about 160 MB)`);
      await command('apt-get', [...options, 'download', name], { cwd: directory, log });
      const archive = readdirSync(directory).find((file) => file.endsWith('.deb'));
      if (archive === undefined) throw new Error(`apt-get download ${name} left no package`);
      await command('dpkg-deb', ['-x', archive, '.'], { cwd: directory, log });
      return join(directory, `usr/src/${name}.tar.xz`);
    },
  };
}

/** The entry that this machine's own Debian comes from: its suite is the release's code name. */
function debianEntry(): Parameters<typeof withSuite>[0] {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const id = /^ID="?([a-z]+)/m.exec(release)?.[1] ?? 'unknown';
  if (id !== 'debian') throw new Unavailable(`this is not Debian (${id}), whose linux-source is used`);
  const codename = /^VERSION_CODENAME="?([a-z]+)/m.exec(release)?.[1] ?? 'sid';
  const own = readSources('/etc/apt').find(
    ({ suites, components }) => suites.includes(codename) && components.includes('main'),
  );
  if (own === undefined) throw new Unavailable(`/etc/apt has no entry of Debian's ${codename}`);
  return own;
}

/** Options for an apt with sources, lists and caches of its own; the machine's keys. */
function privateApt(directory: string, sources: string): string[] {
  for (const name of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(directory, name), { recursive: true });
  const list = join(directory, 'debian.sources');
  writeFileSync(list, sources);
  const settings = {
    'Dir::Etc::sourcelist': list,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::State::Lists': join(directory, 'lists'),
    'Dir::Cache': join(directory, 'cache'),
    'APT::Get::List-Cleanup': '0',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}
