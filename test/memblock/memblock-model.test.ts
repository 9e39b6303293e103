import fc from 'fast-check';
import { expect, it } from 'vitest';
import { PAGE_SIZE, type PhysicalAddress, physicalAddress } from '#dist/memblock/address.js';
import { MEMBLOCK_ALLOC_ACCESSIBLE, Memblock } from '#dist/memblock/memblock.js';
import { MAX_NUMNODES, MemblockFlags, type MemblockRegion, NUMA_NO_NODE } from '#dist/memblock/region.js';

const PAGES = 48;
const { HOTPLUG, MIRROR, NOMAP, KHO_SCRATCH, RSRV_KERN, RSRV_NOINIT } = MemblockFlags;

interface Page {
  flags: number;
  nid: number;
}
type Pages = (Page | undefined)[];

/** Memory as a plain array of pages: it knows nothing of regions, so what it says of them is a judgement of its own. */
class Oracle {
  memory: Pages = Array(PAGES).fill(undefined);
  reserved: Pages = Array(PAGES).fill(undefined);
  bottomUp = false;
  scratchOnly = false;
  mirror = false;
  movableNode = false;

  add(pages: Pages, from: number, count: number, page: Page): void {
    for (let index = from; index < Math.min(from + count, PAGES); index++) pages[index] ??= { ...page };
  }

  take(pages: Pages, from: number, count: number): void {
    for (let index = from; index < Math.min(from + count, PAGES); index++) pages[index] = undefined;
  }

  change(pages: Pages, from: number, count: number, change: (page: Page) => void): void {
    for (const page of pages.slice(from, from + count)) if (page !== undefined) change(page);
  }

  runs(pages: Pages): MemblockRegion[] {
    const runs: MemblockRegion[] = [];
    for (const [index, page] of pages.entries()) {
      if (page === undefined) continue;
      const last = runs.at(-1);
      const base = physicalAddress(index * PAGE_SIZE);
      if (last !== undefined && last.base + last.size === base && last.flags === page.flags && last.nid === page.nid) {
        last.size += PAGE_SIZE;
      } else {
        runs.push({ base, size: PAGE_SIZE, ...page });
      }
    }
    return runs;
  }

  usable(index: number, nid: number, flags: number): boolean {
    const page = this.memory[index];
    if (page === undefined || this.reserved[index] !== undefined) return false;
    if (nid >= 0 && nid < MAX_NUMNODES && page.nid !== nid) return false;
    if (flags & MIRROR && !(page.flags & MIRROR)) return false;
    if (flags & KHO_SCRATCH && !(page.flags & KHO_SCRATCH)) return false;
    if (page.flags & HOTPLUG && this.movableNode) return false;
    return !(page.flags & NOMAP);
  }

  find(count: number, align: number, from: number, to: number, nid: number, flags: number): number | undefined {
    const candidates = [...Array(PAGES).keys()].filter((first) => {
      if (first < Math.max(from, 1) || first + count > to || first % align !== 0) return false;
      const run = [...Array(count).keys()].map((offset) => first + offset);
      const page = this.memory[first];
      const together = (index: number): boolean =>
        this.memory[index]?.nid === page?.nid && this.memory[index]?.flags === page?.flags;
      return run.every((index) => this.usable(index, nid, flags) && together(index));
    });
    return this.bottomUp ? candidates.at(0) : candidates.at(-1);
  }

  alloc(count: number, align: number, from: number, to: number, nid: number, exact: boolean): number | undefined {
    const kinds = this.scratchOnly ? [KHO_SCRATCH] : this.mirror ? [MIRROR, 0] : [0];
    for (const flags of kinds) {
      for (const node of exact || nid < 0 || nid >= MAX_NUMNODES ? [nid] : [nid, NUMA_NO_NODE]) {
        const found = this.find(count, align, from, to, node, flags);
        if (found === undefined) continue;
        this.add(this.reserved, found, count, { flags: RSRV_KERN, nid: node });
        return found;
      }
    }
    return undefined;
  }
}

const range = fc
  .record({ from: fc.nat(PAGES - 1), count: fc.nat(PAGES / 2) })
  .map(({ from, count }) => ({ from, count: Math.min(count, PAGES - from) }));
const nid = fc.constantFrom(0, 1, 2, NUMA_NO_NODE);
const operation = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), range, nid: fc.constantFrom(0, 1, MAX_NUMNODES) }),
  fc.record({ kind: fc.constant('reserve' as const), range, nid, flags: fc.constantFrom(0, RSRV_KERN) }),
  fc.record({ kind: fc.constantFrom('remove' as const, 'free' as const, 'noinit' as const), range }),
  fc.record({
    kind: fc.constant('mark' as const),
    range,
    flag: fc.constantFrom(HOTPLUG, MIRROR, NOMAP, KHO_SCRATCH),
    set: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('node' as const), range, nid: fc.constantFrom(0, 1), reserved: fc.boolean() }),
  fc.record({
    kind: fc.constantFrom('scratchOnly' as const, 'bottomUp' as const, 'movableNode' as const),
    on: fc.boolean(),
  }),
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('alloc' as const),
      count: fc.integer({ min: 1, max: 12 }),
      align: fc.constantFrom(0, 1, 2, 4, 8),
      range: fc.record({ from: fc.nat(PAGES / 2), count: fc.integer({ min: 0, max: PAGES }) }),
      limited: fc.boolean(),
      nid,
      exact: fc.boolean(),
    }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const address = (page: number): PhysicalAddress => physicalAddress(page * PAGE_SIZE);

function apply(memblock: Memblock, oracle: Oracle, step: Operation): void {
  const bytes = 'range' in step ? ([address(step.range.from), step.range.count * PAGE_SIZE] as const) : undefined;
  const pages = 'range' in step ? ([step.range.from, step.range.count] as const) : undefined;
  if (bytes === undefined || pages === undefined) {
    if (!('on' in step)) throw new Error('a mode has a state');
    if (step.kind === 'scratchOnly') {
      if (step.on) memblock.setKhoScratchOnly();
      else memblock.clearKhoScratchOnly();
    } else {
      memblock[step.kind] = step.on;
    }
    oracle[step.kind] = step.on;
    return;
  }
  switch (step.kind) {
    case 'add':
      memblock.addNode(...bytes, step.nid);
      oracle.add(oracle.memory, ...pages, { flags: 0, nid: step.nid });
      break;
    case 'reserve':
      memblock.reserve(...bytes, { nid: step.nid, flags: step.flags });
      oracle.add(oracle.reserved, ...pages, { flags: step.flags, nid: step.nid });
      break;
    case 'remove':
      memblock.remove(...bytes);
      oracle.take(oracle.memory, ...pages);
      break;
    case 'free':
      memblock.free(...bytes);
      oracle.take(oracle.reserved, ...pages);
      break;
    case 'noinit':
      memblock.reservedMarkNoinit(...bytes);
      oracle.change(oracle.reserved, ...pages, (page) => {
        page.flags |= RSRV_NOINIT;
      });
      break;
    case 'mark': {
      memblock.mirroredKernelcore = true;
      if (step.flag === MIRROR && step.set) {
        memblock.markMirror(...bytes);
        oracle.mirror = true;
      } else {
        memblock.memory.changeFlags(...bytes, step.flag, step.set);
      }
      oracle.change(oracle.memory, ...pages, (page) => {
        page.flags = step.set ? page.flags | step.flag : page.flags & ~step.flag;
      });
      break;
    }
    case 'node': {
      memblock.setNode(...bytes, step.reserved ? memblock.reserved : memblock.memory, step.nid);
      oracle.change(step.reserved ? oracle.reserved : oracle.memory, ...pages, (page) => {
        page.nid = step.nid;
      });
      break;
    }
    case 'alloc': {
      const { from, count } = step.range;
      const end = step.limited ? address(Math.max(from + count, 1)) : MEMBLOCK_ALLOC_ACCESSIBLE;
      const to = step.limited ? Math.max(from + count, 1) : PAGES;
      const [size, align] = [step.count * PAGE_SIZE, step.align * PAGE_SIZE];
      const found = memblock.allocRangeNid(size, align, address(from), end, step.nid, step.exact);
      const expected = oracle.alloc(step.count, Math.max(step.align, 1), from, to, step.nid, step.exact);
      expect(found).toBe(expected === undefined ? undefined : expected * PAGE_SIZE);
    }
  }
}

it('memblock agrees with a plain array of pages after any sequence of operations', () => {
  let allocated = 0;
  fc.assert(
    fc.property(fc.array(operation, { minLength: 1, maxLength: 40, size: 'max' }), (steps) => {
      const memblock = new Memblock();
      const oracle = new Oracle();
      for (const step of [{ kind: 'add', range: { from: 0, count: 32 }, nid: 0 } as const, ...steps]) {
        const before = memblock.reservedSize();
        apply(memblock, oracle, step);
        if (step.kind === 'alloc' && memblock.reservedSize() > before) allocated++;
        expect(memblock.memory.regions).toEqual(oracle.runs(oracle.memory));
        expect(memblock.reserved.regions).toEqual(oracle.runs(oracle.reserved));
      }
      const kern = oracle.reserved.filter((page) => page !== undefined && page.flags & RSRV_KERN);
      expect(memblock.reservedKernSize()).toBe(kern.length * PAGE_SIZE);
      expect(memblock.reservedKernSize(undefined, 1)).toBe(kern.filter((page) => page?.nid === 1).length * PAGE_SIZE);
      expect(memblock.physMemSize()).toBe(oracle.memory.filter((page) => page !== undefined).length * PAGE_SIZE);
      for (let page = 0; page < PAGES; page++) {
        expect(memblock.isReserved(address(page))).toBe(oracle.reserved[page] !== undefined);
        expect(memblock.isMemory(physicalAddress(page * PAGE_SIZE + 1))).toBe(oracle.memory[page] !== undefined);
      }
      const forward = [...memblock.freeRanges(0)];
      expect([...memblock.freeRangesReverse(0)]).toEqual([...forward].reverse());
      const free = new Set(forward.flatMap(({ start, end }) => pagesOf(start, end)));
      expect([...free]).toEqual([...Array(PAGES).keys()].filter((page) => oracle.usable(page, 0, 0)));
    }),
    { numRuns: 1500 },
  );
  // A generator that hardly ever allocates would prove nothing.
  expect(allocated).toBeGreaterThan(1000);
});

function pagesOf(start: number, end: number): number[] {
  const pages: number[] = [];
  for (let at = start; at < end; at += PAGE_SIZE) pages.push(at / PAGE_SIZE);
  return pages;
}

it('cutting a range out and putting it back leaves the regions as they were', () => {
  fc.assert(
    fc.property(fc.array(range, { minLength: 1, maxLength: 10 }), range, (added, cut) => {
      const memblock = new Memblock();
      for (const { from, count } of added) memblock.add(address(from), count * PAGE_SIZE);
      const before = memblock.snapshot();
      memblock.add(address(cut.from), cut.count * PAGE_SIZE);
      const whole = memblock.snapshot();
      memblock.remove(address(cut.from), cut.count * PAGE_SIZE);
      for (const { base, size } of before.memory) memblock.add(base, size);
      memblock.add(address(cut.from), cut.count * PAGE_SIZE);
      expect(memblock.snapshot()).toEqual(whole);
    }),
  );
});
