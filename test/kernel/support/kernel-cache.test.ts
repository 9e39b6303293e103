import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { KernelCache } from './kernel-cache.js';
import { keepMemblockSource, memblockSource } from './memblock-source.js';
import { lostOptions } from './test-kernel.js';

const KEY = '0123456789ab';
let directory = '';
let cache: KernelCache;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'khorus-cache-'));
  cache = new KernelCache(join(directory, 'khorus'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A kernel as a builder leaves it. */
function built(version: string, content = version) {
  const [bzImage, config] = [join(directory, 'bzImage'), join(directory, '.config')];
  writeFileSync(bzImage, content);
  writeFileSync(config, 'CONFIG_64BIT=y\n');
  return { version, bzImage, config };
}

test('a kernel that was added is found by its key and series, the latest version first', async () => {
  expect(cache.find(KEY, ['7.2', '7.3'])).toBeUndefined();
  for (const version of ['7.2.9-1', '7.2.13-1', '7.3.4-1~bpo13+1']) await cache.add(built(version), KEY);
  await cache.add(built('7.2.99-1'), 'ba9876543210');
  expect(cache.find(KEY, ['7.2'])?.version).toBe('7.2.13-1');
  expect(cache.find(KEY, ['7.2', '7.3'])?.version).toBe('7.3.4-1~bpo13+1');
  expect(cache.find(KEY, ['7'])?.version).toBe('7.3.4-1~bpo13+1');
  expect(cache.find(KEY, ['7.20'])).toBeUndefined();
  const found = cache.find(KEY, ['7.2']);
  expect(found && readFileSync(found.bzImage, 'utf8')).toBe('7.2.13-1');
});

test('of two builders of the same kernel the first is kept, and the second has one all the same', async () => {
  const other = new KernelCache(join(directory, 'khorus'));
  await cache.add(built('7.2.13-1', 'first'), KEY);
  await other.add(built('7.2.13-1', 'second'), KEY);
  const found = other.find(KEY, ['7.2']);
  expect(found && readFileSync(found.bzImage, 'utf8')).toBe('first');
  expect(readdirSync(join(directory, 'khorus'))).toHaveLength(1); // nothing unfinished is left
});

test('a kernel that cannot be taken whole is not there, and leaves nothing', async () => {
  const broken = { ...built('7.2.13-1'), config: join(directory, 'none') };
  await expect(cache.add(broken, KEY)).rejects.toThrow('ENOENT');
  expect(cache.find(KEY, ['7.2'])).toBeUndefined();
  expect(readdirSync(join(directory, 'khorus'))).toEqual([]);
});

test('what the memblock simulator is built from is kept of a source tree, links resolved', async () => {
  const tree = join(directory, 'tree');
  const files = {
    'mm/memblock.c': 'the allocator',
    'include/linux/memblock.h': 'its header',
    'tools/arch/x86/include/asm/asm.h': 'asm',
    'tools/arch/x86/include/asm/cmpxchg.h': 'cmpxchg',
    'tools/include/linux/mm.h': 'mm',
    'tools/testing/memblock/linux/kernel.h': 'kernel',
    'tools/testing/memblock/asm/dma.h': 'dma',
    'mm/page_alloc.c': 'not wanted',
  };
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(tree, name)), { recursive: true });
    writeFileSync(join(tree, name), text);
  }
  await keepMemblockSource(cache, '7.2.13-1', tree);
  rmSync(tree, { recursive: true });
  const { version, simulator } = await memblockSource(cache, ['7.2'], () => expect.unreachable());
  expect(version).toBe('7.2.13-1');
  const read = (name: string): string => readFileSync(join(simulator, name), 'utf8');
  expect(['memblock.c', 'linux/memblock.h', 'asm/asm.h', 'asm/cmpxchg.h'].map(read)).toEqual([
    'the allocator',
    'its header',
    'asm',
    'cmpxchg',
  ]);
  expect(existsSync(join(simulator, '../../../mm/page_alloc.c'))).toBe(false);
});

test('the work of a builder that was killed is removed, that of one at work is not', () => {
  const own = cache.createWork();
  const abandoned = join(directory, 'khorus', '.unfinished-999999999-00000000'); // above the largest pid
  mkdirSync(abandoned);
  writeFileSync(join(abandoned, 'bzImage'), 'half');
  cache.removeAbandoned();
  expect(readdirSync(join(directory, 'khorus')).map((name) => join(directory, 'khorus', name))).toEqual([own]);
});

test('an option that a configuration lost is named, set or unset', () => {
  const fragment =
    '# why\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n# CONFIG_E is not set\n';
  const config = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n# CONFIG_D is not set\nCONFIG_AB=y\n';
  expect(lostOptions(fragment, config)).toEqual(['CONFIG_B=y', '# CONFIG_C is not set']);
});
