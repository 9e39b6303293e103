import { beforeEach, describe, expect, it } from 'vitest';
import { KhoError } from '#dist/errors.js';
import {
  PAGE_SIZE,
  type PageFrame,
  PHYS_ADDR_MAX,
  type PhysicalAddress,
  physicalAddress,
} from '#dist/memblock/address.js';
import { Memblock } from '#dist/memblock/memblock.js';
import type { MemblockType } from '#dist/memblock/memblock-type.js';
import { MAX_NUMNODES, MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';

const MIB = 2 ** 20;
const { NOMAP, HOTPLUG, DRIVER_MANAGED, RSRV_KERN, RSRV_HUGETLB } = MemblockFlags;
const at = (value: number): PhysicalAddress => physicalAddress(value);
const places = (type: MemblockType): number[][] => type.regions.map(({ base, size }) => [base, size]);

let memblock: Memblock;
beforeEach(() => {
  memblock = new Memblock();
});

describe('limits', () => {
  beforeEach(() => {
    memblock.add(at(MIB), MIB);
    memblock.add(at(4 * MIB), 4 * MIB);
    memblock.reserve(at(1.5 * MIB), MIB);
    memblock.reserve(at(5 * MIB), 2 * MIB);
  });

  it('a memory limit counts bytes of memory, not addresses, and cuts reservations too', () => {
    memblock.enforceMemoryLimit(2 * MIB);
    expect(places(memblock.memory)).toEqual([
      [MIB, MIB],
      [4 * MIB, MIB],
    ]);
    expect(places(memblock.reserved)).toEqual([[1.5 * MIB, MIB]]);
  });

  it.each([0, 6 * MIB, Number.POSITIVE_INFINITY])(
    'a limit of %s takes nothing but what lies above all memory',
    (limit) => {
      const before = memblock.snapshot();
      memblock.enforceMemoryLimit(limit);
      memblock.memLimitRemoveMap(limit);
      expect(memblock.snapshot()).toEqual(before);
    },
  );

  it('a capped range keeps what the direct map lacks, and leaves its cuts', () => {
    memblock.markNomap(at(6 * MIB), MIB);
    memblock.capMemoryRange(at(1.25 * MIB), 4 * MIB);
    expect(memblock.memory.regions.map(({ base, size, flags }) => [base, size, flags])).toEqual([
      [1.25 * MIB, 0.75 * MIB, 0],
      [4 * MIB, 1.25 * MIB, 0],
      [6 * MIB, MIB, NOMAP],
    ]);
    expect(places(memblock.reserved)).toEqual([
      [1.5 * MIB, MIB],
      [5 * MIB, 0.25 * MIB],
    ]);
    memblock.memLimitRemoveMap(1 * MIB);
    expect(places(memblock.memory)).toEqual([
      [1.25 * MIB, 0.75 * MIB],
      [4 * MIB, 0.25 * MIB],
      [6 * MIB, MIB],
    ]);
  });

  it('a capped range may be empty, or reach beyond the address space', () => {
    const before = memblock.snapshot();
    memblock.capMemoryRange(at(0), 0);
    memblock.capMemoryRange(at(0), Number.POSITIVE_INFINITY);
    expect(memblock.snapshot()).toEqual(before);
    memblock.capMemoryRange(at(2 * MIB), Number.POSITIVE_INFINITY);
    expect(places(memblock.memory)).toEqual([[4 * MIB, 4 * MIB]]);
    expect(places(memblock.reserved)).toEqual([
      [2 * MIB, 0.5 * MIB],
      [5 * MIB, 2 * MIB],
    ]);
  });

  it('an array without room for the cut is KHO_ENOMEM, and the other is cut all the same', () => {
    const small = new Memblock(undefined, { initialRegions: 3 });
    small.addNode(at(0), 64, 0);
    small.addNode(at(64), 64, 1);
    small.reserve(at(0), 128);
    const before = small.snapshot();
    expect(() => small.enforceMemoryLimit(32)).toThrow(/cannot resize memory array/); // a panic: nothing went on
    expect(small.snapshot()).toEqual(before);
    small.allowResize();
    expect(() => small.enforceMemoryLimit(32)).toThrow(/Failed to double memory array from 3 to 6/);
    expect(small.memory.regions).toEqual(before.memory);
    expect(places(small.reserved)).toEqual([[0, 32]]);
  });

  it.each([-1, 0.5, Number.NaN])('%s is no limit, no size and no alignment', (value) => {
    const before = memblock.snapshot();
    const calls = [
      () => memblock.enforceMemoryLimit(value),
      () => memblock.memLimitRemoveMap(value),
      () => memblock.capMemoryRange(at(MIB), value),
      () => memblock.trimMemory(value),
      () => memblock.physAlloc(value, 64),
      () => memblock.physAlloc(64, value),
      () => memblock.markNomap(at(MIB), value),
      () => memblock.setNode(at(MIB), value, memblock.memory, 1),
      () => memblock.overlapsRegion(memblock.memory, at(MIB), value),
      () => memblock.isRegionMemory(at(MIB), value),
    ];
    for (const call of calls) expect(call).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
    expect(memblock.snapshot()).toEqual(before);
  });
});

describe('trimming', () => {
  it('rounds inwards and takes out what is left of no page, but goes on counting what it cut off', () => {
    memblock.add(at(1), 100);
    memblock.add(at(PAGE_SIZE + 8), 3 * PAGE_SIZE);
    memblock.add(at(8 * PAGE_SIZE), PAGE_SIZE);
    memblock.trimMemory(PAGE_SIZE);
    expect(places(memblock.memory)).toEqual([
      [2 * PAGE_SIZE, 2 * PAGE_SIZE],
      [8 * PAGE_SIZE, PAGE_SIZE],
    ]);
    expect(memblock.physMemSize()).toBe(4 * PAGE_SIZE);
    memblock.remove(at(0), PHYS_ADDR_MAX);
    expect(memblock.physMemSize()).toBe(PAGE_SIZE);
    memblock.add(at(0), PAGE_SIZE);
    expect(memblock.physMemSize()).toBe(PAGE_SIZE);
  });

  it.each([0, 3.5])('to multiples of %s is refused', (align) => {
    expect(() => memblock.trimMemory(align)).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
  });
});

describe('looks at memory', () => {
  it('by page: the node, and the pages that its region begins and ends in', () => {
    memblock.addNode(at(PAGE_SIZE - 1), 2 * PAGE_SIZE, 3);
    expect(memblock.searchPfnNid(1 as PageFrame)).toEqual({ nid: 3, start: 0, end: 2 });
    expect(memblock.searchPfnNid(0 as PageFrame)).toBeUndefined(); // memory begins behind the page's first byte
    expect(memblock.searchPfnNid(3 as PageFrame)).toBeUndefined();
    expect([...memblock.memPfnRanges()]).toEqual([{ start: 1, end: 2, nid: 3 }]);
    memblock.addNode(at(4 * PAGE_SIZE), PAGE_SIZE, 1);
    memblock.addNode(at(6 * PAGE_SIZE), PAGE_SIZE - 1, 1);
    expect([...memblock.memPfnRanges(1)]).toEqual([{ start: 4, end: 5, nid: 1 }]);
  });

  it('in the direct map, both ways, and all that is reserved', () => {
    memblock.addNode(at(0), PAGE_SIZE, 0, HOTPLUG);
    memblock.addNode(at(PAGE_SIZE), PAGE_SIZE, 1, NOMAP);
    memblock.addNode(at(2 * PAGE_SIZE), PAGE_SIZE, 2, DRIVER_MANAGED);
    memblock.movableNode = true;
    const nids = [...memblock.memRanges()].map(({ nid }) => nid);
    expect(nids).toEqual([0, 2]);
    expect([...memblock.memRangesReverse()].map(({ nid }) => nid)).toEqual([2, 0]);
    expect([
      memblock.isMapMemory(at(0)),
      memblock.isMapMemory(at(PAGE_SIZE)),
      memblock.isMapMemory(at(PHYS_ADDR_MAX)),
    ]).toEqual([true, false, false]);
    memblock.reserve(at(0), 64, { flags: RSRV_HUGETLB });
    memblock.reserve(at(128), 64);
    expect([...memblock.reservedRanges()]).toEqual([
      { start: 0, end: 64, nid: NUMA_NO_NODE },
      { start: 128, end: 192, nid: NUMA_NO_NODE },
    ]);
    expect(memblock.dump()).toContain('flags: 0x80\n');
  });

  it('that no node covers, up to a threshold', () => {
    const lines: string[] = [];
    memblock.log = (line) => lines.push(line);
    memblock.add(at(0), 3 * MIB + 1);
    memblock.addNode(at(4 * MIB), MIB, 0);
    expect([memblock.validateNumaCoverage(3 * MIB), memblock.validateNumaCoverage(3 * MIB - 1)]).toEqual([true, false]);
    expect(lines.at(-1)).toBe('NUMA: no nodes coverage for 3MB of 4MB RAM');
  });

  it('in scratch; and estimates what is free from what the kernel took', () => {
    memblock.add(at(MIB), MIB);
    memblock.markKhoScratch(at(MIB), PAGE_SIZE);
    expect([MIB, MIB + PAGE_SIZE, 0].map((address) => memblock.isKhoScratchMemory(at(address)))).toEqual([
      true,
      false,
      false,
    ]);
    memblock.reserve(at(MIB), 4 * PAGE_SIZE);
    expect(memblock.estimatedNrFreePages()).toBe(256);
    memblock.reservedMarkKern(at(MIB), PAGE_SIZE + 1);
    expect(memblock.estimatedNrFreePages()).toBe(254);
    memblock.reserveKern(at(64 * MIB), 64 * MIB);
    expect(memblock.estimatedNrFreePages()).toBe(0);
  });
});

describe('what the kernel would warn of', () => {
  it('is told before anything changes, and does not happen if the teller throws', () => {
    const told: string[] = [];
    memblock.addNode(at(MIB), MIB, 1);
    memblock.onWarning = (message) => told.push(message);
    memblock.addNode(at(0), 2 * MIB, 0);
    expect(told).toEqual(['[0x0, 0x200000) (node 0, flags 0x0) overlaps memory at 0x100000 (node 1, flags 0x0)']);
    expect(memblock.memory.regions).toHaveLength(2);

    memblock.onWarning = (message, address, size) => {
      throw new KhoError('KHO_EINVAL', message, { address, size });
    };
    const before = memblock.snapshot();
    expect(() => memblock.addNode(at(0), 4 * MIB, 1, HOTPLUG)).not.toThrow(); // the gap is behind the others: no warning
    memblock.remove(at(2 * MIB), 2 * MIB);
    expect(memblock.snapshot()).toEqual(before);
    memblock.reserve(at(MIB), MIB, { flags: RSRV_KERN });
    const reserved = memblock.snapshot();
    expect(() => memblock.reserve(at(0), 4 * MIB, { flags: RSRV_HUGETLB })).toThrow(
      expect.objectContaining({ code: 'KHO_EINVAL', details: { address: 0, size: 4 * MIB } }),
    );
    expect(memblock.snapshot()).toEqual(reserved);
  });

  it('capping where there is no memory is one, and changes nothing', () => {
    const told: string[] = [];
    memblock.onWarning = (message) => told.push(message);
    memblock.reserve(at(0), MIB);
    memblock.capMemoryRange(at(0), PAGE_SIZE);
    expect(told).toEqual(['memblock_cap_memory_range: No memory registered yet']);
    expect(memblock.reservedSize()).toBe(MIB);
  });

  const lose: Record<string, () => void> = {
    'a removal': () => memblock.remove(at(0), 16 * MIB),
    capping: () => memblock.capMemoryRange(at(8 * MIB), MIB),
    trimming: () => memblock.trimMemory(4 * MIB),
  };
  it.each(Object.keys(lose))(
    '%s that takes the last region, while bytes that were trimmed off are counted, is one',
    (how) => {
      const told: string[] = [];
      memblock.add(at(MIB + 1), MIB - 1);
      memblock.add(at(3 * MIB + 1), MIB - 1);
      memblock.trimMemory(PAGE_SIZE);
      const before = memblock.snapshot();
      memblock.onWarning = () => {
        throw new KhoError('KHO_EINVAL', 'not wanted');
      };
      expect(lose[how]).toThrow('not wanted');
      expect([memblock.snapshot(), memblock.physMemSize()]).toEqual([before, 2 * MIB - 2]);

      memblock.onWarning = (message, address, size) => told.push(`${message}: ${address} ${size}`);
      lose[how]?.();
      expect(memblock.memory.regions).toEqual([]);
      const rest = 2 * (PAGE_SIZE - 1);
      expect(memblock.physMemSize()).toBe(rest);
      const trimmed = `${rest} bytes of regions that were trimmed are still counted`;
      const [start, size] = [MIB + PAGE_SIZE, 3 * MIB - PAGE_SIZE];
      expect(told).toEqual([`memory loses its last region, but ${trimmed}: ${start} ${size}`]);

      memblock.add(at(0), MIB);
      expect(told.slice(1)).toEqual([`memory has no region, but ${trimmed}: 0 ${MIB}`]);
      expect(memblock.physMemSize()).toBe(MIB);
    },
  );
});

it('the log has the lines of memblock=debug', () => {
  const lines: string[] = [];
  memblock.log = (line) => lines.push(line);
  memblock.add(at(MIB), MIB);
  memblock.addNode(at(0), 0, 1, HOTPLUG);
  memblock.reserve(at(PAGE_SIZE), PAGE_SIZE, { nid: 2, flags: RSRV_KERN });
  memblock.free(at(0), Number.POSITIVE_INFINITY);
  memblock.remove(at(MIB), 16);
  memblock.mirroredKernelcore = true;
  memblock.markMirror(at(MIB + 16), 64);
  memblock.physAllocRange(128, 64, at(0), at(4 * MIB));
  memblock.allocExactNidRaw(64, 64, at(MIB), at(4 * MIB), 3);
  memblock.allocLow(PAGE_SIZE, 64);
  expect(lines).toEqual([
    'memblock_add: [0x0000000000100000-0x00000000001fffff]',
    'memblock_add_node: [0x0000000000000000-0xffffffffffffffff] nid=1 flags=1',
    '__memblock_reserve: [0x0000000000001000-0x0000000000001fff] nid=2 flags=20',
    'memblock_phys_free: [0x0000000000000000-0xfffffffffffffffe]',
    'memblock_remove: [0x0000000000100000-0x000000000010000f]',
    'memblock_phys_alloc_range: 128 bytes align=0x40 from=0x0000000000000000 max_addr=0x0000000000400000',
    'Could not allocate 0x0000000000000080 bytes of mirrored memory',
    '__memblock_reserve: [0x00000000001fff80-0x00000000001fffff] nid=-1 flags=20',
    'memblock_alloc_exact_nid_raw: 64 bytes align=0x40 nid=3 from=0x0000000000100000 max_addr=0x0000000000400000',
    'Could not allocate 0x0000000000000040 bytes of mirrored memory',
    'Could not allocate 0x0000000000000040 bytes of mirrored memory',
    'memblock_alloc_try_nid: 4096 bytes align=0x40 nid=-1 from=0x0000000000000000 max_addr=0x00000000ffffffff',
    'Could not allocate 0x0000000000001000 bytes of mirrored memory',
    '__memblock_reserve: [0x00000000001fef80-0x00000000001fff7f] nid=-1 flags=20',
  ]);
});

it('allocOrPanic says what it could not allocate', () => {
  memblock.add(at(MIB), PAGE_SIZE);
  expect(memblock.allocOrPanic(64, 64)).toBe(MIB + PAGE_SIZE - 64);
  expect(() => memblock.allocOrPanic(MIB, 64)).toThrow(
    expect.objectContaining({ code: 'KHO_ENOMEM', details: { size: MIB } }),
  );
  expect(memblock.memory.regions[0].nid).toBe(MAX_NUMNODES);
});
