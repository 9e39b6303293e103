import { cpSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { command } from './command.js';
import type { KernelCache } from './kernel-cache.js';
import { findKernelSource, type KernelSource, type Series } from './kernel-source.js';

/** What of a kernel's source its memblock simulator is built from. */
const PARTS = [
  'mm/memblock.c',
  'include/linux/memblock.h',
  'tools/testing/memblock',
  'tools/include',
  'tools/arch/x86/include',
];
/** Where in a source tree the simulator is. */
const SIMULATOR = 'tools/testing/memblock';

/** The links that its makefile makes into the kernel's sources, from its own directory. */
const LINKS = {
  'memblock.c': '../../../mm/memblock.c',
  'linux/memblock.h': '../../../include/linux/memblock.h',
  'asm/asm.h': '../../arch/x86/include/asm/asm.h',
  'asm/cmpxchg.h': '../../arch/x86/include/asm/cmpxchg.h',
};

type Log = (text: string) => void;

/** A simulator's source: the directory whose headers stand for the kernel's, with mm/memblock.c linked into it. */
export interface MemblockSource {
  version: string;
  simulator: string;
}

/** The simulator's source in the cache, of the latest version there; otherwise from Debian's package, and kept. */
export async function memblockSource(cache: KernelCache, series: readonly Series[], log: Log): Promise<MemblockSource> {
  const kept = keptSource(cache, series);
  if (kept !== undefined) return kept;
  cache.removeAbandoned();
  const work = cache.createWork();
  try {
    const [apt, download, tree] = ['apt', 'download', 'linux'].map((name) => join(work, name));
    for (const directory of [apt, download, tree]) mkdirSync(directory);
    const source: KernelSource = await findKernelSource(series, apt, log);
    const tar = await source.fetch(download);
    log('unpacking what the simulator is built from');
    const parts = PARTS.map((part) => `*/${part}`);
    await command('tar', ['-xf', tar, '-C', tree, '--strip-components=1', '--wildcards', ...parts], { log });
    await keepMemblockSource(cache, source.version, tree);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const fetched = keptSource(cache, series);
  if (fetched === undefined) throw new Error('the source just unpacked is not in the cache');
  return fetched;
}

/** Keeps what the simulator needs of an unpacked source tree; for whoever has one anyway. */
export function keepMemblockSource(cache: KernelCache, version: string, tree: string): Promise<void> {
  return cache.addDirectory(`${PREFIX}${version}`, async (directory) => void copyMemblockSource(tree, directory));
}

/** Copies what the simulator needs, and links the kernel's files into it. Returns its directory. */
export function copyMemblockSource(tree: string, directory: string): string {
  for (const part of PARTS) {
    const to = join(directory, part);
    mkdirSync(dirname(to), { recursive: true });
    cpSync(join(tree, part), to, { recursive: true, verbatimSymlinks: true });
  }
  const simulator = join(directory, SIMULATOR);
  for (const [link, target] of Object.entries(LINKS))
    symlinkSync(relative(dirname(link), target), join(simulator, link));
  return simulator;
}

const PREFIX = 'memblock-';

function keptSource(cache: KernelCache, series: readonly Series[]): MemblockSource | undefined {
  const found = cache.findDirectory(PREFIX, '', series);
  return found && { version: found.version, simulator: join(found.directory, SIMULATOR) };
}
