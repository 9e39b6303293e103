import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { physicalAddress } from '#dist/memblock/address.js';
import { Memblock } from '#dist/memblock/memblock.js';
import { outOfMemory } from '#dist/memblock/out-of-memory.js';
import { MemblockFlags } from '#dist/memblock/region.js';
import { nodesWithMemory, reserveScratch, SCRATCH_ALIGNMENT_BYTES } from '#dist/memblock/scratch.js';

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const SCALED = { scale: 200, lowmem: 0, global: 0, pernode: 0 };
const { RSRV_KERN } = MemblockFlags;
const at = physicalAddress;

/** Two nodes of 4 GiB, the first from 0 to 4 GiB. */
function twoNodes(): Memblock {
  const memblock = new Memblock();
  memblock.addNode(at(0), 4 * GIB, 0);
  memblock.addNode(at(4 * GIB), 4 * GIB, 1);
  return memblock;
}

describe('scratch by a scale', () => {
  it('is twice what the kernel allocated: below 4 GiB, in all less that, and by node', () => {
    const memblock = twoNodes();
    memblock.reserve(at(16 * MIB), 20 * MIB); // what is not the kernel's does not count
    memblock.reserve(at(1 * GIB), 5 * MIB, { nid: 0, flags: RSRV_KERN });
    memblock.reserve(at(5 * GIB), 9 * MIB, { nid: 1, flags: RSRV_KERN });
    memblock.reserve(at(6 * GIB), 1 * MIB, { flags: RSRV_KERN });
    const { table, tableSize, areas } = reserveScratch(memblock, SCALED);
    expect([table, tableSize]).toEqual([8 * GIB - 4 * KIB, 4 * 16]);
    expect(areas).toEqual([
      // 2 × 5 MiB = 10, rounded up to 12. The limit is the last byte below 4 GiB: the last 4 MiB block does not fit under it.
      { kind: 'lowmem', address: 4 * GIB - 16 * MIB, size: 12 * MIB },
      // 2 × 15 MiB - 10 = 20; the table is in the last 4 MiB of memory.
      { kind: 'global', address: 8 * GIB - 24 * MIB, size: 20 * MIB },
      { kind: 'node', nid: 0, address: 4 * GIB - 28 * MIB, size: 12 * MIB }, // 10, rounded up
      { kind: 'node', nid: 1, address: 8 * GIB - 44 * MIB, size: 20 * MIB }, // 18, rounded up
    ]);
  });

  it('cuts a percentage to whole bytes before it rounds up', () => {
    const memblock = twoNodes();
    memblock.reserve(at(1 * GIB), 4 * MIB + 3, { nid: 0, flags: RSRV_KERN });
    // 4194307 × 100 / 100, one block more; 4194307 × 99 / 100 = 4152363, one block
    expect(reserveScratch(memblock.clone(), { ...SCALED, scale: 100 }).areas[0].size).toBe(8 * MIB);
    expect(reserveScratch(memblock.clone(), { ...SCALED, scale: 99 }).areas[0].size).toBe(4 * MIB);
  });

  it('has areas of no bytes where nothing was allocated, and nothing is reserved for them', () => {
    const memblock = new Memblock();
    memblock.addNode(at(0), 1 * GIB, 0);
    memblock.reserve(at(512 * MIB), MIB, { nid: 0, flags: RSRV_KERN });
    const { areas } = reserveScratch(memblock, SCALED);
    expect(areas.map(({ kind, size }) => [kind, size])).toEqual([
      ['lowmem', 4 * MIB],
      ['global', 0], // all of it is below 4 GiB
      ['node', 4 * MIB],
    ]);
    expect(memblock.reservedSize()).toBe(MIB + 3 * 16 + 8 * MIB);
  });

  it('counts one byte less below 4 GiB for an allocation that ends there, as the limit is inclusive', () => {
    const memblock = twoNodes();
    memblock.reserve(at(4 * GIB - MIB), MIB, { nid: 0, flags: RSRV_KERN });
    expect(reserveScratch(memblock, SCALED).areas[1].size).toBe(4 * MIB); // 2 bytes, rounded up
  });
});

describe('scratch of fixed sizes', () => {
  it('is rounded up to 4 MiB and allocated in the order lowmem, global, nodes', () => {
    const memblock = twoNodes();
    const { areas } = reserveScratch(memblock, {
      scale: 0,
      lowmem: 16 * MIB,
      global: 256 * MIB + 1,
      pernode: 64 * MIB,
    });
    expect(areas.map(({ kind, nid, size }) => [kind, nid, size])).toEqual([
      ['lowmem', undefined, 16 * MIB],
      ['global', undefined, 260 * MIB],
      ['node', 0, 64 * MIB],
      ['node', 1, 64 * MIB],
    ]);
    expect(memblock.reservedKernSize()).toBe(16 * MIB + 260 * MIB + 128 * MIB + 64);
  });

  it('skips nodes without memory', () => {
    const memblock = new Memblock();
    memblock.addNode(at(0), GIB, 2);
    memblock.addNode(at(GIB), GIB, 0);
    expect(nodesWithMemory(memblock)).toEqual([0, 2]);
    expect(
      reserveScratch(memblock, { scale: 0, lowmem: 0, global: 4 * MIB, pernode: 0 }).areas.map(({ nid }) => nid),
    ).toEqual([undefined, undefined, 0, 2]);
  });

  it.each([
    [{ lowmem: 2 * GIB, global: 0, pernode: 0 }, 'lowmem', 2 * GIB, 'below 0xffffffff'],
    [{ lowmem: 0, global: 3 * GIB, pernode: 0 }, 'global', 3 * GIB, 'wanted; the largest'],
    // Node 1 has room for it; another node's scratch must not lie there.
    [{ lowmem: 0, global: 0, pernode: 952 * MIB }, 'node 0', 952 * MIB, 'on node 0'],
    [{ lowmem: 2 ** 60, global: 0, pernode: 0 }, 'lowmem', 2 ** 60, 'below'],
  ])(
    'that do not fit are an error that names area, size and the largest free place, and leave nothing reserved',
    (sizes, area, size, where) => {
      const memblock = new Memblock();
      memblock.addNode(at(0), 1 * GIB, 0);
      memblock.addNode(at(1 * GIB), 1 * GIB, 1);
      memblock.reserve(at(0), 100 * MIB);
      const before = memblock.snapshot();
      const attempt = (): unknown => reserveScratch(memblock, { scale: 0, ...sizes });
      expect(attempt).toThrow(expect.objectContaining({ code: 'KHO_ENOMEM', details: { size } }));
      expect(attempt).toThrow(`the ${area} scratch area: ${size} bytes wanted`);
      expect(attempt).toThrow(where);
      expect(attempt).toThrow(/the largest free place has \d+ bytes, at 0x/);
      expect(memblock.snapshot()).toEqual(before);
    },
  );

  it('that are too small for the next kernel are an error that counts the free places in scratch alone', () => {
    const memblock = new Memblock();
    memblock.add(at(0), 1 * GIB);
    memblock.markKhoScratch(at(512 * MIB), 8 * MIB);
    memblock.setKhoScratchOnly();
    expect(outOfMemory(memblock, 'a table', 16 * MIB).message).toBe(
      'no room for a table: 16777216 bytes wanted in scratch, where a kernel that was handed over to allocates; ' +
        'the largest free place has 8388608 bytes, at 0x20000000',
    );
    memblock.clearKhoScratchOnly();
    expect(outOfMemory(memblock, 'a table', 2 * GIB).message).toMatch(/wanted; the largest free place has \d+ bytes/);
  });

  it('without any memory is an error too', () => {
    expect(() => reserveScratch(new Memblock(), SCALED)).toThrow(KhoError);
    expect(() => reserveScratch(new Memblock(), SCALED)).toThrow(
      'the scratch array: 32 bytes wanted; nothing is free there',
    );
  });
});

it('scratch is aligned, apart from all else, and on the node that it is for', () => {
  const sizes = fc.record({ lowmem: fc.nat(64 * MIB), global: fc.nat(64 * MIB), pernode: fc.nat(64 * MIB) });
  const taken = fc.array(fc.record({ base: fc.nat(8 * GIB), size: fc.nat(16 * MIB) }), { maxLength: 8 });
  fc.assert(
    fc.property(sizes, taken, (fixed, reservations) => {
      const memblock = twoNodes();
      for (const { base, size } of reservations) memblock.reserve(at(base), size);
      const before = memblock.clone();
      const { table, tableSize, areas } = reserveScratch(memblock, { scale: 0, ...fixed });
      const parts = [{ address: table, size: tableSize }, ...areas];
      for (const { address, size } of parts) {
        if (size > 0) expect(before.isRegionReserved(address, size)).toBe(false);
        before.reserve(address, size, { flags: RSRV_KERN });
      }
      expect(before.reservedSize()).toBe(memblock.reservedSize());
      for (const { address, size, nid } of areas) {
        expect([address % SCRATCH_ALIGNMENT_BYTES, size % SCRATCH_ALIGNMENT_BYTES]).toEqual([0, 0]);
        if (size > 0 && nid !== undefined) expect(Math.floor(address / (4 * GIB))).toBe(nid);
      }
      expect(areas[0].address + areas[0].size).toBeLessThanOrEqual(4 * GIB - 1);
    }),
  );
});
