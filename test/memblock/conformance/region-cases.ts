import { expect } from 'vitest';
import { PHYS_ADDR_MAX, physicalAddress } from '#dist/memblock/address.js';
import { MEMBLOCK_ALLOC_ANYWHERE, Memblock } from '#dist/memblock/memblock.js';
import { MemblockFlags } from '#dist/memblock/region.js';
import type { ConformanceCase } from './allocation-case.js';
import { bytesOf, type Span } from './small-machine.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Ranges that go in, ranges that are taken out, and what is left. Addresses are absolute here. */
interface RangeCase {
  what: string;
  put: readonly Span[];
  take?: readonly Span[];
  leaves: readonly Span[];
}

const ADD: RangeCase[] = [
  { what: 'simple', put: [[GIB, 4 * MIB]], leaves: [[GIB, 4 * MIB]] },
  {
    what: 'disjoint',
    put: [
      [GIB, 8 * KIB],
      [GIB + 16 * KIB, 8 * KIB],
    ],
    leaves: [
      [GIB, 8 * KIB],
      [GIB + 16 * KIB, 8 * KIB],
    ],
  },
  {
    what: 'overlap_top',
    put: [
      [512 * MIB, GIB],
      [256 * MIB, 512 * MIB],
    ],
    leaves: [[256 * MIB, 1280 * MIB]],
  },
  {
    what: 'overlap_bottom',
    put: [
      [128 * MIB, 512 * MIB],
      [256 * MIB, GIB],
    ],
    leaves: [[128 * MIB, 1152 * MIB]],
  },
  {
    what: 'within',
    put: [
      [8 * MIB, 32 * MIB],
      [16 * MIB, MIB],
    ],
    leaves: [[8 * MIB, 32 * MIB]],
  },
  {
    what: 'twice',
    put: [
      [16 * KIB, 2 * MIB],
      [16 * KIB, 2 * MIB],
    ],
    leaves: [[16 * KIB, 2 * MIB]],
  },
  {
    what: 'between',
    put: [
      [GIB, 8 * KIB],
      [GIB + 16 * KIB, 8 * KIB],
      [GIB + 8 * KIB, 8 * KIB],
    ],
    leaves: [[GIB, 24 * KIB]],
  },
  { what: 'near_max', put: [[PHYS_ADDR_MAX - MIB, 2 * MIB]], leaves: [[PHYS_ADDR_MAX - MIB, MIB]] },
];

const RESERVE: RangeCase[] = [
  { what: 'simple', put: [[2 * GIB, 128 * MIB]], leaves: [[2 * GIB, 128 * MIB]] },
  {
    what: 'disjoint',
    put: [
      [256 * MIB, 16 * MIB],
      [512 * MIB, 512 * MIB],
    ],
    leaves: [
      [256 * MIB, 16 * MIB],
      [512 * MIB, 512 * MIB],
    ],
  },
  {
    what: 'overlap_top',
    put: [
      [GIB, GIB],
      [128 * MIB, GIB],
    ],
    leaves: [[128 * MIB, 1920 * MIB]],
  },
  {
    what: 'overlap_bottom',
    put: [
      [2 * KIB, 128 * KIB],
      [128 * KIB, 128 * KIB],
    ],
    leaves: [[2 * KIB, 254 * KIB]],
  },
  {
    what: 'within',
    put: [
      [MIB, 8 * MIB],
      [2 * MIB, 64 * KIB],
    ],
    leaves: [[MIB, 8 * MIB]],
  },
  ...ADD.filter(({ what }) => ['twice', 'between', 'near_max'].includes(what)),
];

/** What memblock_remove() and memblock_free() are tested with alike, one on memory, one on what is reserved. */
const TAKE: RangeCase[] = [
  { what: 'only_region', put: [[2 * KIB, 4 * KIB]], take: [[2 * KIB, 4 * KIB]], leaves: [] },
  {
    what: 'near_max',
    put: [[PHYS_ADDR_MAX - 2 * MIB, 2 * MIB]],
    take: [[PHYS_ADDR_MAX - MIB, 2 * MIB]],
    leaves: [[PHYS_ADDR_MAX - 2 * MIB, MIB]],
  },
  {
    what: 'overlap_two',
    put: [
      [16 * MIB, 32 * MIB],
      [64 * MIB, 64 * MIB],
    ],
    take: [[32 * MIB, 64 * MIB]],
    leaves: [
      [16 * MIB, 16 * MIB],
      [96 * MIB, 32 * MIB],
    ],
  },
];

const REMOVE: RangeCase[] = [
  {
    what: 'simple',
    put: [
      [2 * KIB, 4 * KIB],
      [128 * KIB, 4 * MIB],
    ],
    take: [[2 * KIB, 4 * KIB]],
    leaves: [[128 * KIB, 4 * MIB]],
  },
  { what: 'absent', put: [[512 * KIB, 4 * MIB]], take: [[64 * MIB, GIB]], leaves: [[512 * KIB, 4 * MIB]] },
  { what: 'overlap_top', put: [[32 * MIB, 32 * MIB]], take: [[16 * MIB, 32 * MIB]], leaves: [[48 * MIB, 16 * MIB]] },
  { what: 'overlap_bottom', put: [[2 * MIB, 64 * MIB]], take: [[32 * MIB, 256 * MIB]], leaves: [[2 * MIB, 30 * MIB]] },
  {
    what: 'within',
    put: [[MIB, 32 * MIB]],
    take: [[16 * MIB, MIB]],
    leaves: [
      [MIB, 15 * MIB],
      [17 * MIB, 16 * MIB],
    ],
  },
  ...TAKE,
];

const FREE: RangeCase[] = [
  {
    what: 'simple',
    put: [
      [4 * MIB, MIB],
      [8 * MIB, MIB],
    ],
    take: [[4 * MIB, MIB]],
    leaves: [[8 * MIB, MIB]],
  },
  { what: 'absent', put: [[2 * MIB, 8 * KIB]], take: [[16 * MIB, 128 * MIB]], leaves: [[2 * MIB, 8 * KIB]] },
  { what: 'overlap_top', put: [[8 * MIB, 32 * MIB]], take: [[MIB, 8 * MIB]], leaves: [[9 * MIB, 31 * MIB]] },
  { what: 'overlap_bottom', put: [[8 * MIB, 32 * MIB]], take: [[32 * MIB, 32 * MIB]], leaves: [[8 * MIB, 24 * MIB]] },
  {
    what: 'within',
    put: [[MIB, 8 * MIB]],
    take: [[4 * MIB, MIB]],
    leaves: [
      [MIB, 3 * MIB],
      [5 * MIB, 4 * MIB],
    ],
  },
  ...TAKE,
];

function rangeCases(call: 'add' | 'remove' | 'reserve' | 'free', table: readonly RangeCase[]): ConformanceCase[] {
  const ofMemory = call === 'add' || call === 'remove';
  return table.map(({ what, put, take = [], leaves }) => ({
    id: `memblock_${call}: memblock_${call}_${what}_check`,
    run() {
      const memblock = new Memblock();
      for (const [base, size] of put) memblock[ofMemory ? 'add' : 'reserve'](physicalAddress(base), size);
      for (const [base, size] of take) memblock[ofMemory ? 'remove' : 'free'](physicalAddress(base), size);
      const [type, other] = ofMemory ? [memblock.memory, memblock.reserved] : [memblock.reserved, memblock.memory];
      expect(type.regions.map(({ base, size }) => [base, size])).toEqual(leaves);
      expect(type.totalSize).toBe(bytesOf(leaves));
      expect(other.regions).toEqual([]);
    },
  }));
}

/** Everything but allocation and growth (basic_api of the simulator). */
export const REGION_CASES: readonly ConformanceCase[] = [
  {
    id: 'memblock_initialization_check',
    run() {
      const memblock = new Memblock();
      expect(memblock.snapshot()).toEqual({ memory: [], reserved: [] });
      expect([memblock.memory.name, memblock.reserved.name]).toEqual(['memory', 'reserved']);
      expect([memblock.memory.max, memblock.reserved.max]).toEqual([128, 128]);
      expect(memblock.bottomUp).toBe(false);
      expect(memblock.currentLimit).toBe(MEMBLOCK_ALLOC_ANYWHERE);
    },
  },
  ...rangeCases('add', ADD),
  {
    id: 'memblock_add: memblock_add_node_simple_check',
    run() {
      const memblock = new Memblock();
      const flags = MemblockFlags.HOTPLUG;
      memblock.addNode(physicalAddress(MIB), 16 * MIB, 1, flags);
      expect(memblock.memory.regions).toEqual([{ base: MIB, size: 16 * MIB, nid: 1, flags }]);
      expect(memblock.physMemSize()).toBe(16 * MIB);
    },
  },
  ...rangeCases('reserve', RESERVE),
  ...rangeCases('remove', REMOVE),
  ...rangeCases('free', FREE),
  {
    // Whether the mode is only a field is shown by where the next allocation goes.
    id: 'memblock_set_bottom_up',
    run() {
      const memblock = new Memblock();
      memblock.add(physicalAddress(GIB), MIB);
      memblock.bottomUp = false;
      expect(memblock.physAlloc(64, 64)).toBe(GIB + MIB - 64);
      memblock.bottomUp = true;
      expect(memblock.physAlloc(64, 64)).toBe(GIB);
    },
  },
  {
    id: 'memblock_bottom_up',
    run() {
      const memblock = new Memblock();
      memblock.bottomUp = true;
      expect([memblock.bottomUp, memblock.clone().bottomUp]).toEqual([true, true]);
      memblock.bottomUp = false;
      expect([memblock.bottomUp, memblock.clone().bottomUp]).toEqual([false, false]);
    },
  },
  {
    id: 'memblock_overlaps_region: memblock_overlaps_region_check',
    run() {
      const memblock = new Memblock();
      memblock.add(physicalAddress(GIB), 4 * MIB);
      const overlaps = (base: number, size: number): boolean =>
        memblock.overlapsRegion(memblock.memory, physicalAddress(base), size);
      // Far below, far above, up to its first byte, from behind its last.
      expect(overlaps(MIB, MIB)).toBe(false);
      expect(overlaps(2 * GIB, MIB)).toBe(false);
      expect(overlaps(GIB - MIB, MIB)).toBe(false);
      expect(overlaps(GIB + 4 * MIB, MIB)).toBe(false);
      // Over its begin, over its end, the same, all around it, within it.
      expect(overlaps(GIB - MIB, 2 * MIB)).toBe(true);
      expect(overlaps(GIB + 2 * MIB, 2 * MIB)).toBe(true);
      expect(overlaps(GIB, 4 * MIB)).toBe(true);
      expect(overlaps(GIB - 2 * MIB, 8 * MIB)).toBe(true);
      expect(overlaps(GIB + MIB, MIB)).toBe(true);
    },
  },
];
