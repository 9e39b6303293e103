import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command, outputOf, Unavailable } from '../../kernel/support/command.js';
import { cacheDirectory, KernelCache } from '../../kernel/support/kernel-cache.js';
import { copyMemblockSource, memblockSource } from '../../kernel/support/memblock-source.js';
import { wantedSeries } from '../../kernel/support/test-kernel.js';

const DRIVER = fileURLToPath(new URL('driver.c', import.meta.url));
/** NUMA with as many nodes as distributions have, scratch-only mode, addresses of 64 bits. */
const DEFINES = ['CONFIG_NUMA', 'CONFIG_NODES_SHIFT=10', 'CONFIG_MEMBLOCK_KHO_SCRATCH', 'CONFIG_PHYS_ADDR_T_64BIT'];

/**
 * Builds the kernel's memblock with driver.c into `directory`; its source comes from the cache, else from Debian's package,
 * or from the unpacked `tree`. {@link Unavailable} where this machine can have none.
 */
export async function kernelMemblock(
  directory: string,
  log: (text: string) => void,
  tree?: string,
): Promise<{ program: string; version: string }> {
  const missing = ['cc', 'tar', 'xz'].filter((name) => outputOf('sh', ['-c', `command -v ${name}`]) === undefined);
  if (missing.length > 0) throw new Unavailable(`building the kernel's memblock needs ${missing.join(', ')}`);
  const { version, simulator } =
    tree === undefined
      ? await memblockSource(new KernelCache(cacheDirectory()), wantedSeries(), log)
      : { version: versionOf(tree), simulator: copyMemblockSource(tree, join(directory, 'source')) };
  const program = join(directory, 'memblock');
  const options = ['-O2', '-w', '-I.', '-I../../include', ...DEFINES.map((name) => `-D${name}`)];
  await command('cc', [...options, DRIVER, '-o', program], { cwd: simulator, log });
  return { program, version };
}

/** Of an unpacked source, by the head of its makefile. */
function versionOf(tree: string): string {
  for (const file of ['Makefile', 'mm/memblock.c', 'tools/testing/memblock']) {
    if (!existsSync(join(tree, file))) throw new Unavailable(`${tree} is no source of a kernel: it has no ${file}`);
  }
  const makefile = readFileSync(join(tree, 'Makefile'), 'utf8');
  const value = (name: string): string => new RegExp(`^${name} = (\\d+)$`, 'm').exec(makefile)?.[1] ?? '?';
  return ['VERSION', 'PATCHLEVEL', 'SUBLEVEL'].map(value).join('.');
}
