import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress } from '#dist/memblock/address.js';
import { type Folio, naturalOrders } from '#dist/memblock/page-range.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { PreservedPages } from '#dist/memblock/preserved-pages.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { radixFolios } from '#dist/memblock/radix-walk.js';
import type { ScratchArea } from '#dist/memblock/scratch.js';
import { thrown } from './thrown.js';

const MIB = 2 ** 20;
const page = (number: number): PhysicalAddress => at(number * PAGE_SIZE);

/** Frames of a host with two nodes that take turns, and a hole; tables lie below. In pages. */
const TABLES = 2048;
const [FIRST, SECOND, AGAIN, HOLE, LAST, END] = [2048, 2048 + 1000, 2048 + 1003, 5000, 6000, 10_000];
const SCRATCH: ScratchArea[] = [
  { kind: 'lowmem', address: page(9000), size: 4 * PAGE_SIZE },
  { kind: 'global', address: page(9004), size: 0 },
  { kind: 'node', nid: 1, address: page(9500), size: 100 * PAGE_SIZE },
];

function newHost(room = TABLES) {
  const range = (first: number, end: number, nid: number, backed = false) => ({
    base: page(first),
    size: (end - first) * PAGE_SIZE,
    nid,
    backed,
  });
  const memory = SharedPhysicalMemory.create([
    range(0, TABLES, 0, true),
    range(FIRST, SECOND, 0),
    range(SECOND, AGAIN, 1),
    range(AGAIN, HOLE, 0),
    range(LAST, END, 1),
  ]);
  let next = 0;
  let left = room;
  const tree = RadixTree.create(memory, () => {
    if (left-- <= 0) throw new KhoError('KHO_ENOMEM', 'no more pages');
    return page(next++);
  });
  const preserved = new PreservedPages(tree, memory, SCRATCH);
  const folios = () => [...radixFolios(memory, tree.root)];
  const setRoom = (pages: number) => {
    left = pages;
  };
  return { memory, tree, preserved, folios, setRoom };
}

const nodeOf = (frame: number) =>
  frame < SECOND ? 0 : frame < AGAIN ? 1 : frame < HOLE ? 0 : frame < LAST ? undefined : 1;
const inWalkOrder = (folios: Iterable<Folio>) => [...folios].sort((a, b) => b.order - a.order || a.address - b.address);

test('a range is split to natural orders, and at the borders of nodes', () => {
  const { preserved, folios } = newHost();
  preserved.preservePages(page(SECOND - 2), 8);
  const objects: [frame: number, order: number][] = [
    [SECOND - 2, 1],
    [SECOND, 1],
    [SECOND + 2, 0],
    [AGAIN, 0],
    [AGAIN + 1, 1],
  ];
  expect(folios()).toEqual(inWalkOrder(objects.map(([frame, order]) => ({ address: page(frame), order }))));
  preserved.unpreservePages(page(SECOND - 2), 8);
  expect(folios()).toEqual([]);
});

test('of an object only the first and the last page are asked for their node, as in the kernel', () => {
  const { preserved, folios } = newHost();
  // 16 pages: 0 0 … 1 1 1 … 0 0. The three pages of node 1 lie inside.
  const start = SECOND - (SECOND % 16);
  expect([nodeOf(start), nodeOf(SECOND), nodeOf(start + 15)]).toEqual([0, 1, 0]);
  preserved.preservePages(page(start), 16);
  expect(folios()).toEqual([{ address: page(start), order: 4 }]);
});

test('neighbours are never merged, and a page may be of several objects', () => {
  const { preserved, folios } = newHost();
  for (const frame of [6000, 6001, 6002, 6003]) preserved.preservePages(page(frame), 1);
  preserved.preserveFolio(page(6000), 1);
  expect(folios()).toHaveLength(5);
  preserved.unpreservePages(page(6000), 2); // the object of two pages, not two objects of one
  expect(folios()).toEqual([6000, 6001, 6002, 6003].map((frame) => ({ address: page(frame), order: 0 })));
});

test('what is wrong with a place has a code of its own, and nothing is preserved then', () => {
  const { preserved, folios } = newHost();
  const wrong: [code: string, says: string, call: () => void][] = [
    ['KHO_EINVAL', 'no pages', () => preserved.preservePages(page(6000), 0)],
    ['KHO_EINVAL', 'no pages', () => preserved.preservePages(page(6000), -1)],
    ['KHO_EINVAL', 'no whole number of pages', () => preserved.preservePages(page(6000), 1.5)],
    ['KHO_EINVAL', 'no pages', () => preserved.unpreservePages(page(6000), 0)],
    ['KHO_EINVAL', 'does not begin with a page', () => preserved.preservePages(at(8), 1)],
    ['KHO_EINVAL', 'does not begin with a page', () => preserved.unpreservePages(at(8), 1)],
    ['KHO_EINVAL', 'does not begin with a page', () => preserved.preservePages(-PAGE_SIZE as PhysicalAddress, 1)],
    ['KHO_EINVAL', 'ends beyond 0x10000000000000', () => preserved.preservePages(at(PHYS_ADDR_MAX - PAGE_SIZE), 2)],
    ['KHO_EINVAL', 'ends beyond 0x10000000000000', () => preserved.unpreservePages(at(PHYS_ADDR_MAX - PAGE_SIZE), 2)],
    ['KHO_EINVAL', 'ends beyond 0x10000000000000', () => preserved.preservePages(page(6000), 2 ** 52)],
    ['KHO_EINVAL', '53 is not the order', () => preserved.preserveFolio(page(6000), 53)],
    [
      'KHO_EINVAL',
      '-1 is not the order of a folio (0 to 52), at 0x1770000',
      () => preserved.preserveFolio(page(6000), -1),
    ],
    ['KHO_EINVAL', '-1 is not the order', () => preserved.unpreserveFolio(page(6000), -1)],
    ['KHO_EINVAL', 'a multiple of 0x4000', () => preserved.preserveFolio(page(6001), 2)],
    ['KHO_EINVAL', 'a multiple of 0x4000', () => preserved.unpreserveFolio(page(6001), 2)],
    ['KHO_EINVAL', 'a multiple of 0x4000', () => preserved.preserveFolios(page(6001), 2, 3)],
    ['KHO_EINVAL', 'no pages', () => preserved.preserveFolios(page(6000), 2, 0)],
    ['KHO_EFAULT', `0x${page(HOLE).toString(16)} is outside`, () => preserved.preservePages(page(HOLE - 1), 2)],
    ['KHO_EFAULT', 'is outside of memory', () => preserved.preserveFolio(page(HOLE), 0)],
    ['KHO_EFAULT', 'kho_preserve_pages: 0x', () => preserved.preservePages(page(END - 1), 2)],
    ['KHO_EINVAL', 'the lowmem scratch area', () => preserved.preservePages(page(8990), 11)],
    ['KHO_EINVAL', 'the lowmem scratch area', () => preserved.preserveFolio(page(9003), 0)],
    ['KHO_EINVAL', 'the node 1 scratch area', () => preserved.preservePages(page(9599), 3)],
    ['KHO_EINVAL', 'the node 1 scratch area', () => preserved.preserveFolios(page(9488), 2, 4)],
    ['KHO_ENOENT', 'is not preserved', () => preserved.unpreserveFolio(page(6000), 0)],
    ['KHO_ENOENT', 'is not preserved', () => preserved.unpreservePages(page(HOLE), 3)],
    ['KHO_ENOENT', 'is not preserved', () => preserved.unpreserveFolios(page(6000), 0, 3)],
  ];
  for (const [code, says, call] of wrong) {
    const error = thrown(call);
    expect([error.code, error.message], says).toEqual([code, expect.stringContaining(says)]);
  }
  expect(folios()).toEqual([]);
  // What is just beside scratch is not in it; a scratch area without bytes is nowhere.
  preserved.preservePages(page(8990), 10);
  preserved.preservePages(page(9004), 496);
  preserved.preservePages(page(9600), 400);
});

test('where scratch and memory end is not forgotten, wherever the call before was', () => {
  const { preserved, folios } = newHost();
  const inScratch = (frame: number) =>
    SCRATCH.some(({ address, size }) => page(frame) >= address && page(frame) < address + size);
  const frames = Array.from({ length: 640 }, (_, index) => 8980 + ((index * 77) % 640)); // from one place to another
  frames.push(...Array.from({ length: 20 }, (_, index) => HOLE - 10 + index));
  const kept: number[] = [];
  for (const frame of frames) {
    if (inScratch(frame)) expect(thrown(() => preserved.preservePages(page(frame), 1)).code).toBe('KHO_EINVAL');
    else if (frame >= HOLE && frame < LAST) {
      expect(thrown(() => preserved.preservePages(page(frame), 1)).code).toBe('KHO_EFAULT');
    } else {
      preserved.preservePages(page(frame), 1);
      kept.push(frame);
      // A range from here into what is beyond.
      if (frame < HOLE) expect(thrown(() => preserved.preservePages(page(frame), 20)).code).toBe('KHO_EFAULT');
    }
  }
  expect(kept.length).toBe(640 - 104 + 10);
  expect(folios()).toEqual(inWalkOrder(kept.map((frame) => ({ address: page(frame), order: 0 }))));
});

test('the errno of an error is the kernel’s where its function has one', () => {
  const { preserved } = newHost();
  expect(thrown(() => preserved.preserveFolio(page(9000), 0))).toMatchObject({
    errno: 22,
    details: { call: 'kho_preserve_folio', address: 9000 * PAGE_SIZE, size: PAGE_SIZE },
  });
  expect(thrown(() => preserved.allocPreserve(4 * MIB + 1, { allocate: () => page(0), free: () => {} })).errno).toBe(7);
});

test('calls agree with a model in which an object is preserved or not: all of a call or nothing', () => {
  const frame = fc.oneof(fc.integer({ min: FIRST, max: HOLE - 1 }), fc.integer({ min: SECOND - 20, max: AGAIN + 20 }));
  const step = fc.record({
    call: fc.constantFrom('pages' as const, 'folio' as const, 'folios' as const),
    preserve: fc.boolean(),
    frame,
    pages: fc.integer({ min: 1, max: 40 }),
    order: fc.nat(4),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { preserved, folios } = newHost();
      const model = new Map<string, Folio>();
      for (const { call, preserve, frame: any, pages, order } of steps) {
        const size = 2 ** order;
        const first = call === 'pages' ? any : any - (any % size);
        const address = page(first);
        const count = Math.min(pages, 10);
        const objects =
          call === 'pages'
            ? [...naturalOrders(address, pages, (a, b) => nodeOf(a) === nodeOf(b))]
            : Array.from({ length: call === 'folio' ? 1 : count }, (_, i) => ({
                address: page(first + i * size),
                order,
              }));
        const run = {
          pages: () => (preserve ? preserved.preservePages(address, pages) : preserved.unpreservePages(address, pages)),
          folio: () => (preserve ? preserved.preserveFolio(address, order) : preserved.unpreserveFolio(address, order)),
          folios: () =>
            preserve
              ? preserved.preserveFolios(address, order, count)
              : preserved.unpreserveFolios(address, order, count),
        }[call];
        const outside = objects.some(
          (object) => object.address < page(FIRST) || object.address + PAGE_SIZE * 2 ** object.order > page(HOLE),
        );
        const keys = objects.map((object) => `${object.address}/${object.order}`);
        const bad = keys.find((key) => model.has(key) === preserve);
        if (outside && preserve) {
          if (first >= FIRST) expect(thrown(run).code).toBe('KHO_EFAULT');
        } else if (bad !== undefined) {
          const error = thrown(run);
          expect(error.code).toBe(preserve ? 'KHO_EEXIST' : 'KHO_ENOENT');
          expect(error.details.address).toBe(Number(bad.split('/')[0]));
        } else {
          run();
          for (const [i, key] of keys.entries()) {
            if (preserve) model.set(key, objects[i]);
            else model.delete(key);
          }
        }
      }
      expect(folios()).toEqual(inWalkOrder(model.values()));
    }),
    { numRuns: 100 },
  );
});

test('a range of which a later object is not preserved stays as it was: none of its marks is taken back', () => {
  const { preserved, folios } = newHost();
  preserved.preservePages(page(6001), 15); // objects of 1, 2, 4 and 8 pages
  preserved.unpreserveFolio(page(6008), 3);
  const before = folios();
  expect(before).toHaveLength(3);
  expect(thrown(() => preserved.unpreservePages(page(6001), 15))).toMatchObject({
    code: 'KHO_ENOENT',
    details: { address: page(6008) },
  });
  expect(folios()).toEqual(before);
});

test('whatever page of the tracker is the last one, a range is preserved whole or not at all', () => {
  // Orders 0 to 10: each wants a leaf of its own.
  const [first, pages] = [AGAIN + 1, 1021 + 900];
  const full = newHost();
  full.preserved.preservePages(page(first), pages);
  const needed = full.tree.pages().length;
  const wanted = full.folios();
  expect(needed).toBeGreaterThan(15);
  for (let room = 1; room < needed; room++) {
    const { preserved, folios, setRoom } = newHost(room);
    expect(thrown(() => preserved.preservePages(page(first), pages)).code).toBe('KHO_ENOMEM');
    expect(folios()).toEqual([]);
    setRoom(needed);
    preserved.preservePages(page(first), pages);
    expect(folios()).toEqual(wanted);
  }
});

test('the first object that shares a page with a range is found, whatever its order', () => {
  const object = fc
    .tuple(fc.nat(12), fc.integer({ min: FIRST, max: HOLE - 1 }))
    .map(([order, frame]): Folio => ({ address: page(frame - (frame % 2 ** order)), order }));
  fc.assert(
    fc.property(
      fc.array(object, { maxLength: 4 }),
      fc.integer({ min: FIRST, max: HOLE }),
      fc.integer({ min: 1, max: 90 }),
      (objects, first, pages) => {
        const { preserved, tree } = newHost();
        for (const { address, order } of objects) if (!tree.test(address, order)) tree.set(address, order);
        const sharing = objects
          .filter(
            ({ address, order }) => address < page(first + pages) && address + PAGE_SIZE * 2 ** order > page(first),
          )
          .sort((a, b) => a.order - b.order || a.address - b.address);
        expect(preserved.objectIn(page(first), pages)).toEqual(sharing[0]);
        expect(preserved.objectIn(page(first), pages, 3)).toEqual(sharing.find(({ order }) => order <= 3));
      },
    ),
    { numRuns: 100 },
  );
});

test('an allocation that is preserved is zeroed, of one order, and given back when that fails', () => {
  const { memory, preserved, folios } = newHost();
  const freed: [number, number][] = [];
  let address = page(1024);
  const source = {
    allocate: () => address,
    free: (base: PhysicalAddress, pages: number) => {
      freed.push([base, pages]);
    },
  };
  memory.fill(address, 8 * PAGE_SIZE, 0xff);
  const folio = preserved.allocPreserve(5 * PAGE_SIZE, source);
  expect(folio).toEqual({ address, order: 3 });
  expect(memory.read(address, 8 * PAGE_SIZE)).toEqual(new Uint8Array(8 * PAGE_SIZE));
  expect(folios()).toEqual([folio]);
  expect(thrown(() => preserved.allocPreserve(5 * PAGE_SIZE, source)).code).toBe('KHO_EEXIST');
  expect(freed.splice(0)).toEqual([[address, 8]]);
  expect(folios()).toEqual([folio]);
  expect(thrown(() => preserved.unpreserveFree({ address, order: 2 }, source)).code).toBe('KHO_ENOENT');
  expect(freed).toEqual([]);
  preserved.unpreserveFree(folio, source);
  expect([folios(), freed.splice(0)]).toEqual([[], [[address, 8]]]);
  for (const size of [0, -1, Number.NaN]) {
    expect(thrown(() => preserved.allocPreserve(size, source)).code).toBe('KHO_EINVAL');
  }
  expect(thrown(() => preserved.allocPreserve(4 * MIB + 1, source)).code).toBe('KHO_E2BIG');
  expect(freed).toEqual([]);
  address = page(6000); // unbacked: it cannot be zeroed
  expect(thrown(() => preserved.allocPreserve(1, source)).code).toBe('KHO_EFAULT');
  expect(freed).toEqual([[address, 1]]);
});

test('a blob is one folio of its own order up to 4 MiB, and a range above', () => {
  const { preserved, folios } = newHost();
  preserved.preserveBlob(page(4096), 5 * PAGE_SIZE);
  expect(folios()).toEqual([{ address: page(4096), order: 3 }]);
  preserved.preserveBlob(page(6144), 4 * MIB + 1);
  expect(folios()).toEqual([
    { address: page(6144), order: 10 },
    { address: page(4096), order: 3 },
    { address: page(6144 + 1024), order: 0 },
  ]);
  expect(thrown(() => preserved.preserveBlob(page(6000), 0)).code).toBe('KHO_EINVAL');
});
