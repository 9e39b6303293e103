import { describe, expect, it } from 'vitest';
import { physicalAddress } from '#dist/memblock/address.js';
import {
  NODE_DATA_SIZE,
  PERCPU_UNIT_SIZE,
  reserveBootAllocations,
  SWIOTLB_SIZE,
} from '#dist/memblock/boot-allocations.js';
import { hashTableSize } from '#dist/memblock/hash-table-size.js';
import { Memblock } from '#dist/memblock/memblock.js';
import { reserveScratch } from '#dist/memblock/scratch.js';

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const at = physicalAddress;
const PC = { cpus: 2, kernel: { address: at(16 * MIB), size: 20 * MIB }, reserved: [{ address: at(0), size: MIB }] };

/** A PC's map: 640 KiB less one, a hole, the rest; what exceeds 3 GiB is above 4 GiB. */
function pc(bytes: number, nodes = 1): Memblock {
  const memblock = new Memblock();
  memblock.add(at(4 * KIB), 636 * KIB);
  memblock.add(at(MIB), Math.min(bytes, 3 * GIB) - MIB);
  if (bytes > 3 * GIB) memblock.add(at(4 * GIB), bytes - 3 * GIB);
  const end = memblock.endOfDram();
  for (let nid = 0; nid < nodes; nid++) {
    memblock.setNode(at((nid * end) / nodes), end / nodes, memblock.memory, nid);
  }
  return memblock;
}

describe('hashTableSize', () => {
  const pages = (bytes: number): number => bytes / 4096;
  it.each([
    // The tables of the dentry cache (scale 13) and of the inode cache (scale 14), buckets of 8 bytes.
    [512 * MIB, 13, 512 * KIB],
    [512 * MIB, 14, 256 * KIB],
    [511 * MIB - 8 * KIB, 13, 512 * KIB], // rounded up, to a MiB and then to a power of two
    [2 * GIB, 13, 2 * MIB],
    [64 * GIB, 13, 64 * MIB],
    [64 * GIB + MIB, 13, 64 * MIB], // just above: twice by the power of two, half by the adaptive scale
    [256 * GIB, 13, 128 * MIB],
    [1024 * GIB, 13, 256 * MIB],
    [MIB, 14, 4 * KIB], // at least a page
    [32 * KIB, 13, 2 * KIB], // at most a sixteenth of memory
  ])('of %d bytes of memory at scale %d is %d', (bytes, scale, expected) => {
    expect(hashTableSize(pages(bytes), 8, scale)).toBe(expected);
  });
});

describe('the boot-time allocations', () => {
  it('of a machine with 2 GiB are the struct pages, above all', () => {
    const memblock = pc(2 * GIB);
    const allocations = new Map(reserveBootAllocations(memblock, PC).map(({ name, size }) => [name, size]));
    expect(Object.fromEntries(allocations)).toEqual({
      // PTE pages for [0, 2M); one PMD page for the first GiB; one PUD page
      'direct-map page tables': 3 * 4 * KIB,
      'node data 0': NODE_DATA_SIZE,
      'section roots': 16 * KIB,
      'sections 0': 4 * KIB,
      'section usage 0': 16 * 56,
      'struct pages 0': 32 * MIB, // 64 bytes for each 4 KiB
      'struct-page tables 0': 2 * 4 * KIB, // one PUD page, one PMD page
      'dentry hash table': 2 * MIB,
      'inode hash table': 1 * MIB,
      'per-cpu area 0': 2 * PERCPU_UNIT_SIZE,
      'small allocations': 128 * KIB,
    });
    const sum = [...allocations.values()].reduce((total, size) => total + size, 0);
    expect(memblock.reservedKernSize()).toBe(sum + 20 * MIB); // the image is the kernel's too
    expect(memblock.reservedSize()).toBe(sum + 21 * MIB); // the first MiB is not
  });

  it.each([512 * MIB, 1 * GIB, 2 * GIB])('of %d bytes lead to scratch for twice as much', (bytes) => {
    const memblock = pc(bytes);
    reserveBootAllocations(memblock, PC);
    const allocated = memblock.reservedKernSize();
    const { areas } = reserveScratch(memblock, { scale: 200, lowmem: 0, global: 0, pernode: 0 });
    expect(areas[0].size).toBe(Math.ceil((2 * allocated) / (4 * MIB)) * 4 * MIB);
    expect(areas[1].size).toBe(0);
    expect(areas[2].size).toBeGreaterThanOrEqual(bytes / 32);
  });

  it('go to the nodes whose memory they describe, without the tables that are spread later', () => {
    const memblock = pc(16 * GIB, 2);
    const allocations = reserveBootAllocations(memblock, { ...PC, cpus: 5 });
    const of = (name: string): unknown => allocations.find((allocation) => allocation.name === name);
    const border = memblock.endOfDram() / 2;
    expect(of('dentry hash table')).toBeUndefined();
    // [0, 3 GiB) and [4 GiB, 8.5 GiB) are 24 + 36 sections, and the other 8.5 GiB are 68.
    expect(of('struct pages 0')).toMatchObject({ nid: 0, size: 60 * 2 * MIB });
    expect(of('struct pages 1')).toMatchObject({ nid: 1, size: 68 * 2 * MIB });
    expect(of('per-cpu area 0')).toMatchObject({ size: 2 * PERCPU_UNIT_SIZE });
    expect(of('per-cpu area 1')).toMatchObject({ size: 3 * PERCPU_UNIT_SIZE });
    for (const { nid, address, size } of allocations.filter(({ nid }) => nid >= 0)) {
      expect(nid === 0 ? address + size <= border : address >= border).toBe(true);
    }
    expect(memblock.reservedKernSize(undefined, 1)).toBeGreaterThan(136 * MIB);
  });

  it('have bounce buffers below 4 GiB as soon as there is memory above', () => {
    const names = (bytes: number): string[] => reserveBootAllocations(pc(bytes), PC).map(({ name }) => name);
    expect(names(3 * GIB)).not.toContain('swiotlb');
    const buffers = reserveBootAllocations(pc(4 * GIB), PC).find(({ name }) => name === 'swiotlb');
    expect(buffers?.size).toBe(SWIOTLB_SIZE);
    expect(buffers?.address).toBeLessThan(4 * GIB);
  });

  it('take smaller bounce buffers where 64 MiB are not free, and none where not even 1 MiB is', () => {
    const buffers = (scratch: number): number => {
      const memblock = pc(4 * GIB);
      memblock.markKhoScratch(at(2 * GIB), scratch);
      memblock.markKhoScratch(at(4 * GIB), 256 * MIB);
      memblock.setKhoScratchOnly();
      return reserveBootAllocations(memblock, PC).find(({ name }) => name === 'swiotlb')?.size ?? 0;
    };
    expect([80, 63, 20, 1].map((size) => buffers(size * MIB) / MIB)).toEqual([64, 32, 16, 1]);
    expect(buffers(MIB / 2)).toBe(0);
  });

  it('reserve the initrd as it is and keep clear of it', () => {
    const memblock = pc(512 * MIB);
    const initrd = { address: at(500 * MIB), size: 12 * MIB };
    for (const { address, size } of reserveBootAllocations(memblock, { ...PC, initrd })) {
      expect(address + size <= initrd.address || address >= initrd.address + initrd.size).toBe(true);
    }
    expect(memblock.isRegionReserved(initrd.address, initrd.size)).toBe(true);
    const without = pc(512 * MIB);
    reserveBootAllocations(without, PC);
    expect(memblock.reservedKernSize() - without.reservedKernSize()).toBe(initrd.size);
  });

  it('depend on nothing but map and machine', () => {
    const runs = [1, 2].map(() => {
      const memblock = pc(8 * GIB, 2);
      reserveBootAllocations(memblock, PC);
      return memblock.dump();
    });
    expect(runs[0]).toBe(runs[1]);
  });

  it('make memory node 0 where no node is known', () => {
    const memblock = new Memblock();
    memblock.add(at(MIB), GIB);
    reserveBootAllocations(memblock, PC);
    expect(memblock.memory.regions.map(({ nid }) => nid)).toEqual([0]);
  });

  it('that find no room are an error that names them', () => {
    const memblock = new Memblock();
    memblock.addNode(at(MIB), 40 * MIB, 0);
    expect(() => reserveBootAllocations(memblock, { cpus: 200 })).toThrow(
      expect.objectContaining({ code: 'KHO_ENOMEM' }),
    );
    expect(() => reserveBootAllocations(new Memblock(memblock.snapshot()), { cpus: 200 })).toThrow(
      /no room for the kernel's .*bytes wanted/,
    );
  });
});
