import { expect, test } from 'vitest';
import { KHO_V4, ROOT_FDT_SIZE, readKhoRoot, type Subtree, writeKhoRoot } from '#dist/abi/index.js';
import type { PhysicalAddress } from '#dist/memblock/index.js';

const page = (n: number) => (n * 4096) as PhysicalAddress;

function rootWith(drivers: number, nameLength: number, core: readonly string[]): number {
  const names = [...core, ...Array.from({ length: drivers }, (_, n) => String(n).padStart(nameLength, 'd'))];
  const subtrees: Subtree[] = names.map((name, n) => ({ name, address: page(n + 1), size: 4096 }));
  const into = new Uint8Array(ROOT_FDT_SIZE);
  const size = writeKhoRoot(into, KHO_V4, { memoryMap: page(1), subtrees });
  expect(readKhoRoot(into, [KHO_V4]).subtrees).toEqual(subtrees);
  return size;
}

const OURS = ['kexec-metadata', 'memblock'];
const KERNELS = [...OURS, 'LUO', 'kho_test'];

test.each([
  [7, OURS, 67],
  [15, OURS, 59],
  [31, OURS, 47],
  [7, KERNELS, 65],
  [15, KERNELS, 57],
  [31, KERNELS, 46],
])('with names of %i characters beside %j exactly %i drivers fit into the root page', (length, core, limit) => {
  expect(rootWith(limit, length, core)).toBeLessThanOrEqual(ROOT_FDT_SIZE);
  expect(() => rootWith(limit + 1, length, core)).toThrow(
    expect.objectContaining({ code: 'KHO_ENOMEM', message: expect.stringContaining('one page') }),
  );
});

test('the newest subtree comes first, and blob-size before preserved-data, as libfdt inserts them', async () => {
  const { FdtReader } = await import('khorus/fdt');
  const into = new Uint8Array(ROOT_FDT_SIZE);
  const subtrees = ['a', 'b', 'c'].map((name, n) => ({ name, address: page(n + 1), size: 10 + n }));
  writeKhoRoot(into, KHO_V4, { memoryMap: page(9), subtrees });
  const children = [...FdtReader.open(into).root.children()];
  expect(children.map(({ name }) => name)).toEqual(['c', 'b', 'a']);
  expect([...(children[0]?.properties() ?? [])].map(({ name }) => name)).toEqual(['blob-size', 'preserved-data']);
});

test('a name that is there twice is KHO_EEXIST', () => {
  const twice = ['a', 'a'].map((name, n) => ({ name, address: page(n + 1), size: 1 }));
  expect(() => writeKhoRoot(new Uint8Array(ROOT_FDT_SIZE), KHO_V4, { memoryMap: page(9), subtrees: twice })).toThrow(
    expect.objectContaining({ code: 'KHO_EEXIST' }),
  );
});
