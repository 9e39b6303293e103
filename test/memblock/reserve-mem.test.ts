import { beforeEach, describe, expect, it } from 'vitest';
import { physicalAddress } from '#dist/memblock/address.js';
import { Memblock } from '#dist/memblock/memblock.js';
import { MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { reserveNamedMemory, reviveNamedMemory } from '#dist/memblock/reserve-mem.js';

const MIB = 2 ** 20;
const at = physicalAddress;
const trace = { name: 'trace', size: MIB, align: 4096 };
const log = { name: 'log', size: 5000, align: 64 };

let memblock: Memblock;
beforeEach(() => {
  memblock = new Memblock();
  memblock.addNode(at(0), 64 * MIB, 0);
});

describe('reserve_mem', () => {
  it('reserves in order, from the top down, as the kernel allocates for itself', () => {
    expect(reserveNamedMemory(memblock, [log, trace])).toEqual([
      { name: 'log', address: 64 * MIB - 5056, size: 5000 }, // 5000 bytes below the top, down to a multiple of 64
      { name: 'trace', address: 63 * MIB - 8192, size: MIB },
    ]);
    expect(
      memblock.reserved.regions.every(({ flags, nid }) => flags === MemblockFlags.RSRV_KERN && nid === NUMA_NO_NODE),
    ).toBe(true);
  });

  it('keeps what it reserved before one that finds no room', () => {
    const huge = { name: 'huge', size: 64 * MIB, align: 64 };
    expect(() => reserveNamedMemory(memblock, [trace, huge])).toThrow(expect.objectContaining({ code: 'KHO_ENOMEM' }));
    expect(() => reserveNamedMemory(memblock, [huge])).toThrow(
      "reserve_mem 'huge': 67108864 bytes wanted; the largest free place",
    );
    expect(memblock.reservedSize()).toBe(MIB);
  });
});

describe('the successor', () => {
  const predecessor = [
    { name: 'trace', address: at(16 * MIB), size: MIB },
    { name: 'log', address: at(20 * MIB + 64), size: 5000 },
  ];

  it('takes over what has the same name, size and alignment, and reserves nothing for it', () => {
    expect(reviveNamedMemory(memblock, [log, trace], predecessor)).toEqual({
      reserved: [
        { ...predecessor[1], revived: true },
        { ...predecessor[0], revived: true },
      ],
      warnings: [],
    });
    expect(memblock.reservedSize()).toBe(0);
  });

  it.each([
    ['another name', { ...trace, name: 'other' }, 'has none of this name'],
    ['another size', { ...trace, size: MIB + 1 }, 'size 0x100000 is not 0x100001'],
    ['a coarser alignment', { ...trace, align: 32 * MIB }, 'address 0x1000000 is not aligned to 0x2000000'],
  ])('reserves anew for %s', (_what, parameter, warning) => {
    const { reserved, warnings } = reviveNamedMemory(memblock, [parameter], predecessor);
    expect(reserved).toMatchObject([{ name: parameter.name, size: parameter.size, revived: false }]);
    expect(warnings).toEqual([expect.stringContaining(warning)]);
    expect(memblock.reservedSize()).toBe(parameter.size);
  });

  it('takes the replacement from scratch while memblock has nothing else', () => {
    memblock.markKhoScratch(at(8 * MIB), 4 * MIB);
    memblock.setKhoScratchOnly();
    expect(reviveNamedMemory(memblock, [{ ...trace, size: 2 * MIB }], predecessor).reserved[0].address).toBe(10 * MIB);
  });

  it('warns of nothing on a cold start', () => {
    const { reserved, warnings } = reviveNamedMemory(memblock, [trace], undefined);
    expect([reserved[0].revived, warnings]).toEqual([false, []]);
  });

  it('masks with an odd alignment as the kernel does', () => {
    const odd = { name: 'trace', size: MIB, align: 100 };
    const fits = { name: 'trace', address: at(2 ** 40 + 28), size: MIB }; // 28 & 99 is 0
    expect(reviveNamedMemory(memblock, [odd], [fits]).reserved[0].revived).toBe(true);
    expect(reviveNamedMemory(memblock, [odd], [{ ...fits, address: at(2 ** 40 + 96) }]).reserved[0].revived).toBe(
      false,
    );
  });
});
