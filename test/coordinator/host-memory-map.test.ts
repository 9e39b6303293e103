import { describe, expect, it } from 'vitest';
import { checkMemoryMap, Host, type HostMemoryMap } from '#dist/coordinator/index.js';
import { physicalAddress } from '#dist/memblock/index.js';

const MIB = 2 ** 20;
const firmware = (base: number, size: number, usable = true) => ({ base: physicalAddress(base), size, usable });
const node = (base: number, size: number, nid = 0) => ({ base: physicalAddress(base), size, nid });
const taken = (address: number, size: number) => ({ address: physicalAddress(address), size });
const GOOD: HostMemoryMap = {
  firmware: [firmware(MIB, 255 * MIB), firmware(2 ** 32, 256 * MIB)],
  ranges: [node(MIB, 127 * MIB, 4), node(128 * MIB, 128 * MIB, 0), node(2 ** 32, 256 * MIB, 4)],
  kernel: taken(64 * MIB, 24 * MIB),
  reserved: [taken(120 * MIB, 16 * MIB)],
};

const hostWith = (memoryMap: HostMemoryMap) =>
  new Host({
    arch: 'x86_64',
    memory: 511 * MIB,
    nodes: 2,
    cpus: 2,
    cmdline: 'kho=on kho_scratch=16M,16M,16M',
    release: '7.2.0',
    memoryMap,
  });

describe('a memory map', () => {
  it('is refused where it contradicts itself, with the ranges and the field', () => {
    const cases: [Partial<HostMemoryMap>, RegExp, string][] = [
      [{ firmware: [] }, /is memory of a node, but firmware calls it not usable/, 'nodes'],
      [{ ranges: [] }, /needs memory on at least one node/, 'nodes'],
      [{ ranges: [node(MIB, 0)] }, /the range at 0x100000 is empty/, 'nodes'],
      [{ ranges: [node(MIB, 4095)] }, /whole pages/, 'nodes'],
      [{ ranges: [node(MIB, 4096, 1024)] }, /nodes are 0 to 1023/, 'nodes'],
      [{ ranges: [node(MIB, 4096), node(MIB, 8192)] }, /0x100000-0x101fff overlaps 0x100000-0x100fff/, 'nodes'],
      [{ ranges: [node(2 * MIB, 4096), node(MIB, 4096)] }, /stands after/, 'nodes'],
      [{ ranges: [node(255 * MIB, 2 * MIB)] }, /not usable/, 'nodes'],
      [{ firmware: [firmware(2 ** 52 - 4096, 8192)] }, /below 2\^52/, 'firmware'],
      [
        { firmware: Array.from({ length: 129 }, (_, at) => firmware(at * MIB, 4096)) },
        /129 ranges of firmware/,
        'firmware',
      ],
      [{ kernel: taken(2 ** 31, MIB) }, /is no memory of a node/, 'kernel'],
      [{ reserved: [taken(255 * MIB, 2 * MIB)] }, /is no memory of a node/, 'reserved'],
    ];
    checkMemoryMap(GOOD);
    for (const [change, pattern, field] of cases) {
      expect(() => checkMemoryMap({ ...GOOD, ...change }), String(pattern)).toThrow(
        expect.objectContaining({
          code: 'KHO_EINVAL',
          message: expect.stringMatching(pattern),
          details: expect.objectContaining({ field: `host.memoryMap.${field}` }),
        }),
      );
    }
  });

  it('is refused where what is reserved overlaps the kernel, wherever the kernel was placed', () => {
    const at = (map: HostMemoryMap) => () => hostWith(map);
    const { kernel: _, ...withoutKernel } = GOOD;
    expect(at({ ...GOOD, reserved: [taken(87 * MIB, 2 * MIB)] })).toThrow(
      expect.objectContaining({
        code: 'KHO_EINVAL',
        message: 'memory map: 0x5700000-0x58fffff is reserved, but the kernel is at 0x4000000-0x57fffff',
        details: { address: 87 * MIB, field: 'host.memoryMap.reserved' },
      }),
    );
    expect(at({ ...withoutKernel, reserved: [taken(16 * MIB, 4096)] })).toThrow(/but the kernel is at 0x1000000-/);
    expect(at({ ...GOOD, reserved: [taken(62 * MIB, 2 * MIB), taken(88 * MIB, MIB)] })).not.toThrow();
  });

  it('is the memory of a host: its nodes, its kernel and what is taken beside it', () => {
    const host = hostWith(GOOD);
    expect(host.memory.ranges.map(({ base, size, nid }) => ({ base, size, nid }))).toEqual(GOOD.ranges);
    expect(host.firmware).toEqual(GOOD.firmware);
    expect(host.pages.statistics().map(({ nid }) => nid)).toEqual([0, 4]);
    for (const address of [64 * MIB, 88 * MIB - 1, 120 * MIB, 136 * MIB - 1]) {
      expect(host.memblock.isReserved(physicalAddress(address)), String(address)).toBe(true);
    }
    expect(host.memblock.isReserved(physicalAddress(64 * MIB - 1))).toBe(false);
  });

  it('may come with a command line that the kernel reads otherwise than was meant', () => {
    const options = {
      arch: 'x86_64',
      memory: 511 * MIB,
      nodes: 2,
      cpus: 2,
      release: '7.2.0',
      memoryMap: GOOD,
    } as const;
    const cmdline = 'kho=on kho_scratch=16M,16M,16M kho_scratch=1G';
    expect(() => new Host({ ...options, cmdline })).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
    const { parameters } = new Host({ ...options, cmdline, cmdlineRules: 'kernel' });
    expect(parameters.scratch).toMatchObject({ scale: 0, global: 16 * MIB });
    expect(parameters.warnings).toHaveLength(1);
  });
});
