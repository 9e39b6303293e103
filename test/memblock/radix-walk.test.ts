import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { ImageMemory } from '#dist/memblock/image-memory.js';
import type { Folio } from '#dist/memblock/page-range.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { radixFolios, walkRadixRuns, walkRadixTree } from '#dist/memblock/radix-walk.js';
import { thrown } from './thrown.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const page = (number: number) => at(number * PAGE_SIZE);

/**
 * A tree with one folio at 0x200000 of order 0: pages 16 (root, entry 2), 17, 18, 19 (tables, entry 0), 20 (table,
 * entry 0) and 21 (leaf, bit 512). Memory: 4 MiB, then a hole, then 1 GiB unbacked on two nodes that touch.
 */
function tree(): { memory: SharedPhysicalMemory; root: ReturnType<typeof at>; tree: RadixTree } {
  const memory = SharedPhysicalMemory.create([
    { base: at(0), size: 4 * MIB, nid: 0, backed: true },
    { base: at(GIB), size: GIB / 2, nid: 0, backed: false },
    { base: at(1.5 * GIB), size: GIB / 2, nid: 1, backed: false },
  ]);
  let next = 16;
  const tree = RadixTree.create(memory, () => page(next++));
  tree.ensure(at(0x200000), 0);
  tree.set(at(0x200000), 0);
  return { memory, root: tree.root, tree };
}

const ROOT_ENTRY = 16 * PAGE_SIZE + 2 * 8;
const LAST_TABLE_ENTRY = 20 * PAGE_SIZE;
const LEAF = 21 * PAGE_SIZE;

test('the undamaged tree is walked', () => {
  const { memory, root } = tree();
  expect([...radixFolios(memory, root)]).toEqual([{ address: 0x200000, order: 0 }]);
  expect(walkRadixTree(memory, root, () => {}).map((address) => address / PAGE_SIZE)).toEqual([16, 17, 18, 19, 20, 21]);
});

test('unbacked memory, even over a border of nodes, is memory that can be preserved', () => {
  const { memory, root, tree: built } = tree();
  for (const [address, order] of [
    [GIB, 18],
    [1.5 * GIB, 17],
  ] as const) {
    built.ensure(at(address), order);
    built.set(at(address), order);
  }
  expect([...radixFolios(memory, root)].map(({ order }) => order)).toEqual([18, 17, 0]);
});

test.each<[what: string, entry: number, value: bigint, message: string]>([
  ['an entry that is not page aligned', ROOT_ENTRY, 0x11001n, 'not aligned'],
  ['an entry outside of memory', ROOT_ENTRY, 0x20000000n, 'outside of memory'],
  ['an entry at the very end of memory', ROOT_ENTRY, 0x400000n, 'outside of memory'],
  ['an entry above 2^52', ROOT_ENTRY, 0xffff_ffff_ffff_f000n, '0xfffffffffffff000, which is outside of memory'],
  ['an entry in unbacked memory', LAST_TABLE_ENTRY, BigInt(GIB), 'unbacked'],
  ['a table that points to the root', LAST_TABLE_ENTRY - 2 * PAGE_SIZE, 0x10000n, 'met before'],
  ['a table that points to itself', LAST_TABLE_ENTRY - PAGE_SIZE, 0x13000n, 'met before'],
  ['a table page that is shared', ROOT_ENTRY + 8, 0x11000n, 'met before'],
  ['a leaf that is shared', LAST_TABLE_ENTRY + 8, 0x15000n, 'met before'],
  ['a root entry above all orders', 16 * PAGE_SIZE + 4 * 8, 0x30000n, 'without a valid order'],
  ['the last root entry', 16 * PAGE_SIZE + 511 * 8, 0x30000n, 'without a valid order'],
  ['a mark in the hole of memory', LEAF + 128, 1n, 'not inside memory'],
])('%s is KHO_ETRACKER at its address', (_, entry, value, message) => {
  const { memory, root } = tree();
  memory.writeU64(at(entry), value);
  for (const walk of [() => walkRadixTree(memory, root, () => {}), () => [...radixFolios(memory, root)]]) {
    const error = thrown(walk);
    expect([error.code, error.details.address]).toEqual(['KHO_ETRACKER', entry]);
    expect(error.message).toContain(message);
    expect(error.message).toContain(`0x${entry.toString(16)}`);
  }
});

test('a root that is not aligned, outside of memory or unbacked is KHO_ETRACKER', () => {
  const { memory } = tree();
  for (const root of [8, 8 * MIB, GIB]) {
    expect(thrown(() => walkRadixTree(memory, at(root), () => {}))).toMatchObject({
      code: 'KHO_ETRACKER',
      details: { address: root },
    });
  }
});

test('in the leaf of the shortest keys, key 0 has no order and the others are far too large for memory', () => {
  for (const [bit, message] of [
    [0, 'key 0'],
    [1, 'order 52 at 0x0'],
    [0x4000, 'order 38'],
  ] as const) {
    const { memory, root } = tree();
    // Entry 0 all the way down leads to the keys 0 to 32767.
    [16, 22, 23, 24, 25].forEach((table, i) => {
      memory.writeU64(page(table), (i === 0 ? 22 : table + 1) * PAGE_SIZE);
    });
    const word = 26 * PAGE_SIZE + Math.floor(bit / 64) * 8;
    memory.writeU64(at(word), 1n << BigInt(bit % 64));
    const error = thrown(() => walkRadixTree(memory, root, () => {}));
    expect([error.code, error.details.address]).toEqual(['KHO_ETRACKER', word]);
    expect(error.message).toContain(message);
  }
});

test('the folios before the damage are yielded first', () => {
  const { memory, root } = tree();
  memory.writeU64(at(LEAF + 128), 1n); // bit 1024 = 4 MiB, in the hole
  const seen: Folio[] = [];
  expect(() => {
    for (const folio of radixFolios(memory, root)) seen.push(folio);
  }).toThrow(KhoError);
  expect(seen).toEqual([{ address: 0x200000, order: 0 }]);
});

test('whatever the bytes are, the walk ends, with folios inside memory or with KHO_ETRACKER', () => {
  const place = fc.tuple(fc.integer({ min: 16, max: 40 }), fc.oneof(fc.nat(511), fc.nat(5)));
  const value = fc.oneof(
    fc.integer({ min: 14, max: 44 }).map((number) => BigInt(number * PAGE_SIZE)), // mostly plausible
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.nat(63).map((bit) => 1n << BigInt(bit)),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(place, value), { maxLength: 30 }), (damage) => {
      const { memory, root } = tree();
      for (const [[table, index], word] of damage) memory.writeU64(at(table * PAGE_SIZE + index * 8), word);
      let last = { address: -1, order: 99 };
      try {
        walkRadixTree(memory, root, (address, order) => {
          if (order > last.order || (order === last.order && address <= last.address)) throw new Error('out of order');
          const end = address + PAGE_SIZE * 2 ** order;
          if (end > 4 * MIB && (address < GIB || end > 2 * GIB)) throw new Error(`outside of memory: ${address}`);
          last = { address, order };
        });
      } catch (error) {
        if (!(error instanceof KhoError)) throw error;
        expect(error.code).toBe('KHO_ETRACKER');
      }
    }),
    { numRuns: 500 },
  );
});

test('an image with every table entry pointing to tables is refused after each page was read at most once', () => {
  const { memory, root } = tree();
  // 512 entries on each of five levels would be 2^45 pages, were a shared page not refused.
  for (let table = 16; table < 800; table++) {
    for (let index = 0; index < 512; index++)
      memory.writeU64(at(table * PAGE_SIZE + index * 8), ((table + 1 + index) % 800) * PAGE_SIZE);
  }
  expect(thrown(() => walkRadixTree(memory, root, () => {})).code).toBe('KHO_ETRACKER');
});

test('every bit of a leaf is in one run, as long as can be where all is memory, and else it is damage where it stands', () => {
  const word = fc.oneof(fc.constantFrom(0, -1, 1, 1 << 31, -2, 0x7fffffff), fc.integer());
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(40), word), { maxLength: 24 }), (words) => {
      const { memory, root } = tree();
      for (const [index, value] of words) memory.writeU32(at(LEAF + index * 4), value >>> 0);
      // Bit by bit. From page 1024 on is the hole.
      const bits: number[] = [];
      for (let index = 0; index < 41; index++) {
        const value = memory.readU32(at(LEAF + index * 4));
        for (let bit = 0; bit < 32; bit++) if ((value >>> bit) & 1) bits.push(index * 32 + bit);
      }
      const expected = bits.map((bit) => (bit < 1024 ? bit : `damage at ${LEAF + (bit >>> 6) * 8}`));
      const found: typeof expected = [];
      const runs: [first: number, end: number][] = [];
      const visit = (address: number, order: number, count: number): void => {
        const first = address / PAGE_SIZE;
        runs.push([first, first + count]);
        for (let page = 0; page < count; page++) found.push(first + page + order);
      };
      walkRadixRuns(memory, root, visit, { onDamage: ({ details }) => found.push(`damage at ${details.address}`) });
      expect(found).toEqual(expected);
      const joinable = runs.filter(([first], index) => runs[index - 1]?.[1] === first);
      if (bits.every((bit) => bit < 1024)) expect(joinable).toEqual([]);
    }),
    { numRuns: 80 },
  );
});

test('a tree in an image file is walked as the one in memory, and a file cut short is KHO_ETRACKER', () => {
  const { memory, root } = tree();
  const directory = mkdtempSync(join(tmpdir(), 'khorus-walk-'));
  try {
    const whole = join(directory, 'whole.img');
    writeFileSync(whole, memory.read(at(0), 4 * MIB));
    const image = ImageMemory.open(whole);
    expect([...radixFolios(image, root)]).toEqual([...radixFolios(memory, root)]);
    image.close();
    const cut = join(directory, 'cut.img');
    writeFileSync(cut, memory.read(at(0), 21 * PAGE_SIZE + 100));
    const short = ImageMemory.open(cut);
    short.setRanges(memory.ranges);
    expect(thrown(() => [...radixFolios(short, root)])).toMatchObject({
      code: 'KHO_ETRACKER',
      details: { address: LAST_TABLE_ENTRY },
    });
    short.close();
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('millions of folios are walked without an object for each', () => {
  const memory = SharedPhysicalMemory.create([
    { base: at(0), size: 4 * MIB, nid: 0, backed: true },
    { base: at(2 ** 36), size: 2 ** 34, nid: 0, backed: false },
  ]);
  let next = 1;
  const big = RadixTree.create(memory, () => page(next++));
  big.ensureRange(at(2 ** 36), 2 ** 22, 0);
  for (let i = 0; i < 2 ** 22; i++) big.set(at(2 ** 36 + i * PAGE_SIZE), 0);
  let count = 0;
  let sum = 0;
  walkRadixTree(memory, big.root, (address, order) => {
    count++;
    sum += (address - 2 ** 36) / PAGE_SIZE + order;
  });
  expect([count, sum]).toEqual([2 ** 22, (2 ** 22 * (2 ** 22 - 1)) / 2]);
});

test('damage that is told instead of thrown is left out, and the walk goes on behind it', () => {
  const { memory, root, tree: built } = tree();
  for (const [address, order] of [
    [0x200000, 9],
    [0x300000, 0],
    [GIB, 3],
  ] as const) {
    built.ensure(at(address), order);
    built.set(at(address), order);
  }
  memory.writeU64(at(LEAF + 128), 1n); // a folio in the hole
  memory.writeU64(at(16 * PAGE_SIZE + 3 * 8), 0x10000n); // the root again
  memory.writeU64(at(16 * PAGE_SIZE + 5 * 8), 0x40000n);
  const folios: Folio[] = [];
  const damage: KhoError[] = [];
  const pages = walkRadixTree(memory, root, (address, order) => folios.push({ address, order }), {
    onDamage: (error) => damage.push(error),
  });
  expect(folios).toEqual([
    { address: 0x200000, order: 9 },
    { address: GIB, order: 3 },
    { address: 0x200000, order: 0 },
    { address: 0x300000, order: 0 },
  ]);
  expect(new Set(pages)).toEqual(new Set(built.pages()));
  expect(damage.map(({ code, message }) => [code, message])).toEqual([
    ['KHO_ETRACKER', expect.stringContaining('not inside memory')],
    ['KHO_ETRACKER', expect.stringContaining('met before')],
    ['KHO_ETRACKER', expect.stringContaining('without a valid order')],
  ]);
  memory.fill(root, PAGE_SIZE, 0xee);
  expect(walkRadixTree(memory, at(8), () => {}, { onDamage: () => {} })).toEqual([]);
  expect(() =>
    walkRadixTree(memory, root, () => {}, {
      onDamage: (error) => {
        throw error;
      },
    }),
  ).toThrow(KhoError);
});
