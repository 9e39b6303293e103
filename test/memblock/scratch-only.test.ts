import { describe, expect, it } from 'vitest';
import type { PhysicalAddress } from '#dist/memblock/address.js';
import { MEMBLOCK_ALLOC_ACCESSIBLE, type Memblock } from '#dist/memblock/memblock.js';
import { MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { at, END, MEMORY_BASE, NODES, type Span, smallMachine, spans } from './conformance/small-machine.js';

const { KHO_SCRATCH, RSRV_KERN, MIRROR, HOTPLUG, DRIVER_MANAGED, NONE } = MemblockFlags;

/** Each kind of allocation that a kernel makes of memblock, for `size` bytes. */
const CALLS: readonly [name: string, alloc: (memblock: Memblock, size: number) => PhysicalAddress | undefined][] = [
  ['memblock_phys_alloc', (memblock, size) => memblock.physAlloc(size, 64)],
  ['memblock_phys_alloc_range', (memblock, size) => memblock.physAllocRange(size, 64, at(0), at(END))],
  ['memblock_phys_alloc_try_nid', (memblock, size) => memblock.physAllocTryNid(size, 64, 0)],
  ['memblock_alloc_range_nid', (memblock, size) => memblock.allocRangeNid(size, 64, at(0), at(END), 0, true)],
  ['memblock_alloc', (memblock, size) => memblock.alloc(size, 64)],
  ['memblock_alloc_from', (memblock, size) => memblock.allocFrom(size, 64, at(END / 2))],
  ['memblock_alloc_node', (memblock, size) => memblock.allocNode(size, 64, 0)],
  ['memblock_alloc_try_nid', (memblock, size) => memblock.allocTryNid(size, 64, at(0), at(END), 0)],
  ['memblock_alloc_exact_nid_raw', (memblock, size) => memblock.allocExactNidRaw(size, 64, at(0), at(END), 0)],
  ['memblock_find_in_range', (memblock, size) => memblock.findInRange(size, 64, at(0), at(END))],
];

/** Memory of one node (0) with scratch at `spans`, in scratch-only mode. */
function scratchMachine(...scratch: Span[]): Memblock {
  const memblock = smallMachine('one piece');
  memblock.setNode(at(0), END, memblock.memory, 0);
  return withScratch(memblock, ...scratch);
}

function nodeMachine(...scratch: Span[]): Memblock {
  return withScratch(smallMachine('nodes'), ...scratch);
}

function withScratch(memblock: Memblock, ...scratch: Span[]): Memblock {
  for (const [offset, size] of scratch) memblock.markKhoScratch(at(offset), size);
  memblock.setKhoScratchOnly();
  return memblock;
}

const offset = (address: PhysicalAddress | undefined): number | undefined =>
  address === undefined ? undefined : address - MEMORY_BASE;

const base = (nid: number): number => NODES[nid][0];
const end = (nid: number): number => NODES[nid][0] + NODES[nid][1];

describe('scratch as a flag of memory', () => {
  it('cuts the memory where it begins and ends, and joins it again when it is cleared', () => {
    const memblock = smallMachine('one piece');
    memblock.markKhoScratch(at(4096), 8192);
    expect(memblock.memory.regions.map(({ flags }) => flags)).toEqual([NONE, KHO_SCRATCH, NONE]);
    expect(spans(memblock.memory)).toEqual([
      [0, 4096],
      [4096, 8192],
      [12288, END - 12288],
    ]);
    // A part of it.
    memblock.clearKhoScratch(at(4096), 4096);
    expect(spans(memblock.memory)).toEqual([
      [0, 8192],
      [8192, 4096],
      [12288, END - 12288],
    ]);
    memblock.clearKhoScratch(at(0), END);
    expect(spans(memblock.memory)).toEqual([[0, END]]);
    expect(memblock.memory.regions[0].flags).toBe(NONE);
  });

  it('is marked twice as once, over holes, and only where memory is', () => {
    const memblock = smallMachine('none');
    memblock.add(at(0), 4096);
    memblock.add(at(8192), 4096);
    for (let times = 0; times < 2; times++) memblock.markKhoScratch(at(0), END);
    expect(memblock.memory.regions).toMatchObject([
      { base: at(0), size: 4096, flags: KHO_SCRATCH },
      { base: at(8192), size: 4096, flags: KHO_SCRATCH },
    ]);
  });

  it('stays beside the other flags of its memory, which can change without it', () => {
    const memblock = smallMachine('one piece');
    memblock.markKhoScratch(at(0), END);
    memblock.markNomap(at(0), 4096);
    memblock.clearNomap(at(0), 4096);
    expect(memblock.memory.regions).toMatchObject([{ size: END, flags: KHO_SCRATCH }]);
    memblock.markHotplug(at(0), END);
    memblock.clearKhoScratch(at(0), END);
    expect(memblock.memory.regions).toMatchObject([{ size: END, flags: HOTPLUG }]);
  });

  it('does not join the scratch of two nodes', () => {
    const memblock = nodeMachine([base(2), 8192]);
    expect(spans(memblock.memory).filter((_, i) => memblock.memory.regions[i].flags & KHO_SCRATCH)).toEqual([
      [base(2), 4096],
      [base(3), 4096],
    ]);
    // So no allocation spans both, though it would fit into the two together.
    expect(memblock.physAlloc(8192, 64)).toBeUndefined();
    expect(memblock.physAlloc(4096, 64)).toBeDefined();
  });

  it('changes nothing for allocations while the mode is off', () => {
    const memblock = smallMachine('one piece');
    memblock.markKhoScratch(at(0), 4096);
    expect(offset(memblock.physAlloc(64, 64))).toBe(END - 64);
    memblock.bottomUp = true;
    expect(offset(memblock.physAlloc(64, 64))).toBe(0);
  });
});

describe.each(CALLS)('%s while scratch only', (call, alloc) => {
  it('takes the top of the scratch, though there is room above and below', () => {
    const memblock = scratchMachine([8192, 4096]);
    expect(offset(alloc(memblock, 256))).toBe(12288 - 256);
  });

  it('takes the bottom of the scratch when it searches bottom-up', () => {
    const memblock = scratchMachine([8192, 4096], [16384, 4096]);
    memblock.bottomUp = true;
    // memblock_alloc_from() asks for the upper half of memory, and gets it: the second scratch begins there.
    expect(offset(alloc(memblock, 256))).toBe(call === 'memblock_alloc_from' ? 16384 : 8192);
  });

  it('passes over a scratch that is too small to the next', () => {
    const memblock = scratchMachine([4096, 1024], [20480, 128]);
    expect(offset(alloc(memblock, 256))).toBe(4096 + 1024 - 256);
  });

  it('finds nothing when no scratch has room, though other memory has, and changes nothing', () => {
    const memblock = scratchMachine([8192, 4096]);
    memblock.reserve(at(8192), 4000);
    const before = memblock.snapshot();
    expect(alloc(memblock, 256)).toBeUndefined();
    expect(memblock.snapshot()).toEqual(before);
    memblock.clearKhoScratchOnly();
    expect(offset(alloc(memblock, 256))).toBe(END - 256);
  });

  it('finds nothing when there is no scratch', () => {
    expect(alloc(scratchMachine(), 64)).toBeUndefined();
  });

  it('does not reach from scratch into the memory beside it', () => {
    const memblock = scratchMachine([8192 - 64, 4096]);
    expect(alloc(memblock, 4096 + 64)).toBeUndefined();
    expect(offset(alloc(memblock, 4096))).toBe(8192 - 64);
  });

  it('takes no scratch that is not mapped or that a driver manages', () => {
    const memblock = scratchMachine([4096, 4096], [16384, 4096]);
    memblock.markNomap(at(16384), 4096);
    expect(offset(alloc(memblock, 256))).toBe(8192 - 256);
    const managed = smallMachine('none');
    managed.addNode(at(0), 4096, 0, DRIVER_MANAGED);
    managed.addNode(at(END - 4096), 4096, 0, DRIVER_MANAGED | KHO_SCRATCH);
    expect(alloc(withScratch(managed), 64)).toBeUndefined();
    managed.addNode(at(END / 2), 4096, 0, KHO_SCRATCH);
    expect(offset(alloc(managed, 64))).toBe(END / 2 + 4096 - 64);
  });

  it('takes hotpluggable scratch, but not with movable_node', () => {
    const memblock = scratchMachine([16384, 4096]);
    memblock.markHotplug(at(16384), 4096);
    memblock.movableNode = true;
    expect(alloc(memblock, 256)).toBeUndefined();
    memblock.movableNode = false;
    expect(offset(alloc(memblock, 256))).toBe(20480 - 256);
  });

  it('does not prefer mirrored memory, neither outside scratch nor in it', () => {
    const memblock = scratchMachine([4096, 4096], [16384, 4096]);
    memblock.mirroredKernelcore = true;
    memblock.markMirror(at(4096), 4096);
    memblock.markMirror(at(24576), 4096);
    expect(memblock.memory.regions.filter(({ flags }) => flags & MIRROR)).toHaveLength(2);
    expect(offset(alloc(memblock, 256))).toBe(20480 - 256);
    memblock.clearKhoScratchOnly();
    expect(offset(alloc(memblock, 256))).toBe(28672 - 256);
  });
});

describe('nodes while scratch only', () => {
  /** Scratch in nodes 0 and 6, as a kernel has it: some for each node. */
  const scratch: Span[] = [
    [1024, 1024],
    [base(6) + 1024, 1024],
  ];

  it('an allocation for a node takes that node’s scratch and records the node', () => {
    const memblock = nodeMachine(...scratch);
    expect(offset(memblock.allocTryNid(512, 64, at(0), at(END), 0))).toBe(2048 - 512);
    expect(memblock.reserved.regions).toMatchObject([{ size: 512, nid: 0, flags: RSRV_KERN }]);
  });

  it('falls back to the scratch of another node, not to other memory of its own, and records none', () => {
    const memblock = nodeMachine(...scratch);
    expect(offset(memblock.allocTryNid(512, 64, at(0), at(END), 3))).toBe(base(6) + 2048 - 512);
    memblock.bottomUp = true;
    expect(offset(memblock.allocTryNid(512, 64, at(0), at(END), 3))).toBe(1024);
    expect(memblock.reserved.regions).toMatchObject([
      { base: at(1024), nid: NUMA_NO_NODE },
      { base: at(base(6) + 1536), nid: NUMA_NO_NODE },
    ]);
  });

  it('has the exact node or nothing', () => {
    const memblock = nodeMachine(...scratch);
    expect(memblock.allocExactNidRaw(512, 64, at(0), at(END), 3)).toBeUndefined();
    expect(memblock.allocExactNidRaw(2048, 64, at(0), at(END), 6)).toBeUndefined();
    expect(offset(memblock.allocExactNidRaw(1024, 64, at(0), at(END), 6))).toBe(base(6) + 1024);
  });

  it('keeps the range before the node, and drops the minimum before it gives up', () => {
    const memblock = nodeMachine(...scratch);
    // Node 6 has no scratch below its begin: the scratch of node 0 is in the range.
    expect(offset(memblock.allocTryNid(512, 64, at(0), at(base(6)), 6))).toBe(2048 - 512);
    // Node 0 has none above node 1, nor has another node in that range: the minimum goes, the node is kept.
    expect(offset(memblock.allocTryNid(256, 64, at(base(1)), at(end(5)), 0))).toBe(1536 - 256);
  });

  it('stays below the maximum and the current limit', () => {
    const memblock = nodeMachine(...scratch);
    memblock.currentLimit = at(base(6) + 1536);
    expect(offset(memblock.allocTryNid(512, 64, at(0), MEMBLOCK_ALLOC_ACCESSIBLE))).toBe(base(6) + 1024);
    expect(offset(memblock.allocTryNid(1024, 64, at(0), at(END)))).toBe(1024);
    expect(memblock.allocTryNid(512, 64, at(0), at(END))).toBeUndefined();
  });
});

describe('an array that grows while scratch only', () => {
  /** 128 reserved pieces outside of memory: the array is full. */
  function full(...scratch: Span[]): Memblock {
    const memblock = scratchMachine(...scratch);
    memblock.allowResize();
    for (let index = 0; index < 128; index++) memblock.reserve(at(2 * END + index * 256), 128);
    return memblock;
  }
  const next = at(4 * END);

  it('moves into scratch, though there is room above and below', () => {
    const memblock = full([8192, 12288]);
    memblock.reserve(next, 128);
    expect(memblock.reserved.max).toBe(256);
    expect(spans(memblock.reserved).filter(([start]) => start < END)).toEqual([[12288, 8192]]);
  });

  it('finds no room where the scratch has none: what was to be reserved is not, and nothing has changed', () => {
    const memblock = full([8192, 4096]);
    const before = memblock.snapshot();
    expect(() => memblock.reserve(next, 128)).toThrow(expect.objectContaining({ code: 'KHO_ENOMEM' }));
    expect(memblock.snapshot()).toEqual(before);
    expect(memblock.reserved.max).toBe(128);
    memblock.clearKhoScratchOnly();
    memblock.reserve(next, 128);
    expect(spans(memblock.reserved).filter(([start]) => start < END)).toEqual([[END - 8192, 8192]]);
  });

  it('fails an allocation that has room for itself but none for the array', () => {
    const memblock = full([8192, 4096]);
    const before = memblock.snapshot();
    expect(memblock.physAlloc(256, 64)).toBeUndefined();
    expect(memblock.snapshot()).toEqual(before);
  });
});

describe('what scratch-only mode does not govern', () => {
  it('reserving, adding, removing and freeing go anywhere', () => {
    const memblock = scratchMachine([8192, 4096]);
    memblock.reserve(at(0), 4096);
    memblock.reserveKern(at(END - 4096), 4096);
    memblock.free(at(0), 2048);
    memblock.remove(at(END - 8192), 2048);
    memblock.add(at(END), 4096);
    expect(spans(memblock.reserved)).toEqual([
      [2048, 2048],
      [END - 4096, 4096],
    ]);
    expect(memblock.physMemSize()).toBe(END - 2048 + 4096);
  });

  it('the iteration over free ranges asks for flags of its own', () => {
    const memblock = scratchMachine([8192, 4096]);
    const ranges = (flags: number): number[][] =>
      [...memblock.freeRanges(NUMA_NO_NODE, flags)].map(({ start, end }) => [start - MEMORY_BASE, end - MEMORY_BASE]);
    expect(ranges(NONE)).toEqual([
      [0, 8192],
      [8192, 12288],
      [12288, END],
    ]);
    expect(ranges(KHO_SCRATCH)).toEqual([[8192, 12288]]);
  });

  it('what was preserved in scratch by mistake is passed over once it is reserved', () => {
    const memblock = scratchMachine([8192, 4096]);
    memblock.reserve(at(12288 - 1024), 1024);
    expect(offset(memblock.physAlloc(256, 64))).toBe(12288 - 1024 - 256);
  });

  it('a copy is in the same mode, and leaving it opens all memory for the next allocation', () => {
    const memblock = scratchMachine([8192, 4096]);
    const copy = memblock.clone();
    memblock.clearKhoScratchOnly();
    expect([memblock.khoScratchOnly, copy.khoScratchOnly]).toEqual([false, true]);
    expect(offset(memblock.physAlloc(64, 64))).toBe(END - 64);
    expect(offset(copy.physAlloc(64, 64))).toBe(12288 - 64);
  });
});
