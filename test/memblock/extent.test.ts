import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { ExtentTable } from '#dist/memblock/extent.js';
import { thrown } from './thrown.js';

const page = (number: number) => at(number * PAGE_SIZE);
/** A frame above 2^32, so that the high word matters. */
const FAR = 2 ** 34 + 3;

function table(): ExtentTable {
  return ExtentTable.create([
    { pages: 4, ranges: [{ base: page(100), pages: 4 }] },
    {
      pages: 170,
      ranges: [
        { base: page(FAR), pages: 70 },
        { base: page(13), pages: 61 },
        { base: page(74), pages: 6 }, // touches the one before: allocations still stay inside one extent
        { base: page(200), pages: 33 },
      ],
    },
    { pages: 0, ranges: [] },
  ]);
}

test('allocations, folios and frees agree with a map of pages', () => {
  const ranges = table().extent(1).ranges;
  const step = fc.oneof(
    fc.record({ op: fc.constant('alloc' as const), n: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 40 })) }),
    fc.record({ op: fc.constant('folio' as const), n: fc.nat(5) }),
    fc.record({ op: fc.constant('free' as const), n: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const { handle } = table();
      let extents = ExtentTable.attach(handle).extent(1);
      const held = new Map<number, number>(); // first frame -> pages
      const used = new Set<number>();
      /** Single pages that were freed, to be given out again first, the last one first. */
      let cache: number[] = [];
      /** The oracle: the lowest place, tried one by one. */
      const firstFit = (pages: number, alignment: number): number | undefined => {
        for (const range of ranges) {
          const base = range.base / PAGE_SIZE;
          for (let start = base; start + pages <= base + range.pages; start++) {
            const free = Array.from({ length: pages }, (_, i) => start + i).every(
              (frame) => !used.has(frame) && !cache.includes(frame),
            );
            if (start % alignment === 0 && free) return start;
          }
        }
        return undefined;
      };
      for (const { op, n } of steps) {
        if (op === 'free') {
          const [frame, pages] = [...held][n % Math.max(1, held.size)] ?? [];
          if (frame === undefined || pages === undefined) continue;
          extents.free({ address: page(frame), pages });
          held.delete(frame);
          for (let i = 0; i < pages; i++) used.delete(frame + i);
          if (pages === 1 && cache.length < 16) cache.push(frame);
          expect(thrown(() => extents.free({ address: page(frame), pages })).code).toBe('KHO_EINVAL');
        } else {
          const pages = op === 'folio' ? 2 ** n : n;
          const alignment = op === 'folio' ? pages : 1;
          let expected = pages === 1 ? cache.pop() : undefined;
          expected ??= firstFit(pages, alignment);
          if (expected === undefined) {
            cache = [];
            expected = firstFit(pages, alignment);
          }
          let got: number | undefined;
          try {
            got = (op === 'folio' ? extents.allocFolio(n) : extents.alloc(n)).address / PAGE_SIZE;
          } catch (error) {
            if (!(error instanceof KhoError) || error.code !== 'KHO_ENOMEM') throw error;
          }
          expect(got).toBe(expected);
          if (got === undefined) continue;
          held.set(got, pages);
          for (let i = 0; i < pages; i++) used.add(got + i);
        }
        expect(extents.freePages).toBe(170 - used.size);
        const sorted = [...held].sort(([a], [b]) => a - b).map(([frame, pages]) => ({ address: page(frame), pages }));
        expect([...extents.allocated()]).toEqual(sorted);
        // Nothing may live outside of the shared buffer: go on with a view made from scratch.
        extents = ExtentTable.attach(handle).extent(1);
      }
      for (const [frame, pages] of held) extents.free({ address: page(frame), pages });
      expect([[...extents.allocated()], extents.freePages]).toEqual([[], 170]);
    }),
    { numRuns: 200 },
  );
});

test('an exhausted shard is told what it asked for and what it declared', () => {
  const extents = table().extent(0);
  extents.alloc(3);
  const error = thrown(() => extents.alloc(2));
  expect([error.code, error.details]).toEqual(['KHO_ENOMEM', { shard: 0, size: 2 * PAGE_SIZE }]);
  expect(error.message).toBe(
    'shard 0 asked for 2 contiguous pages, which its extents do not have: 1 of the 4 pages that it declared are free',
  );
  expect(extents.alloc(1).address).toBe(page(103));
  expect(thrown(() => table().extent(2).alloc(1)).message).toContain('0 of the 0 pages');
});

test('only a whole allocation can be freed, once', () => {
  const extents = table().extent(1);
  const first = extents.alloc(4);
  const second = extents.alloc(2);
  const folio = extents.allocFolio(1);
  const before = [...extents.allocated()];
  for (const [address, pages] of [
    [first.address, 3],
    [first.address, 6], // with its neighbour
    [first.address + PAGE_SIZE, 3],
    [first.address + 1, 4],
    [page(70), 1], // free
    [page(500), 1], // nobody's
    [page(100), 4], // another shard's
  ] as const) {
    expect(thrown(() => extents.free({ address: at(address), pages })).code, `${pages} at ${address}`).toBe(
      'KHO_EINVAL',
    );
  }
  expect([...extents.allocated()]).toEqual(before);
  extents.free(second);
  expect(thrown(() => extents.free(second))).toMatchObject({ code: 'KHO_EINVAL', details: { shard: 1 } });
  extents.free(folio);
  extents.free(first);
  expect(extents.freePages).toBe(170);
});

test.each([0, -1, 1.5, Number.NaN])('%s pages, or that order, are KHO_EINVAL', (n) => {
  expect(thrown(() => table().extent(1).alloc(n)).code).toBe('KHO_EINVAL');
  if (n !== 0) expect(thrown(() => table().extent(1).allocFolio(n)).code).toBe('KHO_EINVAL');
});

test.each([
  ['fewer pages than declared', [{ pages: 5, ranges: [{ base: page(1), pages: 4 }] }]],
  ['an unaligned extent', [{ pages: 1, ranges: [{ base: at(5), pages: 1 }] }]],
  ['an empty extent', [{ pages: 0, ranges: [{ base: page(1), pages: 0 }] }]],
  [
    'extents of two shards that overlap',
    [
      { pages: 4, ranges: [{ base: page(1), pages: 4 }] },
      { pages: 1, ranges: [{ base: page(4), pages: 1 }] },
    ],
  ],
])('a grant with %s is KHO_EINVAL', (_, shards) => {
  const error = thrown(() => ExtentTable.create(shards));
  expect(error.code).toBe('KHO_EINVAL');
  expect(error.details.shard).toBe(shards.length - 1);
});

test('a shard without extents in the table is KHO_ENOENT', () => {
  expect(table().shards).toBe(3);
  for (const shard of [-1, 3, 0.5]) expect(thrown(() => table().extent(shard)).code).toBe('KHO_ENOENT');
});

test('records of different shards never share a cache line', () => {
  const tableOfMany = ExtentTable.create(
    Array.from({ length: 9 }, (_, shard) => ({ pages: 1, ranges: [{ base: page(shard * 2), pages: 1 }] })),
  );
  const before = new Uint8Array(tableOfMany.handle).slice();
  const lines = Array.from({ length: 9 }, (_, shard) => {
    tableOfMany.extent(shard).alloc(1);
    const now = new Uint8Array(tableOfMany.handle);
    const changed = new Set<number>();
    before.forEach((byte, index) => {
      if (byte !== now[index]) changed.add(Math.floor(index / 64));
    });
    before.set(now);
    return changed;
  });
  const all = lines.flatMap((changed) => [...changed]);
  expect(new Set(all).size).toBe(all.length);
  expect(lines.every((changed) => changed.size > 0)).toBe(true);
});

test('a shard that moves to another thread goes on where it was', async () => {
  const shared = table();
  const mine = shared.extent(1).alloc(3);
  const worker = new Worker(new URL('../fixtures/extent-worker.js', import.meta.url), { workerData: shared.handle });
  const theirs = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  expect(theirs).toEqual([mine, { address: mine.address + 3 * PAGE_SIZE, pages: 2 }]);
  expect([...shared.extent(1).allocated()]).toEqual(theirs);
});

test('extents count in folios where a shard was granted those, up to the end of 64 TiB', () => {
  const GIB_PAGES = 2 ** 18;
  const end = 2 ** 46 / PAGE_SIZE;
  const grants = [
    { pages: 512 * 1024, order: 9, ranges: [{ base: page(end - 512 * 1024), pages: 512 * 1024 }] },
    { pages: 3 * GIB_PAGES, order: 18, ranges: [{ base: page(end - 8 * GIB_PAGES), pages: 3 * GIB_PAGES }] },
  ];
  const shared = ExtentTable.create(grants);
  expect(shared.handle.byteLength).toBeLessThan(1024);
  const [small, large] = [shared.extent(0), ExtentTable.attach(shared.handle).extent(1)];
  expect([small.order, small.declaredPages, small.freePages]).toEqual([9, 512 * 1024, 512 * 1024]);
  const folios = Array.from({ length: 1024 }, () => small.allocFolio(9));
  expect(folios.map(({ address }) => address)).toEqual(
    Array.from({ length: 1024 }, (_, index) => page(end - 512 * 1024 + 512 * index)),
  );
  expect(thrown(() => small.allocFolio(9)).code).toBe('KHO_ENOMEM');
  small.free(folios[1023]);
  expect(small.freePages).toBe(512);
  expect(small.alloc(512)).toEqual({ address: page(end - 512), pages: 512 });
  const gigabyte = large.allocFolio(18);
  expect(gigabyte.address).toBe(page(end - 8 * GIB_PAGES));
  expect([...large.allocated()]).toEqual([{ address: gigabyte.address, pages: GIB_PAGES }]);
  for (const call of [
    () => large.allocFolio(9),
    () => large.alloc(512),
    () => large.free({ address: gigabyte.address, order: 9 }),
    () => large.free({ address: page(end - 8 * GIB_PAGES + 512), order: 18 }),
    () => large.free({ address: page(end - 7 * GIB_PAGES), order: 18 }),
    () => large.free({ address: page(end - 9 * GIB_PAGES), order: 18 }),
    () => large.free({ address: page(end - GIB_PAGES), order: 18 }),
    () => ExtentTable.create([{ pages: 512, order: 9, ranges: [{ base: page(1), pages: 512 }] }]),
    () => ExtentTable.create([{ pages: 700, order: 9, ranges: [{ base: page(512), pages: 700 }] }]),
    () => ExtentTable.create([{ pages: 0, order: -1, ranges: [] }]),
  ]) {
    expect(thrown(call).code).toBe('KHO_EINVAL');
  }
  expect(large.freePages).toBe(2 * GIB_PAGES);
});
