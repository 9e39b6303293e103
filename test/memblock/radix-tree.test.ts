import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress } from '#dist/memblock/address.js';
import type { Folio } from '#dist/memblock/page-range.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import {
  decodeRadixKey,
  LEAF_BITS,
  leafOfKey,
  ROOT_LEVEL,
  radixKey,
  radixKeyBigInt,
  TREE_DEPTH,
  tableIndex,
} from '#dist/memblock/radix-key.js';
import { WINDOW_LOG2 } from '#dist/memblock/radix-leaves.js';
import { countTables } from '#dist/memblock/radix-paths.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { radixFolios, walkRadixTree } from '#dist/memblock/radix-walk.js';
import { thrown } from './thrown.js';

const MIB = 2 ** 20;
const page = (number: number) => at(number * PAGE_SIZE);

/** 8 MiB of backed memory for the tree, and all above of unbacked memory to track. */
const TRACKED = 2 ** 40;
function newTree(): { memory: SharedPhysicalMemory; tree: RadixTree } {
  const memory = SharedPhysicalMemory.create([
    { base: at(0), size: 8 * MIB, nid: 0, backed: true },
    { base: at(8 * MIB), size: PHYS_ADDR_MAX - 8 * MIB, nid: 0, backed: false },
  ]);
  let next = 16;
  const tree = RadixTree.create(memory, () => {
    memory.fill(page(next), PAGE_SIZE, 0xff); // pages come dirty
    return page(next++);
  });
  return { memory, tree };
}

/** Vectors of kho-abi.md 3.2: address, order, key, indexes of the tables from the root, bit in the leaf. */
test.each<[number, number, bigint, number[], number]>([
  [0, 0, 0x0010000000000000n, [2, 0, 0, 0, 0], 0],
  [0x8000000, 0, 0x0010000000008000n, [2, 0, 0, 0, 1], 0],
  [0x100000000, 0, 0x0010000000100000n, [2, 0, 0, 0, 32], 0],
  [0x100000000, 1, 0x0008000000080000n, [1, 0, 0, 0, 16], 0],
  [0x200000, 9, 0x0000080000000001n, [0, 2, 0, 0, 0], 1],
  [0x100400000, 10, 0x0000040000000401n, [0, 1, 0, 0, 0], 1025],
  [0x40000000, 18, 0x0000000400000001n, [0, 0, 2, 0, 0], 1],
  [0xc07c000000, 0, 0x001000000c07c000n, [2, 0, 0, 12, 15], 16384],
  [0xfffffffff000, 0, 0x0010000fffffffffn, [2, 0, 7, 511, 511], 32767],
])('the folio at %i of order %i has the key that the kernel gives it', (address, order, key, indexes, bit) => {
  expect(radixKeyBigInt(at(address), order)).toBe(key);
  const number = radixKey(at(address), order);
  const levels = Array.from({ length: ROOT_LEVEL }, (_, i) => tableIndex(leafOfKey(number), ROOT_LEVEL - i));
  expect([levels, number % LEAF_BITS]).toEqual([indexes, bit]);
  expect(decodeRadixKey(number)).toEqual({ address, order });
});

test('the tree has six levels of pages, with 4 KiB pages', () => {
  expect(TREE_DEPTH).toBe(6);
});

test('keys agree with the 64-bit formulas of the kernel, both ways', () => {
  fc.assert(
    fc.property(fc.nat(40), fc.bigInt({ min: 0n, max: 2n ** 40n - 1n }), (order, number) => {
      const frame = number >> BigInt(order);
      const address = frame << BigInt(12 + order);
      const key = (1n << BigInt(64 - 12 - order)) | (address >> BigInt(12 + order));
      expect(radixKeyBigInt(at(Number(address)), order)).toBe(key);
      // The kernel's decoding shifts the order bit out of 64 bits.
      expect(BigInt.asUintN(64, key << BigInt(12 + order))).toBe(address);
      expect(decodeRadixKey(Number(key))).toEqual({ address: Number(address), order });
    }),
    { numRuns: 1000 },
  );
});

test('what is not a folio has no key, and what is not a key no folio', () => {
  expect(thrown(() => radixKey(at(PAGE_SIZE), 1))).toMatchObject({
    code: 'KHO_EINVAL',
    details: { address: PAGE_SIZE },
  });
  for (const order of [-1, 53, 0.5]) expect(thrown(() => radixKey(at(0), order)).code).toBe('KHO_EINVAL');
  expect(thrown(() => radixKey(at(5), 0)).code).toBe('KHO_EINVAL');
  for (const key of [0, -1, 0.5, 2 ** 53]) expect(thrown(() => decodeRadixKey(key)).code).toBe('KHO_EINVAL');
  expect(decodeRadixKey(1)).toEqual({ address: 0, order: 52 });
});

/**
 * Where folios meet in leaves and words, by number and so at another address in every order: low, though above the tables;
 * at the borders of a leaf, of a window (256 GiB of order 0) and of 32 bits (16 TiB); a window behind that; and far away.
 */
const PLACES = [4096, LEAF_BITS, 2 ** WINDOW_LOG2, 2 ** 32, 2 ** 32 + 2 ** WINDOW_LOG2, 2 ** 39];
const folio = fc
  .tuple(fc.nat(12), fc.constantFrom(...PLACES), fc.integer({ min: -50, max: 150 }))
  .map(([order, place, n]): Folio => {
    const size = PAGE_SIZE * 2 ** order;
    const number = Math.min(place, PHYS_ADDR_MAX / size - 151) + n; // of the highest orders there are few
    return { address: at(number * size), order };
  });

const inWalkOrder = (folios: Iterable<Folio>) => [...folios].sort((a, b) => b.order - a.order || a.address - b.address);
const keyOf = ({ address, order }: Folio) => `${address}/${order}`;

test('marks agree with a set of folios, and the walk yields them in the order of the kernel', () => {
  const step = fc.tuple(fc.constantFrom('set' as const, 'clear' as const), folio);
  fc.assert(
    // Without the size an array has ten steps at most: too few for the leaves of one order to be mistaken for those of another.
    fc.property(fc.array(step, { maxLength: 80, size: 'max' }), (steps) => {
      const { memory, tree } = newTree();
      const model = new Map<string, Folio>();
      for (const [op, { address, order }] of steps) {
        const key = keyOf({ address, order });
        expect(tree.test(address, order)).toBe(model.has(key));
        tree.ensure(address, order);
        if (op === 'set') {
          if (model.has(key)) expect(thrown(() => tree.set(address, order)).code).toBe('KHO_EEXIST');
          else tree.set(address, order);
          model.set(key, { address, order });
        } else {
          if (model.has(key)) tree.clear(address, order);
          else expect(thrown(() => tree.clear(address, order)).code).toBe('KHO_ENOENT');
          model.delete(key);
        }
      }
      const expected = inWalkOrder(model.values());
      expect([...radixFolios(memory, tree.root)]).toEqual(expected);
      const visited: Folio[] = [];
      const pages = walkRadixTree(memory, tree.root, (address, order) => visited.push({ address, order }));
      expect(visited).toEqual(expected);
      expect([...pages].sort()).toEqual([...tree.pages()].sort());
    }),
    { numRuns: 200 },
  );
});

test('ensureRange builds what any folio in the range needs, and no more than countTables says', () => {
  const range = fc
    .tuple(fc.constantFrom(0, 2 ** 15 - 3, 2 ** 24 - 1, 2 ** 27 + 5), fc.integer({ min: 1, max: 70_000 }))
    .map(([start, pages]) => ({ address: at(TRACKED + start * PAGE_SIZE), pages }));
  fc.assert(
    fc.property(
      fc.array(range, { maxLength: 4 }),
      fc.nat(18),
      fc.array(fc.nat(), { maxLength: 20 }),
      (ranges, maxOrder, picks) => {
        const { tree } = newTree();
        for (const { address, pages } of ranges) tree.ensureRange(address, pages, maxOrder);
        expect(tree.pages()).toHaveLength(countTables(ranges, maxOrder));
        const before = tree.pages().length;
        for (const [i, pick] of picks.entries()) {
          const within = ranges[i % Math.max(1, ranges.length)];
          const order = pick % (maxOrder + 1);
          if (within === undefined) continue;
          const size = PAGE_SIZE * 2 ** order;
          const first = Math.ceil(within.address / size);
          const count = Math.floor((within.address + within.pages * PAGE_SIZE) / size) - first;
          if (count > 0) tree.ensure(at((first + (pick % count)) * size), order);
        }
        expect(tree.pages()).toHaveLength(before);
      },
    ),
    { numRuns: 200 },
  );
});

test('the layout of a tree is a function of the calls', () => {
  const { memory, tree } = newTree();
  tree.ensureRange(at(TRACKED), 2 ** 16, 1);
  // The root, then from order 0 the tables down to leaf 0, its two neighbours; then order 1.
  expect(tree.pages().map((address) => address / PAGE_SIZE)).toEqual(
    Array.from({ length: 1 + 4 + 2 + 4 + 1 }, (_, i) => 16 + i),
  );
  expect(tree.root).toBe(page(16));
  expect(memory.readU64Number(at(tree.root + 2 * 8))).toBe(17 * PAGE_SIZE);
  expect(memory.readU64Number(at(tree.root + 1 * 8))).toBe(23 * PAGE_SIZE);
});

test('without an allocator marks need a path that was ensured, and an aligned folio', () => {
  const { memory, tree } = newTree();
  tree.ensure(at(TRACKED), 0);
  const attached = RadixTree.attach(memory, tree.root);
  tree.seal();
  for (const sealed of [tree, attached]) {
    expect(thrown(() => sealed.set(at(TRACKED), 1))).toMatchObject({
      code: 'KHO_ENOENT',
      details: { address: TRACKED },
    });
    expect(thrown(() => sealed.setRun(at(TRACKED), 1, 3)).code).toBe('KHO_ENOENT');
    expect(thrown(() => sealed.ensure(at(TRACKED), 5)).code).toBe('KHO_EPERM');
    expect(thrown(() => sealed.clear(at(TRACKED), 0)).code).toBe('KHO_ENOENT');
    expect(thrown(() => sealed.set(at(TRACKED + 8), 0)).code).toBe('KHO_EINVAL');
    expect(thrown(() => sealed.set(at(TRACKED + PAGE_SIZE), 1)).code).toBe('KHO_EINVAL');
  }
  attached.set(at(TRACKED), 0);
  expect(tree.test(at(TRACKED), 0)).toBe(true);
  expect(attached.pages()).toEqual([]);
  expect(tree.pages()).toHaveLength(6);
});

test.each([0, 9, 26, 27, 37, 38, 45, 51, 52])(
  'what is no folio of order %i is refused where the leaves around it are known, too',
  (order) => {
    const { memory, tree } = newTree();
    const size = PAGE_SIZE * 2 ** order;
    const bytes = () => tree.pages().map((address) => memory.read(address, PAGE_SIZE));
    for (const number of new Set([0, 2 ** (52 - order) - 1])) {
      const address = (number * size) as PhysicalAddress;
      tree.set(address, order);
      const before = bytes();
      const wrong = [-size, -1, address + 0.5, address + 1, address + size / 2, 2 ** 64, 2 ** 64 + size, Number.NaN];
      for (const other of wrong.filter((value) => value !== address) as PhysicalAddress[]) {
        expect(thrown(() => tree.set(other, order))).toMatchObject({ code: 'KHO_EINVAL' });
        expect(thrown(() => tree.clear(other, order))).toMatchObject({ code: 'KHO_EINVAL' });
      }
      expect(thrown(() => tree.set(address, order))).toMatchObject({ code: 'KHO_EEXIST', details: { address } });
      expect(bytes()).toEqual(before);
    }
  },
);

test('with an allocator a mark makes its path, and a look or a clear makes none', () => {
  const { memory, tree } = newTree();
  let next = 1000;
  const attached = RadixTree.attach(memory, tree.root, () => page(next++));
  expect(attached.test(at(TRACKED), 3)).toBe(false);
  expect(attached.firstOfRun(at(TRACKED), 3, 10 ** 6)).toBeUndefined();
  expect(thrown(() => attached.clear(at(TRACKED), 3)).code).toBe('KHO_ENOENT');
  expect(attached.pages()).toEqual([]);
  attached.set(at(TRACKED), 3);
  expect(attached.pages()).toEqual([1000, 1001, 1002, 1003, 1004].map(page));
  expect(tree.test(at(TRACKED), 3)).toBe(true);
  tree.set(at(TRACKED + 2 ** 30), 3); // order 3 of one leaf is 1 GiB
  expect(tree.pages()).toHaveLength(2); // the root, and the other leaf: the tables are there
  expect([...radixFolios(memory, tree.root)]).toEqual([
    { address: TRACKED, order: 3 },
    { address: TRACKED + 2 ** 30, order: 3 },
  ]);
});

test('when pages run out in the middle of a path nothing is linked or marked, and what was taken comes back', () => {
  const memory = SharedPhysicalMemory.create([{ base: at(0), size: MIB, nid: 0, backed: true }]);
  const marks = [
    (tree: RadixTree) => tree.ensure(at(0), 0),
    (tree: RadixTree) => tree.set(at(0), 0),
    (tree: RadixTree) => tree.setRun(at(0), 0, 200),
  ];
  for (const mark of marks) {
    for (let room = 1; room < 6; room++) {
      let left = room;
      let next = 0;
      const tree = RadixTree.create(memory, () => {
        if (left-- <= 0) throw new KhoError('KHO_ENOMEM', 'no more pages');
        return page(next++);
      });
      expect(thrown(() => mark(tree)).code).toBe('KHO_ENOMEM');
      expect(walkRadixTree(memory, tree.root, () => expect.unreachable())).toEqual([tree.root]);
      expect(memory.read(tree.root, PAGE_SIZE)).toEqual(new Uint8Array(PAGE_SIZE));
      expect(tree.pages()).toEqual([tree.root]);
      const spares = tree.takeSpares();
      expect(spares).toEqual(Array.from({ length: room - 1 }, (_, index) => page(1 + index)));
      expect(tree.takeSpares()).toEqual([]);
      left = 5;
      mark(tree);
      if (!tree.test(at(0), 0)) tree.set(at(0), 0);
      expect(tree.pages()).toHaveLength(6);
      expect([...radixFolios(memory, tree.root)][0]).toEqual({ address: 0, order: 0 });
    }
  }
});

test('a run over two leaves is not marked at all if there is room for one of them', () => {
  const memory = SharedPhysicalMemory.create([{ base: at(0), size: 2 ** 28, nid: 0, backed: true }]);
  let left = 6;
  let next = 0;
  const tree = RadixTree.create(memory, () => {
    if (left-- <= 0) throw new KhoError('KHO_ENOMEM', 'no more pages');
    return page(next++);
  });
  expect(thrown(() => tree.setRun(page(LEAF_BITS - 5), 0, 10)).code).toBe('KHO_ENOMEM');
  expect([...radixFolios(memory, tree.root)]).toEqual([]);
  left = 1;
  tree.setRun(page(LEAF_BITS - 5), 0, 10);
  expect([...radixFolios(memory, tree.root)]).toHaveLength(10);
});

test('runs agree with a set of folios: all of a run or nothing', () => {
  const run = fc
    .tuple(fc.constantFrom(0, 1, 9, 38, 48, 52), fc.nat(90), fc.integer({ min: 1, max: 80 }))
    .map(([order, first, count]) => {
      const limit = 2 ** (52 - order); // of the highest orders there are few
      const number = Math.min(LEAF_BITS - 40 + first, limit - 1);
      return { order, number, count: Math.min(count, limit - number) };
    });
  const step = fc.tuple(fc.constantFrom('set' as const, 'clear' as const, 'find' as const), run);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { tree } = newTree();
      const model = new Set<string>();
      for (const [op, { order, number, count }] of steps) {
        const address = (number * PAGE_SIZE * 2 ** order) as PhysicalAddress;
        const keys = Array.from({ length: count }, (_, index) => `${number + index}/${order}`);
        const marked = keys.findIndex((key) => model.has(key));
        const missing = keys.findIndex((key) => !model.has(key));
        const folioAt = (index: number) => (number + index) * PAGE_SIZE * 2 ** order;
        if (op === 'find') {
          expect(tree.firstOfRun(address, order, count)).toBe(marked < 0 ? undefined : folioAt(marked));
        } else if (op === 'set') {
          if (marked < 0) tree.setRun(address, order, count);
          else {
            const details = { address: folioAt(marked) };
            expect(thrown(() => tree.setRun(address, order, count))).toMatchObject({ code: 'KHO_EEXIST', details });
          }
          if (marked < 0) for (const key of keys) model.add(key);
        } else if (missing >= 0) {
          expect(thrown(() => tree.clearRun(address, order, count)).code).toBe('KHO_ENOENT');
        } else {
          tree.clearRun(address, order, count);
          for (const key of keys) model.delete(key);
        }
        for (const [index, key] of keys.entries()) {
          expect(tree.test(folioAt(index) as PhysicalAddress, order)).toBe(model.has(key));
        }
      }
    }),
    { numRuns: 300 },
  );
});

test('what is no run is KHO_EINVAL', () => {
  const { tree } = newTree();
  for (const count of [0, -1, 0.5, Number.NaN, 2 ** 53]) {
    expect(thrown(() => tree.setRun(at(TRACKED), 0, count)).code).toBe('KHO_EINVAL');
    expect(thrown(() => tree.clearRun(at(TRACKED), 0, count)).code).toBe('KHO_EINVAL');
    expect(thrown(() => tree.firstOfRun(at(TRACKED), 0, count)).code).toBe('KHO_EINVAL');
  }
  expect(thrown(() => tree.setRun(at(0), 52, 2)).code).toBe('KHO_EINVAL');
});

test('an address above 16 TiB, where a frame number has more than 32 bits, is an address like others', () => {
  const { memory, tree } = newTree();
  const high = at(2 ** 51 + 2 ** 45 + 5 * PAGE_SIZE);
  tree.set(high, 0);
  expect(tree.test(high, 0)).toBe(true);
  expect(tree.test(at(high - 2 ** 45), 0)).toBe(false);
  expect(thrown(() => tree.set(at(high + 1), 0)).code).toBe('KHO_EINVAL');
  const leaf = tree.pages().at(-1) as PhysicalAddress;
  expect(memory.readU32(leaf)).toBe(1 << 5);
  tree.clear(high, 0);
  expect(memory.readU32(leaf)).toBe(0);
});

test('four threads that mark in the same words lose nothing, and a contended mark has one winner', async () => {
  const { memory, tree } = newTree();
  const workers = 4;
  const stays = 3;
  const [rounds, folios, contended] = [10, 400_000, 50_000];
  tree.ensureRange(at(TRACKED), folios + contended, 0);
  const barrier = new SharedArrayBuffer(4);
  const shared = { handle: memory.handle, root: tree.root, barrier, base: TRACKED };
  const threads = Array.from({ length: workers }, (_, worker) => {
    const workerData = { ...shared, worker, workers, rounds, folios, contended, stays };
    return new Worker(new URL('../fixtures/radix-worker.js', import.meta.url), { workerData });
  });
  // A lost bit shows at once: clearing it is KHO_ENOENT. So does one that came back: setting it is KHO_EEXIST.
  const results = await Promise.all(
    threads.map(
      (thread) =>
        new Promise<number>((resolve, reject) => {
          thread.once('message', resolve).once('error', reject);
        }),
    ),
  ).finally(() => Promise.all(threads.map((thread) => thread.terminate()))); // or the others would spin at the barrier
  expect(results.reduce((sum, won) => sum + won, 0)).toBe(contended);
  const expected: number[] = [];
  for (let index = 0; index < folios + contended; index++) {
    if (index >= folios || index % stays === 0) expected.push(TRACKED + index * PAGE_SIZE);
  }
  const seen: number[] = [];
  walkRadixTree(memory, tree.root, (address) => seen.push(address));
  expect(seen).toEqual(expected);
});
