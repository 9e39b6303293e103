import { beforeEach, describe, expect, it } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '#dist/memblock/address.js';
import {
  ARCH_LOW_ADDRESS_LIMIT,
  MEMBLOCK_ALLOC_ACCESSIBLE,
  MEMBLOCK_ALLOC_ANYWHERE,
  Memblock,
  SMP_CACHE_BYTES,
} from '#dist/memblock/memblock.js';
import type { MemblockType } from '#dist/memblock/memblock-type.js';
import { MAX_NUMNODES, MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { thrown } from './thrown.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const { RSRV_KERN, HOTPLUG, MIRROR, NOMAP, KHO_SCRATCH, DRIVER_MANAGED, RSRV_NOINIT } = MemblockFlags;

const at = (value: number): PhysicalAddress => physicalAddress(value);
const places = (type: MemblockType): number[][] => type.regions.map(({ base, size }) => [base, size]);

let memblock: Memblock;
beforeEach(() => {
  memblock = new Memblock();
});

describe('a new memblock (memblock_initialization_check)', () => {
  it('has neither memory nor reservations and allocates nothing', () => {
    expect(memblock.snapshot()).toEqual({ memory: [], reserved: [] });
    expect([memblock.startOfDram(), memblock.endOfDram(), memblock.physMemSize()]).toEqual([0, 0, 0]);
    expect(memblock.isMemory(at(0))).toBe(false);
    expect(memblock.physAlloc(64, 64)).toBeUndefined();
    expect([memblock.bottomUp, memblock.khoScratchOnly, memblock.currentLimit]).toEqual([
      false,
      false,
      MEMBLOCK_ALLOC_ANYWHERE,
    ]);
  });
});

// The same cases for memory and reserved, as the kernel's simulator has them (tools/testing/memblock, basic_api).
describe.each([
  { add: 'add', take: 'remove', type: 'memory' },
  { add: 'reserve', take: 'free', type: 'reserved' },
] as const)('memblock_$add and memblock_$take', ({ add, take, type }) => {
  const adding = (base: number, size: number): void => memblock[add](at(base), size);
  const taking = (base: number, size: number): void => memblock[take](at(base), size);
  const regions = (): number[][] => places(memblock[type]);

  it.each([
    ['simple', [[1 * GIB, 4 * MIB]], [[1 * GIB, 4 * MIB]]],
    [
      'disjoint',
      [
        [1 * GIB, 8 * KIB],
        [1 * GIB + 16 * KIB, 8 * KIB],
      ],
      [
        [1 * GIB, 8 * KIB],
        [1 * GIB + 16 * KIB, 8 * KIB],
      ],
    ],
    [
      'overlap_top',
      [
        [1 * GIB, 1 * GIB],
        [512 * MIB, 1 * GIB],
      ],
      [[512 * MIB, 1.5 * GIB]],
    ],
    [
      'overlap_bottom',
      [
        [128 * MIB, 512 * MIB],
        [256 * MIB, 1 * GIB],
      ],
      [[128 * MIB, 1152 * MIB]],
    ],
    [
      'within',
      [
        [8 * MIB, 32 * MIB],
        [16 * MIB, 1 * MIB],
      ],
      [[8 * MIB, 32 * MIB]],
    ],
    [
      'twice',
      [
        [16 * KIB, 2 * MIB],
        [16 * KIB, 2 * MIB],
      ],
      [[16 * KIB, 2 * MIB]],
    ],
    [
      'between',
      [
        [1 * GIB, 8 * KIB],
        [1 * GIB + 16 * KIB, 8 * KIB],
        [1 * GIB + 8 * KIB, 8 * KIB],
      ],
      [[1 * GIB, 24 * KIB]],
    ],
    ['near_max', [[PHYS_ADDR_MAX - MIB, 2 * MIB]], [[PHYS_ADDR_MAX - MIB, MIB]]],
    [
      'empty',
      [
        [4 * KIB, 0],
        [PHYS_ADDR_MAX, 4 * KIB],
      ],
      [],
    ],
  ])('%s: adds', (_name, added, expected) => {
    for (const [base, size] of added) adding(base, size);
    expect(regions()).toEqual(expected);
    expect(memblock[type].totalSize).toBe(expected.reduce((sum, [, size]) => sum + size, 0));
  });

  it('many: keeps hundreds of separate regions, and one range over all of them closes every gap', () => {
    memblock = new Memblock(undefined, { initialRegions: 1024 });
    for (let index = 0; index < 300; index++) adding((2 * index + 1) * PAGE_SIZE, PAGE_SIZE);
    expect(regions()).toHaveLength(300);
    adding(0, 601 * PAGE_SIZE);
    expect(regions()).toEqual([[0, 601 * PAGE_SIZE]]);
  });

  it.each([
    [
      'simple',
      [[2 * GIB, 4 * MIB]],
      [
        [1 * GIB, 4 * MIB],
        [2 * GIB, 4 * MIB],
      ],
      [[1 * GIB, 4 * MIB]],
    ],
    ['absent', [[64 * MIB, 1 * GIB]], [[1.5 * GIB, 4 * MIB]], [[1.5 * GIB, 4 * MIB]]],
    ['overlap_top', [[16 * MIB, 32 * MIB]], [[32 * MIB, 32 * MIB]], [[48 * MIB, 16 * MIB]]],
    ['overlap_bottom', [[1 * MIB, 64 * MIB]], [[0, 2 * MIB]], [[0, 1 * MIB]]],
    [
      'within',
      [[2 * MIB, 1 * MIB]],
      [[1 * MIB, 4 * MIB]],
      [
        [1 * MIB, 1 * MIB],
        [3 * MIB, 2 * MIB],
      ],
    ],
    ['only_region', [[2 * KIB, 4 * KIB]], [[2 * KIB, 4 * KIB]], []],
    [
      'near_max',
      [[PHYS_ADDR_MAX - MIB, 2 * MIB]],
      [[PHYS_ADDR_MAX - 2 * MIB, 2 * MIB]],
      [[PHYS_ADDR_MAX - 2 * MIB, MIB]],
    ],
    [
      'overlap_two',
      [[24 * MIB, 16 * MIB]],
      [
        [16 * MIB, 16 * MIB],
        [36 * MIB, 8 * MIB],
      ],
      [
        [16 * MIB, 8 * MIB],
        [40 * MIB, 4 * MIB],
      ],
    ],
    [
      'to the end',
      [[24 * MIB, Number.POSITIVE_INFINITY]],
      [
        [16 * MIB, 16 * MIB],
        [36 * MIB, 8 * MIB],
      ],
      [[16 * MIB, 8 * MIB]],
    ],
  ])('%s: takes away', (_name, taken, added, expected) => {
    for (const [base, size] of added) adding(base, size);
    for (const [base, size] of taken) taking(base, size);
    expect(regions()).toEqual(expected);
    expect(memblock[type].totalSize).toBe(expected.reduce((sum, [, size]) => sum + size, 0));
  });

  it.each([-1, 0.5, Number.NaN])('refuses %s as a size', (size) => {
    expect(() => adding(PAGE_SIZE, size)).toThrow(KhoError);
    expect(() => taking(PAGE_SIZE, size)).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
  });
});

describe('regions', () => {
  it('merge only where flags and node are the same', () => {
    memblock.addNode(at(0), MIB, 0);
    memblock.addNode(at(MIB), MIB, 1);
    memblock.addNode(at(2 * MIB), MIB, 1, HOTPLUG);
    memblock.addNode(at(3 * MIB), MIB, 1, HOTPLUG);
    expect(memblock.memory.regions).toEqual([
      { base: 0, size: MIB, nid: 0, flags: 0 },
      { base: MIB, size: MIB, nid: 1, flags: 0 },
      { base: 2 * MIB, size: 2 * MIB, nid: 1, flags: HOTPLUG },
    ]);
  });

  it('that exist keep their flags and node when a range is added over them', () => {
    memblock.reserve(at(MIB), MIB, { nid: 1, flags: RSRV_KERN });
    memblock.reserve(at(0), 3 * MIB, { nid: 0 });
    expect(memblock.reserved.regions).toEqual([
      { base: 0, size: MIB, nid: 0, flags: 0 },
      { base: MIB, size: MIB, nid: 1, flags: RSRV_KERN },
      { base: 2 * MIB, size: MIB, nid: 0, flags: 0 },
    ]);
  });

  it('of memory without a node do not merge with those of "no node"', () => {
    memblock.add(at(0), MIB);
    memblock.addNode(at(MIB), MIB, NUMA_NO_NODE);
    expect(memblock.memory.regions.map(({ nid }) => nid)).toEqual([MAX_NUMNODES, NUMA_NO_NODE]);
  });

  it('are split by a flag and one again without it', () => {
    memblock.add(at(0), 4 * MIB);
    memblock.markNomap(at(MIB), MIB);
    memblock.markKhoScratch(at(MIB), 2 * MIB);
    expect(memblock.memory.regions.map(({ size, flags }) => [size, flags])).toEqual([
      [MIB, 0],
      [MIB, NOMAP | KHO_SCRATCH],
      [MIB, KHO_SCRATCH],
      [MIB, 0],
    ]);
    memblock.clearNomap(at(0), 4 * MIB);
    memblock.clearKhoScratch(at(0), Number.POSITIVE_INFINITY);
    expect(places(memblock.memory)).toEqual([[0, 4 * MIB]]);
    memblock.reserve(at(0), 2 * MIB);
    memblock.reservedMarkNoinit(at(MIB), MIB);
    expect(memblock.reserved.regions.map(({ flags }) => flags)).toEqual([0, RSRV_NOINIT]);
  });

  it('get their node later (memblock_set_node_check)', () => {
    memblock.add(at(0), 32 * MIB);
    for (let nid = 0; nid < 8; nid++) memblock.setNode(at(nid * 4 * MIB), 4 * MIB, memblock.memory, nid);
    expect(memblock.memory.regions.map(({ nid, size }) => [nid, size])).toEqual(
      [...Array(8).keys()].map((nid) => [nid, 4 * MIB]),
    );
    memblock.setNode(at(0), Number.POSITIVE_INFINITY, memblock.memory, 3);
    expect(memblock.memory.regions).toEqual([{ base: 0, size: 32 * MIB, flags: 0, nid: 3 }]);
  });

  it('overlap a range that shares a byte with them (memblock_overlaps_region_check)', () => {
    memblock.add(at(1 * GIB), 4 * MIB);
    const overlaps = (base: number, size: number): boolean => memblock.overlapsRegion(memblock.memory, at(base), size);
    expect(overlaps(1 * GIB - MIB, MIB)).toBe(false);
    expect(overlaps(1 * GIB + 4 * MIB, 4 * MIB)).toBe(false);
    expect(overlaps(1 * GIB - 1, 2)).toBe(true);
    expect(overlaps(1 * GIB + 2 * MIB, 2 * MIB)).toBe(true);
    expect(overlaps(1 * GIB + 1, 0)).toBe(true);
    expect(overlaps(1 * GIB, 0)).toBe(false);
    expect(overlaps(PHYS_ADDR_MAX - MIB, 2 * MIB)).toBe(false);
  });

  it('are found by address, up to their last byte', () => {
    for (const base of [MIB, 3 * MIB, 5 * MIB]) memblock.reserve(at(base), MIB);
    expect([MIB - 1, MIB, 2 * MIB - 1, 2 * MIB, 5 * MIB, 6 * MIB].map((a) => memblock.isReserved(at(a)))).toEqual([
      false,
      true,
      true,
      false,
      true,
      false,
    ]);
    expect(memblock.isMemory(at(MIB))).toBe(false);
    expect(memblock.isRegionReserved(at(2 * MIB), MIB)).toBe(false);
    expect(memblock.isRegionReserved(at(2 * MIB), MIB + 1)).toBe(true);
    memblock.addNode(at(0), MIB, 0);
    memblock.addNode(at(MIB), MIB, 1);
    expect(memblock.isRegionMemory(at(1), MIB - 1)).toBe(true);
    expect(memblock.isRegionMemory(at(1), MIB)).toBe(false);
    expect(memblock.isRegionMemory(at(2 * MIB), 1)).toBe(false);
  });
});

const BASE = 16 * MIB;
const SIZE = 32 * KIB;
const TOP = BASE + SIZE;

describe('memblock_alloc', () => {
  beforeEach(() => memblock.add(at(BASE), SIZE));

  it.each([
    ['top_down_simple', false, [], 2, TOP - SMP_CACHE_BYTES],
    ['bottom_up_simple', true, [], 2, BASE],
    ['top_down_disjoint', false, [[TOP - SMP_CACHE_BYTES, 32]], 1, TOP - 2 * SMP_CACHE_BYTES],
    ['bottom_up_disjoint', true, [[BASE, 1]], 1, BASE + SMP_CACHE_BYTES],
    [
      'top_down_second_fit',
      false,
      [
        [TOP - 4 * KIB, 1 * KIB],
        [TOP - 2 * KIB, 1 * KIB],
      ],
      2 * KIB,
      TOP - 6 * KIB,
    ],
    [
      'bottom_up_second_fit',
      true,
      [
        [BASE, 1 * KIB],
        [BASE + 2 * KIB, 1 * KIB],
      ],
      2 * KIB,
      BASE + 3 * KIB,
    ],
    [
      'in_between',
      false,
      [
        [BASE, 8 * KIB],
        [BASE + 16 * KIB, 16 * KIB],
      ],
      8 * KIB,
      BASE + 8 * KIB,
    ],
    ['limited_space', false, [[BASE, SIZE - 256]], 256, TOP - 256],
    ['whole', false, [], SIZE, BASE],
  ])('%s', (_name, bottomUp, reserved, size, expected) => {
    memblock.bottomUp = bottomUp;
    for (const [base, bytes] of reserved) memblock.reserve(at(base), bytes);
    expect(memblock.physAlloc(size, SMP_CACHE_BYTES)).toBe(expected);
    const index = memblock.reserved.search(at(expected));
    expect(memblock.reserved.regions[index]).toMatchObject({
      base: expected,
      size,
      flags: RSRV_KERN,
      nid: NUMA_NO_NODE,
    });
  });

  it.each([false, true])('gives nothing where no gap is large enough, bottom-up %s', (bottomUp) => {
    memblock.bottomUp = bottomUp;
    expect(memblock.physAlloc(SIZE + 1, 1)).toBeUndefined();
    for (let base = BASE; base < TOP; base += 512) memblock.reserve(at(base), 256); // alloc_small_gaps
    const before = memblock.snapshot();
    expect(memblock.physAlloc(257, 1)).toBeUndefined();
    memblock.reserve(at(BASE), SIZE); // alloc_all_reserved
    expect(memblock.physAlloc(1, 1)).toBeUndefined();
    expect(memblock.reservedSize()).toBe(SIZE);
    expect(before.reserved).toHaveLength(64);
  });

  it('merges what touches an earlier allocation (top_down_before)', () => {
    memblock.physAlloc(KIB, KIB);
    memblock.physAlloc(KIB, KIB);
    expect(places(memblock.reserved)).toEqual([[TOP - 2 * KIB, 2 * KIB]]);
  });

  it('aligns to a cache line when no alignment is given', () => {
    expect(memblock.physAlloc(1, 0)).toBe(TOP - SMP_CACHE_BYTES);
  });

  it('treats an alignment that is no power of two as the kernel does, as a mask', () => {
    expect(memblock.physAlloc(1000, 100)).toBe(Number(BigInt(TOP - 1000) & ~99n));
    memblock.bottomUp = true;
    expect(memblock.physAlloc(8, 100)).toBe(Number(((BigInt(BASE) - 1n) | 99n) + 1n));
  });

  it('never gives the first page', () => {
    const low = new Memblock();
    low.add(at(0), 2 * PAGE_SIZE);
    low.bottomUp = true;
    expect(low.physAlloc(16, 1)).toBe(PAGE_SIZE);
    expect(low.physAlloc(PAGE_SIZE, 1)).toBeUndefined();
  });

  it('of 0 bytes finds a place and reserves nothing', () => {
    expect(memblock.physAlloc(0, PAGE_SIZE)).toBe(TOP);
    expect(memblock.reserved.regions).toEqual([]);
    // Bottom up, the end of a free range is no place, not even for nothing.
    memblock.bottomUp = true;
    expect(memblock.physAllocRange(0, PAGE_SIZE, at(TOP - 1), MEMBLOCK_ALLOC_ANYWHERE)).toBeUndefined();
    expect(memblock.physAllocRange(0, PAGE_SIZE, at(0), MEMBLOCK_ALLOC_ANYWHERE)).toBe(BASE);
  });

  it('keeps within a range (narrow_range, cap_max, cap_min)', () => {
    expect(memblock.physAllocRange(KIB, 64, at(BASE + 4 * KIB), at(BASE + 8 * KIB))).toBe(BASE + 7 * KIB);
    expect(memblock.physAllocRange(KIB, 64, at(BASE + 8 * KIB), at(BASE + 8 * KIB + 512))).toBeUndefined();
    expect(memblock.physAllocRange(KIB, 64, at(BASE + 8 * KIB), at(BASE))).toBeUndefined();
    memblock.currentLimit = at(BASE + 16 * KIB);
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 15 * KIB);
    // A range of one's own does not know the limit; memblock_alloc_*() does.
    expect(memblock.physAllocRange(KIB, 64, at(0), MEMBLOCK_ALLOC_ANYWHERE)).toBe(TOP - KIB);
    expect(memblock.allocTryNid(KIB, 64, at(0), MEMBLOCK_ALLOC_ANYWHERE)).toBe(BASE + 14 * KIB);
  });

  it('goes below the minimum when nothing is free above it (alloc_from_top_down_no_space_above)', () => {
    memblock.reserve(at(BASE + 16 * KIB), 16 * KIB);
    expect(memblock.allocTryNid(KIB, 64, at(BASE + 16 * KIB))).toBe(BASE + 15 * KIB);
    expect(memblock.physAllocRange(KIB, 64, at(BASE + 16 * KIB), MEMBLOCK_ALLOC_ACCESSIBLE)).toBeUndefined();
  });
});

describe('memblock_alloc on NUMA nodes', () => {
  const NODE = 4 * MIB;
  beforeEach(() => {
    for (let nid = 0; nid < 8; nid++) memblock.addNode(at(BASE + nid * NODE), NODE, nid);
  });

  it.each([
    ['top down', false, BASE + 4 * NODE - MIB],
    ['bottom up', true, BASE + 3 * NODE],
  ])('takes the node asked for, %s (numa_simple), and records it', (_name, bottomUp, expected) => {
    memblock.bottomUp = bottomUp;
    expect(memblock.physAllocTryNid(MIB, MIB, 3)).toBe(expected);
    expect(memblock.reserved.regions).toEqual([{ base: expected, size: MIB, nid: 3, flags: RSRV_KERN }]);
  });

  it('falls back to any node, and then records none (numa_small_node)', () => {
    const address = memblock.physAllocTryNid(NODE + MIB, MIB, 3);
    expect(address).toBeUndefined(); // no free range crosses nodes, though memory does
    memblock.reserve(at(BASE + 3 * NODE), NODE);
    expect(memblock.physAllocTryNid(MIB, MIB, 3)).toBe(BASE + 8 * NODE - MIB);
    expect(memblock.reserved.regions.at(-1)?.nid).toBe(NUMA_NO_NODE);
  });

  it('does not fall back when the node must be exact (exact_nid_numa_node_reserved)', () => {
    memblock.reserve(at(BASE + 3 * NODE), NODE);
    expect(memblock.allocRangeNid(MIB, MIB, at(0), MEMBLOCK_ALLOC_ACCESSIBLE, 3, true)).toBeUndefined();
  });

  it('counts what the kernel allocated, below a limit and by node asked for', () => {
    memblock.physAllocTryNid(MIB, MIB, 0);
    memblock.physAlloc(2 * MIB, MIB);
    memblock.reserve(at(BASE), 64 * KIB);
    expect(memblock.reservedKernSize()).toBe(3 * MIB);
    expect(memblock.reservedKernSize(MEMBLOCK_ALLOC_ANYWHERE, 0)).toBe(MIB);
    expect(memblock.reservedKernSize(MEMBLOCK_ALLOC_ANYWHERE, 7)).toBe(0);
    expect(memblock.reservedKernSize(at(BASE + NODE - 4 * KIB))).toBe(MIB - 4 * KIB);
    expect(memblock.reservedKernSize(at(BASE))).toBe(0);
    expect(memblock.reservedKernSize(ARCH_LOW_ADDRESS_LIMIT)).toBe(3 * MIB);
  });
});

describe('kinds of memory', () => {
  beforeEach(() => memblock.add(at(BASE), 4 * MIB));

  it('scratch alone is allocated from in scratch-only mode', () => {
    memblock.setKhoScratchOnly();
    expect(memblock.physAlloc(KIB, 64)).toBeUndefined();
    memblock.markKhoScratch(at(BASE + MIB), MIB);
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 2 * MIB - KIB);
    memblock.clearKhoScratchOnly();
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 4 * MIB - KIB);
  });

  it('memory outside the direct map, or managed by a driver, is not given away unless asked for', () => {
    memblock.markNomap(at(BASE + 3 * MIB), MIB);
    memblock.addNode(at(BASE + 4 * MIB), MIB, 0, DRIVER_MANAGED);
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 3 * MIB - KIB);
    expect(memblock.findInRange(KIB, 64, at(0), MEMBLOCK_ALLOC_ANYWHERE, NUMA_NO_NODE, NOMAP)).toBe(
      BASE + 4 * MIB - KIB,
    );
  });

  it('hotpluggable memory is passed over only while movable nodes are wanted', () => {
    memblock.markHotplug(at(BASE + 3 * MIB), MIB);
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 4 * MIB - KIB);
    memblock.movableNode = true;
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 3 * MIB - KIB);
    memblock.clearHotplug(at(0), Number.POSITIVE_INFINITY);
    expect(memblock.physAlloc(KIB, 64)).toBe(BASE + 4 * MIB - 2 * KIB);
  });

  it('mirrored memory comes first, and all memory after it', () => {
    memblock.markMirror(at(BASE), MIB);
    expect([memblock.hasMirror, memblock.memory.regions.length]).toEqual([false, 1]);
    memblock.mirroredKernelcore = true;
    memblock.markMirror(at(BASE), MIB);
    expect(memblock.memory.regions[0].flags).toBe(MIRROR);
    expect(memblock.physAlloc(MIB, 64)).toBe(BASE);
    expect(memblock.physAlloc(MIB, 64)).toBe(BASE + 3 * MIB);
  });
});

describe('a memblock as a whole', () => {
  it('is copied by clone, modes included, and the copy is independent', () => {
    memblock.add(at(BASE), 4 * MIB);
    memblock.bottomUp = true;
    memblock.setKhoScratchOnly();
    memblock.markKhoScratch(at(BASE), MIB);
    const copy = memblock.clone();
    expect(copy.physAlloc(KIB, 64)).toBe(BASE);
    expect(memblock.reserved.regions).toEqual([]);
    expect(new Memblock(structuredClone(memblock.snapshot())).memory.totalSize).toBe(4 * MIB);
  });

  it('prints itself as memblock=debug does', () => {
    memblock.addNode(at(PAGE_SIZE), 636 * KIB, 0);
    memblock.add(at(MIB), 511 * MIB);
    memblock.reserveKern(at(2 * MIB), MIB);
    expect(memblock.dump()).toBe(`MEMBLOCK configuration:
 memory size = 0x000000001ff9f000 reserved size = 0x0000000000100000
 memory.cnt  = 0x2
 memory[0x0]\t[0x0000000000001000-0x000000000009ffff], 0x000000000009f000 bytes on node 0 flags: 0x0
 memory[0x1]\t[0x0000000000100000-0x000000001fffffff], 0x000000001ff00000 bytes flags: 0x0
 reserved.cnt  = 0x1
 reserved[0x0]\t[0x0000000000200000-0x00000000002fffff], 0x0000000000100000 bytes flags: 0x20
`);
  });

  it('reports the empty gap between reservations that touch without merging, as the kernel does', () => {
    memblock.addNode(at(0), 3 * PAGE_SIZE, 0);
    memblock.reserve(at(0), PAGE_SIZE);
    memblock.reserveKern(at(PAGE_SIZE), PAGE_SIZE);
    const expected = [
      { start: PAGE_SIZE, end: PAGE_SIZE, nid: 0 },
      { start: 2 * PAGE_SIZE, end: 3 * PAGE_SIZE, nid: 0 },
    ];
    expect([...memblock.freeRanges()]).toEqual(expected);
    expect([...memblock.freeRangesReverse()]).toEqual(expected.reverse());
  });
});

describe('what is no address, size or array', () => {
  const filled = (): Memblock => {
    const memblock = new Memblock();
    memblock.add(physicalAddress(2 ** 20), 2 ** 20);
    memblock.reserve(physicalAddress(2 ** 20), 4096);
    return memblock;
  };

  it.each([2 ** 53, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY])('%s as an address changes nothing', (number) => {
    const bad = number as PhysicalAddress;
    const memblock = filled();
    const before = memblock.snapshot();
    const calls: Record<string, () => unknown> = {
      add: () => memblock.add(bad, 4096),
      addNode: () => memblock.addNode(bad, 4096, 0),
      remove: () => memblock.remove(bad, 4096),
      reserve: () => memblock.reserve(bad, 4096),
      free: () => memblock.free(bad, 4096),
      markNomap: () => memblock.markNomap(bad, 4096),
      clearKhoScratch: () => memblock.clearKhoScratch(bad, 4096),
      setNode: () => memblock.setNode(bad, 4096, memblock.memory, 1),
      capMemoryRange: () => memblock.capMemoryRange(bad, 4096),
      overlapsRegion: () => memblock.overlapsRegion(memblock.memory, bad, 4096),
    };
    if (number !== 2 ** 53) calls.findInRange = () => memblock.findInRange(64, 64, bad, MEMBLOCK_ALLOC_ANYWHERE);
    for (const [name, call] of Object.entries(calls)) expect(thrown(call).code, name).toBe('KHO_EINVAL');
    expect(memblock.snapshot()).toEqual(before);
  });

  it.each([1.5, Number.NaN, Number.POSITIVE_INFINITY])('%s as a node changes nothing', (nid) => {
    const memblock = filled();
    const before = memblock.snapshot();
    for (const call of [
      () => memblock.addNode(physicalAddress(0), 4096, nid),
      () => memblock.reserve(physicalAddress(0), 4096, { nid }),
      () => memblock.setNode(physicalAddress(2 ** 20), 4096, memblock.memory, nid),
      () => memblock.allocNode(64, 64, nid),
      () => memblock.freeRanges(nid),
      () => memblock.freeRangesReverse(nid),
      () => memblock.memPfnRanges(nid),
      () => new Memblock({ ...before, memory: [{ ...before.memory[0], nid }] }),
    ]) {
      expect(thrown(call)).toMatchObject({ code: 'KHO_EINVAL', message: `${nid} is no number of a node` });
    }
    expect(thrown(() => memblock.addNode(physicalAddress(0), 4096, 0, nid)).message).toMatch('no flags of memblock');
    expect(memblock.snapshot()).toEqual(before);
  });

  it('what is no range is none where the call would do nothing, too', () => {
    expect(thrown(() => filled().markMirror(0.5 as PhysicalAddress, 4096)).code).toBe('KHO_EINVAL');
    expect(thrown(() => filled().capMemoryRange(-1 as PhysicalAddress, 0)).code).toBe('KHO_EINVAL');
  });

  it('a size or alignment that is none is told with the call', () => {
    expect(thrown(() => filled().alloc(64, -1)).message).toBe(
      'memblock_find_in_range_node: -1 is no alignment in bytes',
    );
    expect(thrown(() => filled().alloc(0.5, 64)).message).toBe('memblock_find_in_range_node: 0.5 is no size in bytes');
    expect(thrown(() => filled().trimMemory(0)).message).toBe('memblock_trim_memory: 0 is no alignment in bytes');
  });

  it.each([0, -1, 0.5, Number.NaN])('an array with room for %s regions is refused', (initialRegions) => {
    expect(thrown(() => new Memblock(filled().snapshot(), { initialRegions })).code).toBe('KHO_EINVAL');
  });

  it.each([
    [
      'regions that overlap',
      [
        [0, 8192],
        [4096, 4096],
      ],
    ],
    [
      'regions that descend',
      [
        [8192, 4096],
        [0, 4096],
      ],
    ],
    ['an empty region', [[4096, 0]]],
    ['a region beyond the end', [[2 ** 52 - 4096, 8192]]],
  ])('a snapshot with %s is refused', (_, spans) => {
    const memory = spans.map(([base, size]) => ({ base: base as PhysicalAddress, size, flags: 0, nid: 0 }));
    expect(thrown(() => new Memblock({ memory, reserved: [] })).code).toBe('KHO_EINVAL');
  });
});
