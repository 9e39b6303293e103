import { beforeEach, describe, expect, it } from 'vitest';
import { PAGE_SIZE, type PhysicalAddress, physicalAddress } from '#dist/memblock/address.js';
import { MEMBLOCK_ALLOC_ACCESSIBLE, Memblock } from '#dist/memblock/memblock.js';
import { INIT_MEMBLOCK_REGIONS, MAX_NUMNODES, MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';

const MIB = 2 ** 20;
const BASE = 16 * MIB;
const TOP = BASE + 4 * MIB;
/** Bytes of arrays of 256 and 512 regions, 24 bytes each, in whole pages. */
const ARRAY_256 = 2 * PAGE_SIZE;
const ARRAY_512 = 3 * PAGE_SIZE;
const { RSRV_KERN } = MemblockFlags;
const GROWTH = { code: 'KHO_ENOMEM' };

const at = (value: number): PhysicalAddress => physicalAddress(value);
const kernel = (base: number, size: number): object => ({ base, size, nid: NUMA_NO_NODE, flags: RSRV_KERN });

let memblock: Memblock;
beforeEach(() => {
  memblock = new Memblock();
  memblock.add(at(BASE), TOP - BASE);
});

/** Reserves pages [from, to) of memory's lower half, every second one, so that none merge. */
function reservePages(from: number, to: number): void {
  for (let page = from; page < to; page++) memblock.reserve(at(BASE + 2 * page * PAGE_SIZE), PAGE_SIZE);
}

describe('before resizing is allowed', () => {
  it('a full array takes no more regions: KHO_ENOMEM that names it, and nothing changes', () => {
    reservePages(0, INIT_MEMBLOCK_REGIONS);
    const before = memblock.snapshot();
    const text = /cannot resize reserved array \(its 128 regions are taken\)/;
    expect(() => reservePages(128, 129)).toThrow(
      expect.objectContaining({ ...GROWTH, message: expect.stringMatching(text) }),
    );
    expect(() => memblock.physAlloc(PAGE_SIZE, PAGE_SIZE)).toThrow(expect.objectContaining(GROWTH)); // a panic, no "nothing found"
    expect(memblock.snapshot()).toEqual(before);
    expect(memblock.reserved.max).toBe(128);
  });

  it('a full array of memory is named too, and one that needs no new region stays usable', () => {
    for (let index = 1; index < 128; index++) memblock.add(at(TOP + 2 * index * PAGE_SIZE), PAGE_SIZE);
    expect(memblock.memory.regions).toHaveLength(128);
    memblock.add(at(BASE), PAGE_SIZE); // all of it is there
    expect(() => memblock.add(at(0), PAGE_SIZE)).toThrow(/cannot resize memory array/);
    // Cutting wants room for two regions, whether or not anything is cut.
    expect(() => memblock.markNomap(at(0), PAGE_SIZE)).toThrow(/cannot resize memory array/);
    expect(() => memblock.remove(at(BASE), TOP - BASE)).toThrow(/cannot resize memory array/);
    expect(memblock.memory.regions).toHaveLength(128);
  });
});

describe('when resizing is allowed', () => {
  beforeEach(() => memblock.allowResize());

  it("a full array moves into memory, which is reserved as the kernel's own", () => {
    reservePages(0, 128);
    expect([memblock.reserved.max, memblock.reserved.arrayAddress]).toEqual([128, undefined]);
    const lines: string[] = [];
    memblock.log = (line) => lines.push(line);
    reservePages(128, 129);
    // 6144 bytes of two pages: the line tells of the regions, the reservation of the pages.
    expect(lines[1]).toBe('memblock: reserved is doubled to 256 at [0x00000000013fe000-0x00000000013ff7ff]');
    expect(lines[2]).toBe('__memblock_reserve: [0x00000000013fe000-0x00000000013fffff] nid=-1 flags=20');
    expect([memblock.reserved.max, memblock.reserved.arrayAddress]).toEqual([256, TOP - ARRAY_256]);
    expect(memblock.reserved.regions).toHaveLength(130);
    expect(memblock.reserved.regions.at(-1)).toEqual(kernel(TOP - ARRAY_256, ARRAY_256));
  });

  it('the next doubling gives the old place back', () => {
    reservePages(0, 256);
    expect(memblock.reserved.max).toBe(512);
    const array = at(TOP - ARRAY_256 - ARRAY_512);
    expect(memblock.reserved.arrayAddress).toBe(array);
    expect(memblock.reserved.regions.at(-1)).toEqual(kernel(array, ARRAY_512));
    expect(memblock.reservedKernSize()).toBe(ARRAY_512);
  });

  it('memory grows too, and its array is reserved in the other', () => {
    for (let index = 1; index <= 128; index++) memblock.add(at(TOP + 2 * index * PAGE_SIZE), PAGE_SIZE);
    expect(memblock.memory.regions).toHaveLength(129);
    // Single pages are too small for two: the array lies at the end of the large region.
    expect([memblock.memory.max, memblock.memory.arrayAddress]).toEqual([256, TOP - ARRAY_256]);
    expect(memblock.reserved.regions).toEqual([kernel(TOP - ARRAY_256, ARRAY_256)]);
  });

  it('the array keeps out of the range that is being reserved: it looks above it, then below', () => {
    reservePages(0, 128);
    memblock.reserve(at(TOP - 2 * MIB), 2 * MIB - ARRAY_256);
    expect(memblock.reserved.arrayAddress).toBe(TOP - ARRAY_256);

    memblock = new Memblock();
    memblock.add(at(BASE), TOP - BASE);
    memblock.allowResize();
    reservePages(0, 128);
    memblock.reserve(at(TOP - 2 * MIB), 2 * MIB);
    expect(memblock.reserved.arrayAddress).toBe(TOP - 2 * MIB - ARRAY_256);
    expect(memblock.reserved.regions.slice(-2)).toEqual([
      kernel(TOP - 2 * MIB - ARRAY_256, ARRAY_256),
      { base: TOP - 2 * MIB, size: 2 * MIB, nid: NUMA_NO_NODE, flags: 0 },
    ]);
  });

  it('a full array grows even for a range that will merge, since the kernel counts first', () => {
    reservePages(0, 128);
    memblock.reserve(at(BASE + (2 * 127 + 1) * PAGE_SIZE), PAGE_SIZE);
    expect(memblock.reserved.max).toBe(256);
    expect(memblock.reserved.regions.at(-2)?.size).toBe(2 * PAGE_SIZE);
  });

  it('one range that fills more gaps than two doublings hold room for doubles three times', () => {
    memblock = new Memblock(undefined, { initialRegions: 8 });
    memblock.add(at(BASE), TOP - BASE);
    reservePages(0, 8);
    memblock.allowResize();
    memblock.reserve(at(BASE), 17 * PAGE_SIZE);
    expect(memblock.reserved.max).toBe(32);
    expect(memblock.reserved.regions).toHaveLength(2);
  });

  it('scratch-only mode keeps arrays in scratch, the current limit below it', () => {
    memblock.markKhoScratch(at(BASE + 2 * MIB), MIB);
    memblock.setKhoScratchOnly();
    reservePages(0, 129);
    expect(memblock.reserved.arrayAddress).toBe(BASE + 3 * MIB - ARRAY_256);

    const limited = new Memblock();
    limited.add(at(BASE), TOP - BASE);
    limited.allowResize();
    limited.currentLimit = at(BASE + 3 * MIB + 12);
    memblock = limited;
    reservePages(0, 129);
    expect(limited.reserved.arrayAddress).toBe(BASE + 3 * MIB - ARRAY_256);
  });

  it('without room, a call fails and an allocation is not made; nothing changes', () => {
    reservePages(0, 127);
    memblock.reserve(at(BASE + 254 * PAGE_SIZE), TOP - BASE - 254 * PAGE_SIZE - PAGE_SIZE);
    const before = memblock.snapshot();
    const text = 'memblock: Failed to double reserved array from 128 to 256 entries !';
    expect(() => memblock.reserve(at(0), PAGE_SIZE)).toThrow(expect.objectContaining({ ...GROWTH, message: text }));
    expect(memblock.allocRangeNid(8, 64, at(0), MEMBLOCK_ALLOC_ACCESSIBLE)).toBeUndefined();
    expect(memblock.snapshot()).toEqual(before);
    expect(before.reserved).toHaveLength(128);
  });

  it('a copy has the same arrays, and grows on its own', () => {
    reservePages(0, 129);
    const copy = memblock.clone();
    expect([copy.reserved.max, copy.reserved.arrayAddress]).toEqual([256, memblock.reserved.arrayAddress]);
    for (let page = 200; page < 340; page++) copy.reserve(at(BASE + 2 * page * PAGE_SIZE), PAGE_SIZE);
    expect([copy.reserved.max, memblock.reserved.max]).toEqual([512, 256]);
  });
});

it('a memblock made from more regions than 128 has an array that holds them', () => {
  const memory = Array.from({ length: 300 }, (_, index) => ({
    base: at(2 * index * PAGE_SIZE),
    size: PAGE_SIZE,
    flags: 0,
    nid: MAX_NUMNODES,
  }));
  const full = new Memblock({ memory, reserved: [] });
  expect([full.memory.max, full.memory.arrayAddress, full.canResize]).toEqual([512, undefined, false]);
});
