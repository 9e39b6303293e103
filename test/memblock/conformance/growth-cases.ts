import { expect } from 'vitest';
import { physicalAddress } from '#dist/memblock/address.js';
import { Memblock } from '#dist/memblock/memblock.js';
import { isValidNode } from '#dist/memblock/region.js';
import type { ConformanceCase } from './allocation-case.js';
import { at, END, LINE, type Span, smallMachine, spans } from './small-machine.js';

const KIB = 1024;
/** Regions that fit before an array grows; then twice as many. */
const INITIAL = 128;
/** The grown array: 256 regions of 24 bytes, in whole pages. */
const GROWN_BYTES = 2 * 4 * KIB;
/** Reserved at last, below all else, to see that the grown array still takes and sorts. */
const LOW: Span = [16 * KIB, 16 * KIB];

/** Memory that is trimmed to multiples of a cache line, and what is left. */
const TRIM: readonly { what: string; memory: readonly Span[]; leaves: readonly Span[] }[] = [
  { what: 'aligned', memory: [[LINE, 4 * LINE]], leaves: [[LINE, 4 * LINE]] },
  {
    what: 'too_small',
    memory: [
      [LINE, 2 * LINE],
      [4 * LINE, LINE - 2],
    ],
    leaves: [[LINE, 2 * LINE]],
  },
  {
    what: 'unaligned_base',
    memory: [
      [LINE, 2 * LINE],
      [4 * LINE + 2, 2 * LINE - 2],
    ],
    leaves: [
      [LINE, 2 * LINE],
      [5 * LINE, LINE],
    ],
  },
  {
    what: 'unaligned_end',
    memory: [
      [LINE, 2 * LINE],
      [4 * LINE, 2 * LINE - 2],
    ],
    leaves: [
      [LINE, 2 * LINE],
      [4 * LINE, LINE],
    ],
  },
];

/**
 * Reserves pieces of 32 KiB at `place(i)` for each i of `indices`, the piece `last` at the end: it is one more than the
 * array holds. Returns what is to be reserved then, but for the grown array itself.
 */
function fillReserved(memblock: Memblock, places: readonly Span[], last: Span): Span[] {
  memblock.allowResize();
  let count = 0;
  for (const [base, size] of places) {
    memblock.reserve(physicalAddress(base), size);
    expect([memblock.reserved.regions.length, memblock.reservedSize()]).toEqual([++count, count * END]);
  }
  expect([count, memblock.reserved.max]).toEqual([INITIAL, INITIAL]);
  memblock.reserve(physicalAddress(last[0]), last[1]);
  return [...places, last];
}

/** That the reserved array has grown into `array`, is whole, and goes on as before. */
function expectGrown(memblock: Memblock, filled: readonly Span[], array: Span): void {
  const absolute = (): Span[] => memblock.reserved.regions.map(({ base, size }) => [base, size]);
  const sorted = (all: readonly Span[]): Span[] => [...all].sort(([a], [b]) => a - b);
  expect(memblock.reserved.max).toBe(2 * INITIAL);
  expect(absolute()).toEqual(sorted([...filled, array]));
  expect(memblock.reservedSize()).toBe((INITIAL + 1) * END + GROWN_BYTES);
  memblock.reserve(physicalAddress(LOW[0]), LOW[1]);
  expect(absolute()).toEqual(sorted([...filled, array, LOW]));
  expect(memblock.reserved.max).toBe(2 * INITIAL);
}

/** 129 places of 32 KiB, 32 KiB apart. */
const places = (from: number): Span[] => Array.from({ length: INITIAL + 1 }, (_, i) => [from + i * 2 * END, END]);

/** Growth of the region arrays, and trimming (basic_api of the simulator). */
export const GROWTH_CASES: readonly ConformanceCase[] = [
  ...TRIM.map(({ what, memory, leaves }) => ({
    id: `memblock_trim_memory: memblock_trim_memory_${what}_check`,
    run() {
      const memblock = new Memblock();
      for (const [offset, size] of memory) memblock.add(at(offset), size);
      memblock.trimMemory(LINE);
      expect(spans(memblock.memory)).toEqual(leaves);
    },
  })),
  {
    // The only memory with room for the array is the first piece, which is just large enough.
    id: 'memblock_add: memblock_add_many_check',
    run() {
      const memblock = new Memblock();
      memblock.allowResize();
      const pieces: Span[] = [[0, GROWN_BYTES]];
      memblock.add(at(0), GROWN_BYTES);
      for (let i = 0; i < INITIAL; i++) {
        const piece: Span = [GROWN_BYTES + 64 + i * 128, 64];
        memblock.add(at(piece[0]), piece[1]);
        pieces.push(piece);
        expect(memblock.memory.regions).toHaveLength(i + 2);
        expect(memblock.physMemSize()).toBe(GROWN_BYTES + (i + 1) * 64);
      }
      expect(spans(memblock.memory)).toEqual(pieces);
      expect(memblock.memory.max).toBe(2 * INITIAL);
      expect(spans(memblock.reserved)).toEqual([[0, GROWN_BYTES]]);

      memblock.add(physicalAddress(LOW[0]), LOW[1]);
      expect(memblock.memory.regions).toHaveLength(INITIAL + 2);
      expect(memblock.memory.regions[0]).toMatchObject({ base: LOW[0], size: LOW[1] });
      expect(memblock.physMemSize()).toBe(GROWN_BYTES + INITIAL * 64 + LOW[1]);
      expect(memblock.memory.max).toBe(2 * INITIAL);
    },
  },
  {
    id: 'memblock_reserve: memblock_reserve_many_check',
    run() {
      const memblock = smallMachine('one piece');
      const all = places(128 * KIB);
      const filled = fillReserved(memblock, all.slice(0, -1), all[INITIAL]);
      expectGrown(memblock, filled, [at(END - GROWN_BYTES), GROWN_BYTES]);
    },
  },
  {
    // The reservation that is one too many may come anywhere between the others.
    id: 'memblock_reserve: memblock_reserve_all_locations_check',
    run() {
      const all = places(128 * KIB);
      for (const [skip, last] of all.entries()) {
        const memblock = smallMachine('one piece');
        const filled = fillReserved(memblock, all.toSpliced(skip, 1), last);
        expectGrown(memblock, filled, [at(END - GROWN_BYTES), GROWN_BYTES]);
      }
    },
  },
  {
    // The array must not be put into the range that is being reserved, though it is free and higher.
    id: 'memblock_reserve: memblock_reserve_many_may_conflict_check',
    run() {
      const all = places(at(2 * END));
      for (const [skip, last] of all.entries()) {
        const memblock = smallMachine('one piece');
        memblock.add(physicalAddress(last[0]), last[1]);
        const filled = fillReserved(memblock, all.toSpliced(skip, 1), last);
        expectGrown(memblock, filled, [at(END - GROWN_BYTES), GROWN_BYTES]);
      }
    },
  },
  {
    // Giving reserved regions to nodes cuts one at the border of the nodes, and the array grows meanwhile: it adds a
    // region that must get its node too, so the caller begins anew.
    id: 'memblock_set_node: memblock_set_node_check',
    run() {
      const memblock = smallMachine('one piece');
      memblock.allowResize();
      memblock.setNode(at(0), END / 2, memblock.memory, 0);
      memblock.setNode(at(END / 2), END / 2, memblock.memory, 1);
      expect(memblock.memory.regions).toMatchObject([
        { base: at(0), size: END / 2, nid: 0 },
        { base: at(END / 2), size: END / 2, nid: 1 },
      ]);
      const pieces: Span[] = Array.from({ length: 125 }, (_, i) => [16 * i, 8]);
      for (const [offset, size] of pieces) memblock.reserve(at(offset), size);
      memblock.reserve(at(END / 2 - 8), 16);

      let max: number;
      do {
        max = memblock.reserved.max;
        for (const { base, size, nid } of memblock.memory.regions) {
          memblock.setNode(base, size, memblock.reserved, nid);
          if (memblock.reserved.max !== max) break;
        }
      } while (memblock.reserved.max !== max);

      expect(memblock.reserved.max).toBe(2 * INITIAL);
      // The array is below the range of the second node, which was being cut; the last region alone is in that node.
      const grown: Span = [4 * KIB, GROWN_BYTES];
      expect(spans(memblock.reserved)).toEqual([...pieces, grown, [END / 2 - 8, 8], [END / 2, 8]]);
      const nodes = memblock.reserved.regions.map(({ nid }) => nid);
      expect(nodes.every(isValidNode)).toBe(true);
      expect(nodes).toEqual([...new Array(127).fill(0), 1]);
    },
  },
];
