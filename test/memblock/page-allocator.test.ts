import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { physicalAddress as at, MAX_ORDER_NR_PAGES, PAGE_SIZE } from '#dist/memblock/address.js';
import { PageAllocator } from '#dist/memblock/page-allocator.js';
import { thrown } from './thrown.js';

const MIB = 2 ** 20;
const page = (number: number) => at(number * PAGE_SIZE);

/** Two nodes of 32 and 16 MiB, the first with a reserved page inside and an odd end. */
function twoNodes(): PageAllocator {
  const allocator = new PageAllocator([
    { base: at(MIB), size: 31 * MIB, nid: 0, backed: true },
    { base: at(32 * MIB), size: 16 * MIB, nid: 1, backed: false },
  ]);
  allocator.addFreeRange(at(MIB), 2 * MIB, 0);
  allocator.addFreeRange(at(3 * MIB + PAGE_SIZE), 27 * MIB, 0);
  allocator.addFreeRange(at(32 * MIB), 16 * MIB, 1);
  return allocator;
}

/** Whether twoNodes() has `size` free pages in a row at a multiple of `size`, or of 4 MiB for larger ones. */
function hasRoom(taken: Set<number>, size: number, nid?: number): boolean {
  const spans = [
    [MIB, 3 * MIB, 0],
    [3 * MIB + PAGE_SIZE, 30 * MIB + PAGE_SIZE, 0],
    [32 * MIB, 48 * MIB, 1],
  ].filter(([, , node]) => nid === undefined || node === nid);
  const step = Math.min(size, MAX_ORDER_NR_PAGES);
  const whole = Math.ceil(size / step) * step;
  return spans.some(([base, end]) => {
    for (let start = Math.ceil(base / PAGE_SIZE / step) * step; start + whole <= end / PAGE_SIZE; start += step) {
      let free = 0;
      while (free < whole && !taken.has(start + free)) free++;
      if (free === whole) return true;
    }
    return false;
  });
}

test('allocations take the lowest address of the smallest order that is free', () => {
  const allocator = new PageAllocator([{ base: at(0), size: 8 * MIB, nid: 0, backed: true }]);
  allocator.addFreeRange(at(0), 8 * MIB, 0);
  expect(allocator.allocPages(0, 0)).toBe(0);
  expect(allocator.allocPages(0, 0)).toBe(PAGE_SIZE);
  expect(allocator.allocPages(1, 0)).toBe(2 * PAGE_SIZE);
  expect(allocator.allocPages(10, 0)).toBe(4 * MIB);
  allocator.free(page(1), 1);
  expect(allocator.allocPages(0, 0)).toBe(PAGE_SIZE);
  expect(allocator.statistics()).toEqual([{ nid: 0, freePages: 1020, freeBlocks: [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0] }]);
});

test('no page is given out twice, none is lost, and everything merges back', () => {
  const step = fc.oneof(
    fc.record({ op: fc.constant('pages' as const), n: fc.nat(10), nid: fc.nat(1), exact: fc.boolean() }),
    fc.record({
      op: fc.constant('exact' as const),
      n: fc.integer({ min: 1, max: 1024 }),
      nid: fc.nat(1),
      exact: fc.boolean(),
    }),
    fc.record({
      op: fc.constant('contiguous' as const),
      n: fc.integer({ min: 1, max: 4000 }),
      nid: fc.nat(1),
      exact: fc.boolean(),
    }),
    fc.record({ op: fc.constant('free' as const), n: fc.nat(), nid: fc.nat(1), exact: fc.boolean() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const allocator = twoNodes();
      const start = allocator.statistics();
      const total = allocator.freePages();
      const taken = new Set<number>();
      const allocations: [base: number, pages: number][] = [];
      for (const { op, n, nid, exact } of steps) {
        if (op === 'free') {
          const [allocation] = allocations.splice(n % Math.max(1, allocations.length), 1);
          if (allocation === undefined) continue;
          allocator.free(page(allocation[0]), allocation[1]);
          for (let i = 0; i < allocation[1]; i++) taken.delete(allocation[0] + i);
        } else {
          const pages = op === 'pages' ? 2 ** n : n;
          try {
            const address =
              op === 'pages'
                ? allocator.allocPages(n, nid, { exact })
                : op === 'exact'
                  ? allocator.allocExact(n, nid, { exact })
                  : allocator.allocContiguous(n, nid, { exact });
            const first = address / PAGE_SIZE;
            if (op === 'pages') expect(first % pages).toBe(0);
            if (exact) expect(address >= 32 * MIB).toBe(nid === 1);
            for (let i = 0; i < pages; i++) {
              if (taken.has(first + i)) throw new Error(`page ${first + i} was given out twice`);
              taken.add(first + i);
            }
            expect(taken.has((3 * MIB) / PAGE_SIZE)).toBe(false);
            allocations.push([first, pages]);
          } catch (error) {
            if (!(error instanceof KhoError) || error.code !== 'KHO_ENOMEM') throw error;
            // It must be true: no node that was asked has room, by our own account of the pages.
            const size = pages <= MAX_ORDER_NR_PAGES ? 2 ** Math.ceil(Math.log2(pages)) : pages;
            expect(hasRoom(taken, size, exact ? nid : undefined), `${op} of ${pages} pages`).toBe(false);
          }
        }
        expect(allocator.freePages()).toBe(total - taken.size);
      }
      for (const [base, pages] of allocations) allocator.free(page(base), pages);
      expect(allocator.statistics()).toEqual(start);
    }),
    { numRuns: 150 },
  );
});

test('the same calls give the same addresses, and freed pages come back in any order of freeing', () => {
  const run = (order: (list: number[]) => number[]) => {
    const allocator = twoNodes();
    const first = Array.from({ length: 500 }, (_, i) => allocator.allocPages(i % 4, i % 2));
    for (const i of order(first.map((_, i) => i))) allocator.free(first[i], 2 ** (i % 4));
    return [first, Array.from({ length: 500 }, (_, i) => allocator.allocPages(i % 5, i % 2))];
  };
  expect(run((list) => list)).toEqual(run((list) => list.reverse()));
});

test('other nodes follow in the order of their distance, unless the node is exact', () => {
  const ranges = [0, 1, 2, 3].map((nid) => ({ base: at(nid * 4 * MIB), size: 4 * MIB, nid, backed: true }));
  const allocator = new PageAllocator(ranges);
  for (const { base, size, nid } of ranges) allocator.addFreeRange(base, size, nid);
  const nodes = Array.from({ length: 4 }, () => allocator.allocPages(10, 1) / (4 * MIB));
  expect(nodes).toEqual([1, 0, 2, 3]);
  allocator.free(at(0), MAX_ORDER_NR_PAGES);
  const error = thrown(() => allocator.allocPages(3, 1, { exact: true }));
  expect(error.code).toBe('KHO_ENOMEM');
  expect(error.message).toBe('a block of order 3 (8 pages) cannot be had on node 1: nothing is free');
  allocator.allocPages(9, 0);
  const fragmented = thrown(() => allocator.allocContiguous(600, 3));
  expect(fragmented.message).toContain('the largest free block has order 9');
  expect(thrown(() => allocator.allocPages(0, 9, { exact: true })).code).toBe('KHO_ENOMEM');
});

test('allocExact and allocContiguous keep only what was asked for', () => {
  const allocator = twoNodes();
  const before = allocator.freePages();
  const small = allocator.allocExact(5, 1);
  expect(before - allocator.freePages()).toBe(5);
  const large = allocator.allocContiguous(1025, 1, { exact: true });
  expect(large % (4 * MIB)).toBe(0);
  expect(before - allocator.freePages()).toBe(1030);
  allocator.free(small, 5);
  allocator.free(large, 1025);
  expect(allocator.freePages()).toBe(before);
  expect(thrown(() => allocator.allocExact(1025, 0)).code).toBe('KHO_EINVAL');
  expect(thrown(() => allocator.allocContiguous(0, 0)).code).toBe('KHO_EINVAL');
  expect(thrown(() => allocator.allocPages(11, 0)).code).toBe('KHO_EINVAL');
});

test('freeing what is not allocated is KHO_EINVAL and changes nothing', () => {
  const allocator = twoNodes();
  const base = allocator.allocExact(8, 0);
  const next = allocator.allocExact(8, 0);
  expect(next).toBe(base + 8 * PAGE_SIZE);
  allocator.free(at(base + 4 * PAGE_SIZE), 2);
  const before = allocator.statistics();
  const error = thrown(() => allocator.free(base, 8));
  expect([error.code, error.details.address]).toEqual(['KHO_EINVAL', base + 4 * PAGE_SIZE]);
  for (const [address, pages] of [
    [base + 4 * PAGE_SIZE, 1], // freed already
    [3 * MIB, 1], // never handed over
    [base + 1, 1],
    [0, 1], // not memory
    [31 * MIB, 1024], // over the end of a range
    [base, 0],
  ] as const) {
    expect(thrown(() => allocator.free(at(address), pages)).code, `${pages} at ${address}`).toBe('KHO_EINVAL');
  }
  expect(allocator.statistics()).toEqual(before);
});

test('a free range must be memory of its node, and new', () => {
  const allocator = twoNodes();
  const before = allocator.statistics();
  for (const [base, size, nid] of [
    [32 * MIB, PAGE_SIZE, 0], // the other node's
    [2 * MIB, PAGE_SIZE, 0], // twice
    [3 * MIB, 2 * PAGE_SIZE, 0], // overlaps
    [31 * MIB, 2 * MIB, 0], // over the end
    [3 * MIB, 100, 0],
  ] as const) {
    expect(thrown(() => allocator.addFreeRange(at(base), size, nid)).code, `${base}`).toBe('KHO_EINVAL');
  }
  expect(allocator.statistics()).toEqual(before);
  allocator.addFreeRange(at(3 * MIB), PAGE_SIZE, 0); // fills the gap, and merges with both sides
  expect(allocator.statistics()[0].freePages).toBe(before[0].freePages + 1);
  expect(allocator.statistics()[0].freeBlocks[10]).toBe(before[0].freeBlocks[10]);
  expect(allocator.statistics()[0].freeBlocks[0]).toBe(before[0].freeBlocks[0] - 1);
});

test('an allocator for terabytes works at once', () => {
  const allocator = new PageAllocator([{ base: at(2 ** 40), size: 2 ** 42, nid: 0, backed: false }]);
  allocator.addFreeRange(at(2 ** 40), 2 ** 36, 0);
  expect(allocator.allocContiguous(2 ** 20, 0)).toBe(2 ** 40);
  expect(allocator.freePages(0)).toBe(2 ** 24 - 2 ** 20);
});
