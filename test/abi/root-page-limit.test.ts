import { FdtReader, FdtWriter } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import {
  KHO_V4,
  ROOT_FDT_SIZE,
  readKhoRoot,
  SUB_BLOBS_PROFILES,
  type SubBlobsProfile,
  type Subtree,
  writeKhoRoot,
} from '#dist/abi/index.js';
import type { PhysicalAddress } from '#dist/memblock/index.js';

const page = (n: number) => (n * 4096) as PhysicalAddress;

/** Memory in which an FDT of 4096 bytes begins wherever one is looked for. */
const HEADER = Uint8Array.from({ length: 40 }, (_, at) => [0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0x10, 0][at] ?? 0);
const MEMORY = { read: () => HEADER };

function rootWith(profile: SubBlobsProfile, drivers: number, nameLength: number, core: readonly string[]): number {
  const names = [...core, ...Array.from({ length: drivers }, (_, n) => String(n).padStart(nameLength, 'd'))];
  const subtrees: Subtree[] = names.map((name, n) => ({ name, address: page(n + 1), size: 4096 }));
  const into = new Uint8Array(ROOT_FDT_SIZE);
  const size = writeKhoRoot(into, { profile, memoryMap: page(1), subtrees });
  expect(readKhoRoot(into, [profile], MEMORY)).toEqual({ profile, memoryMap: page(1), subtrees });
  return size;
}

/** By profile: how many drivers with names of 7, 15 and 31 characters fit beside the core's blobs, and LUO and kho_test. */
const LIMITS: Record<string, { ours: [number, number, number]; kernels: [number, number, number] }> = {
  'kho-v4': { ours: [67, 59, 47], kernels: [65, 57, 46] },
  'kho-v3': { ours: [67, 59, 47], kernels: [65, 57, 46] },
  'kho-v2': { ours: [108, 88, 64], kernels: [106, 86, 63] },
  'kho-v1': { ours: [108, 88, 65], kernels: [106, 87, 63] },
  'kho-v1-6.16': { ours: [108, 88, 65], kernels: [106, 87, 63] },
};

describe.each(SUB_BLOBS_PROFILES.map((profile) => [profile.name, profile] as const))('profile %s', (name, profile) => {
  const core = profile.subtrees.sized ? ['kexec-metadata', 'memblock'] : ['memblock'];
  const { ours, kernels } = LIMITS[name] as (typeof LIMITS)[string];
  test.each([
    ...[7, 15, 31].map((length, at) => [length, core, ours[at] ?? 0] as const),
    ...[7, 15, 31].map((length, at) => [length, [...core, 'LUO', 'kho_test'], kernels[at] ?? 0] as const),
  ])('with names of %i characters beside %j exactly %i drivers fit into the root page', (length, beside, limit) => {
    expect(rootWith(profile, limit, length, beside)).toBeLessThanOrEqual(ROOT_FDT_SIZE);
    expect(() => rootWith(profile, limit + 1, length, beside)).toThrow(
      expect.objectContaining({ code: 'KHO_ENOMEM', message: expect.stringContaining('one page') }),
    );
  });

  test('subtrees stand in the order in which its kernels add them', () => {
    const into = new Uint8Array(ROOT_FDT_SIZE);
    const subtrees = ['a', 'b', 'c'].map((one, n) => ({ name: one, address: page(n + 1), size: 4096 }));
    writeKhoRoot(into, { profile, memoryMap: page(9), subtrees });
    const children = [...FdtReader.open(into, { strict: true }).root.children()];
    const sequential = name.startsWith('kho-v1');
    expect(children.map((child) => child.name)).toEqual(sequential ? ['a', 'b', 'c'] : ['c', 'b', 'a']);
    const properties = { 'kho-v2': ['preserved-data'], 'kho-v1': ['fdt'], 'kho-v1-6.16': ['fdt'] }[name as string];
    // libfdt inserts at the front, and preserved-data is set first.
    const both = ['blob-size', 'preserved-data'];
    expect([...(children[0]?.properties() ?? [])].map((one) => one.name)).toEqual(properties ?? both);
  });
});

test('a name that is there twice is KHO_EEXIST', () => {
  const subtrees = ['a', 'a'].map((name, n) => ({ name, address: page(n + 1), size: 1 }));
  const into = new Uint8Array(ROOT_FDT_SIZE);
  expect(() => writeKhoRoot(into, { profile: KHO_V4, memoryMap: page(9), subtrees })).toThrow(
    expect.objectContaining({ code: 'KHO_EEXIST' }),
  );
});

describe('a root that is not as its compatible says', () => {
  type Nodes = Record<string, Record<string, number>>;
  const rootOf = (compatible: string, nodes: Nodes, map: number | undefined = 0x5000): Uint8Array => {
    const writer = new FdtWriter();
    writer.beginNode('');
    writer.string('compatible', compatible);
    if (map !== 0) writer.u64('preserved-memory-map', map, 'little');
    for (const [name, properties] of Object.entries(nodes)) {
      writer.beginNode(name);
      for (const [property, value] of Object.entries(properties)) writer.u64(property, value, 'little');
      writer.endNode();
    }
    writer.endNode();
    return writer.finish();
  };
  const both = { 'preserved-data': 0x6000, 'blob-size': 73 };
  const REFUSED: [string, string, Nodes, number, RegExp][] = [
    ['kho-v4 without a size', 'kho-v4', { a: { 'preserved-data': 0x6000 } }, 0x5000, /'a' has no blob-size/],
    ['kho-v3 without a size', 'kho-v3', { a: { 'preserved-data': 0x6000 } }, 0x5000, /'a' has no blob-size.*kho-v3/],
    ['kho-v3 with nodes of kho-v1', 'kho-v3', { a: { fdt: 0x6000 } }, 0x5000, /no preserved-data, but 'fdt'/],
    ['kho-v3 with a size alone', 'kho-v3', { a: { 'blob-size': 8 } }, 0x5000, /'a' has no preserved-data/],
    ['kho-v2 with a size', 'kho-v2', { a: both }, 0x5000, /'a' has 'blob-size', which kho-v2 does not have/],
    ['kho-v2 with nodes of kho-v1', 'kho-v2', { a: { fdt: 0x6000 } }, 0x5000, /no preserved-data, but 'fdt'/],
    ['kho-v1 with nodes of kho-v2', 'kho-v1', { a: { 'preserved-data': 0x6000 } }, 0x5000, /no fdt, but 'preserved-d/],
    [
      'kho-v1 with nodes of both',
      'kho-v1',
      { a: { fdt: 0x6000, ...both } },
      0x5000,
      /has 'preserved-data' and 'blob-size'/,
    ],
    [
      'a blob inside of a page',
      'kho-v3',
      { a: { ...both, 'preserved-data': 0x6010 } },
      0x5000,
      /\/a\/preserved-data is 0x6010/,
    ],
    ['a blob nowhere', 'kho-v1', { a: { fdt: 0 } }, 0x5000, /\/a\/fdt is 0/],
    ['a blob of no bytes', 'kho-v3', { a: { ...both, 'blob-size': 0 } }, 0x5000, /\/a\/blob-size is 0/],
    ['kho-v2 without a map', 'kho-v2', {}, 0, /has no preserved-memory-map/],
    ['a map inside of a page', 'kho-v1', {}, 0x5008, /preserved-memory-map is 0x5008/],
    ['a compatible of tomorrow', 'kho-v5', {}, 0x5000, /is 'kho-v5', which is incompatible: expected kho-v4, kho-v3/],
  ];
  test.each(REFUSED)('%s is refused', (_what, compatible, nodes, map, message) => {
    const read = () => readKhoRoot(rootOf(compatible, nodes, map), SUB_BLOBS_PROFILES, MEMORY);
    expect(read).toThrow(expect.objectContaining({ code: 'KHO_EIMAGE', message: expect.stringMatching(message) }));
  });

  test('is refused by a kernel of another profile, and a kernel that knows it reads it', () => {
    const blob = rootOf('kho-v3', { a: both });
    expect(() => readKhoRoot(blob, [KHO_V4], MEMORY)).toThrow(/is 'kho-v3', which is incompatible: expected kho-v4/);
    expect(readKhoRoot(blob, SUB_BLOBS_PROFILES, MEMORY).subtrees).toEqual([{ name: 'a', address: 0x6000, size: 73 }]);
  });

  test('nodes of kho-v1 may stand in the order of Linux 6.19 and 7.0, which is the reverse', () => {
    const nodes = Object.entries({ memblock: { fdt: 0x6000 }, a: { fdt: 0x7000 }, b: { fdt: 0x8000 } });
    const [ours, theirs] = [nodes, [...nodes].reverse()].map((ordered) => {
      const blob = rootOf('kho-v1', Object.fromEntries(ordered));
      expect([...FdtReader.open(blob).root.children()].map(({ name }) => name)).toEqual(ordered.map(([name]) => name));
      return readKhoRoot(blob, SUB_BLOBS_PROFILES, MEMORY);
    });
    const byName = (root: typeof ours) => new Map(root?.subtrees.map((subtree) => [subtree.name, subtree]));
    expect(byName(theirs)).toEqual(byName(ours));
    expect({ ...theirs, subtrees: [] }).toEqual({ ...ours, subtrees: [] });
    expect(byName(theirs).get('b')).toEqual({ name: 'b', address: 0x8000, size: 4096 });
  });

  test('kho-v1 may say that nothing is preserved, by 0 or by no map', () => {
    const nodes = { a: { fdt: 0x6000 } };
    const zero = rootOf('kho-v1', nodes, undefined).slice();
    expect(readKhoRoot(zero, SUB_BLOBS_PROFILES, MEMORY).memoryMap).toBe(0x5000);
    const without = readKhoRoot(rootOf('kho-v1', nodes, 0), SUB_BLOBS_PROFILES, MEMORY);
    expect([without.memoryMap, without.subtrees]).toEqual([undefined, [{ name: 'a', address: 0x6000, size: 4096 }]]);
  });

  test('a blob without a size beside it must be an FDT that tells a possible one', () => {
    const blob = rootOf('kho-v1', { a: { fdt: 0x6000 } });
    const header = (bytes: readonly number[]) => ({
      read: () => Uint8Array.from({ length: 40 }, (_, at) => bytes[at] ?? 0),
    });
    const read = (bytes: readonly number[]) => () => readKhoRoot(blob, SUB_BLOBS_PROFILES, header(bytes));
    expect(read([0x6c, 0x75, 0x6f])).toThrow(
      /the blob 'a' of kho-v1 at 0x6000 is no FDT, and nothing else tells its size/,
    );
    expect(read([0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 39])).toThrow(/says that it has 39 bytes/);
    expect(read([0xd0, 0x0d, 0xfe, 0xed, 0x40, 0, 0, 1])).toThrow(/says that it has 1073741825 bytes/);
    expect(read([0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 40])()).toMatchObject({ subtrees: [{ size: 40 }] });
  });
});
