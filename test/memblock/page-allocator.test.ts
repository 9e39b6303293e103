import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { physicalAddress as at, MAX_ORDER_NR_PAGES, PAGE_SIZE, type PhysicalAddress } from '#dist/memblock/address.js';
import { PageAllocator } from '#dist/memblock/page-allocator.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { thrown } from './thrown.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const page = (number: number) => at(number * PAGE_SIZE);

/** Two nodes of 32 and 16 MiB, the first with a reserved page inside and an odd end. */
function twoNodes(): PageAllocator {
  const allocator = new PageAllocator([
    { base: at(MIB), size: 31 * MIB, nid: 0, backed: true },
    { base: at(32 * MIB), size: 16 * MIB, nid: 1, backed: true },
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
  expect(allocator.statistics()).toEqual([
    { nid: 0, freePages: 1020, allocatedPages: 1028, freeBlocks: [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0] },
  ]);
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
    [3 * MIB, PAGE_SIZE, 1], // the other node's
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

test('an allocator for 64 TiB works at once, up to its last page and over its cuts', () => {
  const TIB = 2 ** 40;
  const allocator = new PageAllocator([
    { base: at(TIB), size: 3 * TIB, nid: 0, backed: true },
    { base: at(5 * TIB), size: 59 * TIB, nid: 1, backed: true }, // 8 TiB numbers have more than 31 bits
  ]);
  allocator.addFreeRange(at(TIB), 2 ** 36, 0);
  expect(allocator.allocContiguous(2 ** 20, 0)).toBe(TIB);
  expect(allocator.freePages(0)).toBe(2 ** 24 - 2 ** 20);
  allocator.addFreeRange(at(8 * TIB - 8 * MIB), 16 * MIB, 1);
  allocator.addFreeRange(at(64 * TIB - 2 * GIB), 2 * GIB, 1);
  const start = allocator.statistics();
  expect(start[1].freePages).toBe((2 * GIB + 16 * MIB) / PAGE_SIZE);
  const [a, b] = [allocator.allocContiguous(2048, 1), allocator.allocContiguous(2048, 1)];
  expect([a, b]).toEqual([8 * TIB - 8 * MIB, 8 * TIB]); // a run ends at the cut
  allocator.free(a, 4096); // both at once
  expect(allocator.statistics()).toEqual(start);
  const folio = allocator.allocContiguous(2 ** 18, 1, { alignment: GIB, exact: true });
  const last = allocator.allocContiguous(2 ** 18, 1, { alignment: GIB, exact: true });
  expect([folio, last]).toEqual([64 * TIB - 2 * GIB, 64 * TIB - GIB]);
  expect(allocator.allocPages(0, 1, { exact: true })).toBe(8 * TIB - 8 * MIB);
  expect(thrown(() => allocator.free(at(64 * TIB), 1)).code).toBe('KHO_EINVAL');
});

test('a page behind a cut at 4 TiB that is not allocated is named when a range over the cut is freed', () => {
  const CUT = 2 ** 42;
  const allocator = new PageAllocator([{ base: at(CUT - 8 * MIB), size: 16 * MIB, nid: 0, backed: false }]);
  allocator.addFreeRange(at(CUT - 8 * MIB), 16 * MIB, 0);
  const runs = [1, 2].map(() => allocator.allocContiguous(2048, 0, { backed: false }));
  expect(runs).toEqual([CUT - 8 * MIB, CUT]);
  const missing = at(CUT + 5 * PAGE_SIZE);
  allocator.free(missing, 1);
  const before = [allocator.statistics({ backed: false }), allocator.buddyinfo()];
  expect(thrown(() => allocator.free(runs[0], 4096))).toMatchObject({
    code: 'KHO_EINVAL',
    details: { address: missing },
  });
  expect([allocator.statistics({ backed: false }), allocator.buddyinfo()]).toEqual(before);
  allocator.free(runs[0], 2048 + 5); // what is in front of it is allocated, still
});

test('contiguous memory lies at a multiple of its alignment, and of the lowest possible', () => {
  const base = GIB - 6 * MIB;
  const allocator = new PageAllocator([{ base: at(base), size: 3 * GIB, nid: 0, backed: true }]);
  allocator.addFreeRange(at(base), 3 * GIB, 0);
  const start = allocator.buddyinfo();
  expect(allocator.allocContiguous(2 ** 18, 0, { alignment: GIB })).toBe(GIB);
  expect(allocator.allocContiguous(512, 0, { alignment: 2 * MIB })).toBe(base);
  expect(allocator.allocContiguous(3, 0, { alignment: 64 * PAGE_SIZE })).toBe(4 * GIB - 8 * MIB); // the smaller block
  expect(allocator.allocContiguous(1025, 0, { alignment: 16 * MIB })).toBe(2 * GIB);
  expect(allocator.statistics()[0].allocatedPages).toBe(2 ** 18 + 512 + 3 + 1025);
  const none = thrown(() => allocator.allocContiguous(2 ** 18, 0, { alignment: GIB }));
  expect(none.code).toBe('KHO_ENOMEM');
  expect(none.message).toMatch(
    /^262144 contiguous pages at a multiple of 0x40000000 cannot be had for node 0.*are free/,
  );
  for (const alignment of [0, 1, 3 * PAGE_SIZE, 2 ** 43, Number.NaN]) {
    expect(thrown(() => allocator.allocContiguous(1, 0, { alignment })).code, `${alignment}`).toBe('KHO_EINVAL');
  }
  allocator.free(at(GIB), 2 ** 18);
  allocator.free(at(base), 512);
  allocator.free(at(4 * GIB - 8 * MIB), 3);
  allocator.free(at(2 * GIB), 1025);
  expect(allocator.buddyinfo()).toBe(start);
  expect(allocator.peakPages(0)).toBe(2 ** 18 + 512 + 3 + 1025);
});

test('out of memory says that no aligned run is free, or that the host has no unbacked memory', () => {
  const allocator = new PageAllocator([{ base: at(4 * MIB), size: 16 * MIB, nid: 0, backed: true }]);
  allocator.addFreeRange(at(4 * MIB), 16 * MIB, 0);
  const run = { alignment: 16 * MIB };
  expect(thrown(() => allocator.allocContiguous(4096, 0, run)).message).toMatch(
    /at a multiple of 0x1000000 cannot be had .*: 4096 pages are free, but no such run of blocks$/,
  );
  expect(thrown(() => allocator.allocContiguous(512, 0, { backed: false })).message).toBe(
    '512 contiguous pages of unbacked memory cannot be had: the host has none (host.guestMemory)',
  );
});

test('who needs bytes never gets unbacked memory, and guests get nothing else', () => {
  const allocator = new PageAllocator([
    { base: at(0), size: 8 * MIB, nid: 0, backed: true },
    { base: at(8 * MIB), size: 8 * MIB, nid: 0, backed: false },
    { base: at(16 * MIB), size: 8 * MIB, nid: 1, backed: false },
  ]);
  for (const [base, nid] of [
    [0, 0],
    [8, 0],
    [16, 1],
  ] as const)
    allocator.addFreeRange(at(base * MIB), 8 * MIB, nid);
  const blocks = [allocator.allocPages(10, 1), allocator.allocPages(10, 1)]; // node 1 has no backed memory
  expect(blocks).toEqual([0, 4 * MIB]);
  expect(thrown(() => allocator.allocPages(0, 1)).message).toBe(
    'a block of order 0 (1 pages) cannot be had for node 1, nor on any other: nothing is free',
  );
  expect(allocator.allocPages(10, 1, { backed: false })).toBe(16 * MIB);
  expect(thrown(() => allocator.allocContiguous(4096, 0, { backed: false })).message).toContain('of unbacked memory');
  expect(allocator.statistics().map(({ nid, freePages }) => [nid, freePages])).toEqual([[0, 0]]);
  expect(allocator.statistics({ backed: false }).map(({ nid, freePages }) => [nid, freePages])).toEqual([
    [0, 2048],
    [1, 1024],
  ]);
  expect(allocator.freePages()).toBe(0);
  expect(allocator.peakPages(1, { backed: false })).toBe(1024);
  expect(
    allocator
      .buddyinfo()
      .split('\n')
      .map((line) => line.replace(/ +/g, ' ')),
  ).toEqual([
    'Node 0, zone Normal 0 0 0 0 0 0 0 0 0 0 0 ',
    'Node 0, zone Guest 0 0 0 0 0 0 0 0 0 0 2 ',
    'Node 1, zone Guest 0 0 0 0 0 0 0 0 0 0 1 ',
    '',
  ]);
});

test('a memory map that contradicts itself is refused by what builds on it', () => {
  const range = (base: number, size: number, nid = 0) => ({ base: base as PhysicalAddress, size, nid, backed: true });
  for (const [ranges, message] of [
    [[range(0, 8 * MIB), range(4 * MIB, 8 * MIB)], 'overlaps the range before it'],
    [[range(MIB, 0)], 'the memory range at 0x100000 with 0 bytes is malformed'],
    [[range(100, 3 * PAGE_SIZE)], 'the memory range 0x64-0x3064 is not made'],
    [[range(0, PAGE_SIZE + 1)], 'not made of whole pages'],
    [[range(0, -PAGE_SIZE)], 'is malformed'],
    [[range(2 ** 52 - PAGE_SIZE, 2 * PAGE_SIZE)], 'below 2^52'],
    [[range(-PAGE_SIZE, PAGE_SIZE)], ''],
    [[range(0, PAGE_SIZE, -1)], 'no valid NUMA node'],
    [[range(Number.NaN, PAGE_SIZE)], 'is malformed'],
  ] as const) {
    for (const build of [() => new PageAllocator(ranges), () => SharedPhysicalMemory.create(ranges)]) {
      const error = thrown(build);
      expect([error.code, error.message]).toEqual(['KHO_EINVAL', expect.stringContaining(message)]);
    }
  }
});

test.each([Number.NaN, -1, 0.5])('node %s is KHO_EINVAL, and nothing is allocated', (nid) => {
  const pages = new PageAllocator([{ base: at(0), size: 2 ** 22, nid: 0, backed: true }]);
  pages.addFreeRange(at(0), 2 ** 22, 0);
  expect(thrown(() => pages.allocPages(0, nid)).code).toBe('KHO_EINVAL');
  expect(thrown(() => pages.allocContiguous(3, nid)).code).toBe('KHO_EINVAL');
  expect(pages.freePages()).toBe(1024);
});

test('a wrong argument is told with its call, and with the place if there is one', () => {
  const allocator = twoNodes();
  const calls: readonly [message: string, details: object, call: () => unknown][] = [
    ['allocPages: 11 is not an order', { call: 'allocPages' }, () => allocator.allocPages(11, 0)],
    ['allocPages: -1 is no NUMA node', { call: 'allocPages' }, () => allocator.allocPages(0, -1)],
    ['allocExact: 0 is not a number of pages', { call: 'allocExact' }, () => allocator.allocExact(0, 0)],
    ['allocExact: 2000 pages exceed', { call: 'allocExact' }, () => allocator.allocExact(2000, 0)],
    ['allocContiguous: 1.5 is not', { call: 'allocContiguous' }, () => allocator.allocContiguous(1.5, 0)],
    ['free: 0 is not a number', { call: 'free', address: MIB }, () => allocator.free(at(MIB), 0)],
    ['free: 1 pages at -4096 are not', { call: 'free' }, () => allocator.free(-PAGE_SIZE as PhysicalAddress, 1)],
    ['free: 0.5 is', { call: 'free' }, () => allocator.free(0.5 as PhysicalAddress, 1)],
    [
      'addFreeRange: 0x64 is not',
      { address: 100, size: PAGE_SIZE },
      () => allocator.addFreeRange(at(100), PAGE_SIZE, 0),
    ],
  ];
  for (const [message, details, call] of calls) {
    const error = thrown(call);
    expect([error.code, error.message]).toEqual(['KHO_EINVAL', expect.stringContaining(message)]);
    expect(error.details).toMatchObject(details);
  }
});
