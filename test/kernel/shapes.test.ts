import { describe, expect } from 'vitest';
import { foundBy, guestReport, troubleOn } from './support/guest-console.js';
import { kernelTest } from './support/kernel-test.js';
import { handOver, type Shape, takeOver } from './support/khorus.js';
import { digestsOf } from './support/run-digests.js';

/** LUO with the FLBs that a kernel with CONFIG_LIVEUPDATE_TEST misses otherwise. */
const luo = (options: Record<string, unknown>) => ({ use: 'luo', options: { testFlbs: true, ...options } });
const khoTest = (orders: readonly number[]) => ({ use: 'kho-test', options: { orders } });
const folios = (count: number, order: number): number[] => new Array<number>(count).fill(order);

interface KnownShape extends Shape {
  /** What the guest says of a memfd besides its digest. */
  attributes?: Readonly<Record<string, readonly string[]>>;
}

const SHAPES: Readonly<Record<string, KnownShape>> = {
  '256 MiB with one area': { memory: '256M', reserveMem: { trace: '1M' }, drivers: [{ use: 'netdevsim' }] },
  '256 MiB with test folios of every order': {
    memory: '256M',
    drivers: [khoTest([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])],
  },
  '384 MiB with fixed scratch': {
    memory: '384M',
    scratch: '64M,0,8M',
    reserveMem: { trace: '1M' },
    drivers: [khoTest([3, 0, 3])],
  },
  '512 MiB with eight areas of 4 KiB to 16 MiB': {
    memory: '512M',
    reserveMem: { a: '4K', b: '8K', c: '64K', d: '1M', e: '1028K', f: '3M', g: '16M', 'fifteen-letters': '12K' },
    drivers: [{ use: 'netdevsim' }],
  },
  '512 MiB with five hundred test folios of one page, side by side': {
    memory: '512M',
    drivers: [khoTest(folios(500, 0))],
  },
  '512 MiB with test folios of the largest order': { memory: '512M', drivers: [khoTest(folios(6, 10))] },
  '512 MiB with test folios as the kernel draws them': { memory: '512M', seed: 7, drivers: [{ use: 'kho-test' }] },
  '512 MiB with one session that has nothing': {
    memory: '512M',
    drivers: [luo({ sessions: [{ name: 'empty', memfds: 0 }] })],
    emptySessions: ['empty'],
  },
  '512 MiB with an empty memfd, one of a byte and one of a page and a byte': {
    memory: '512M',
    drivers: [
      luo({
        sessions: [
          {
            name: 'vm',
            memfds: [
              { token: 0, size: 0 },
              { token: 1, size: 1 },
              { token: 9, size: 4097 },
            ],
          },
        ],
      }),
    ],
  },
  '512 MiB with 60 sessions, more than a block holds': {
    memory: '512M',
    drivers: [luo({ sessions: 60, memfds: 1, size: '16K' })],
  },
  '512 MiB with 70 memfds in one session, more than a block holds': {
    memory: '512M',
    drivers: [luo({ sessions: 1, memfds: 70, size: '20K' })],
  },
  '512 MiB with a memfd of 64 MiB in pages': {
    memory: '512M',
    drivers: [luo({ sessions: 1, memfds: 1, size: '64M' })],
  },
  '512 MiB with a memfd of 64 MiB in folios of 2 MiB': {
    memory: '512M',
    drivers: [luo({ sessions: 1, memfds: 1, size: '64M', order: 9 })],
  },
  '512 MiB with memfds full of holes, in pages and in folios': {
    memory: '512M',
    drivers: [
      luo({
        sessions: [
          { name: 'pages', memfds: 2, size: '1M', holes: 3 },
          { name: 'folios', memfds: 2, size: '4M', order: 4, holes: 2 },
          { name: 'one hole', memfds: [{ token: 5, size: '8M', order: 9, holes: [{ at: '2M', size: '4M' }] }] },
          { name: 'all hole', memfds: [{ token: 5, size: '64K', holes: [{ at: 0, size: '64K' }] }] },
        ],
      }),
    ],
  },
  '768 MiB with session names at their limits, seals and positions': {
    memory: '768M',
    drivers: [
      luo({
        sessions: [
          { name: 'x'.repeat(63), memfds: 1 },
          { name: 'a/b c%d é', memfds: [{ token: '0xFFFFFFFFFFFFFFFF', seals: ['shrink', 'grow'], pos: 4096 }] },
        ],
      }),
    ],
    attributes: { 'a%2Fb%20c%25d%20%C3%A9/18446744073709551615': ['pos=4096', 'seals=6'] },
  },
  '1 GiB with everything side by side': {
    memory: '1G',
    reserveMem: { trace: '1M', pstore: '256K' },
    drivers: [
      khoTest([10, 0, 9, 1, 0, 5]),
      luo({ sessions: 5, memfds: 5, size: '300K', order: 3, holes: 4 }),
      { use: 'netdevsim', count: 8 },
      { use: 'iommu', count: 2 },
    ],
  },
  '1 GiB on two nodes': {
    memory: '1G',
    nodes: 2,
    guest: 'numa=fake=2',
    reserveMem: { trace: '1M' },
    drivers: [khoTest([10, 4, 0]), luo({ sessions: 3, memfds: 2, size: '1M', order: 2 })],
  },
  '2 GiB with everything and another seed': {
    memory: '2G',
    seed: 99,
    reserveMem: { trace: '16M' },
    drivers: [khoTest([0, 10, 0, 10]), luo({ sessions: 52, memfds: 2, size: '64K' })],
  },
  '4 GiB, of which QEMU puts a part above the hole for devices': {
    memory: '4G',
    reserveMem: { trace: '1M' },
    drivers: [khoTest([9, 0, 9]), luo({ sessions: 2, memfds: 2, size: '2M', order: 9 })],
  },
};

describe('a real kernel takes over', () => {
  for (const [name, shape] of Object.entries(SHAPES)) {
    kernelTest(name, async (context) => {
      const handed = await handOver(context, shape);
      const { status, boot } = await takeOver(handed);
      const console = boot.console.join('\n');
      // The command's own judgement …
      expect(boot).toMatchObject({ arrived: true, failures: [], notes: [], found: true, guestDone: true });
      expect(status).toBe(0);
      // … and that of these tests, from the console alone.
      expect(troubleOn(console)).toEqual([]);
      expect(console).toContain('KHO: found kexec handover data.');
      expect(console).toMatch(/KHO: exec from: \S+ \(count 1\)/);
      for (const area of Object.keys(shape.reserveMem ?? {})) {
        expect(console).toContain(`Revived memory reservation '${area}' from KHO`);
      }
      const hasTest = shape.drivers?.some(({ use }) => use === 'kho-test') ?? false;
      expect(console.includes('test_kho: KHO restore succeeded')).toBe(hasTest);
      const report = guestReport(console);
      expect(report).toMatchObject({ done: true, errors: [] });
      expect(foundBy(report)).toEqual(digestsOf(handed.record));
      expect(report.nodesOnline).toBe(shape.nodes === 2 ? '0-1' : '0');
      for (const [memfd, attributes] of Object.entries(shape.attributes ?? {})) {
        expect(report.memfdAttributes.get(memfd)).toEqual(expect.arrayContaining([...attributes]));
      }
      expect(report.scratch).toEqual(handed.record.host.scratch);
    });
  }
});

kernelTest('a kernel that chooses its place by chance chooses it in scratch', async (context) => {
  const handed = await handOver(context, {
    // It looks for places from its load address upwards, or from 512 MiB upwards if that is less: all of this scratch.
    memory: '1G',
    scratch: '128M,0,0',
    drivers: [khoTest([1, 0]), luo({ sessions: 1, memfds: 1 })],
  });
  const places = new Set<number>();
  for (let boot = 0; boot < 8; boot++) {
    const { boot: result } = await takeOver(handed);
    const { kernelImage, scratch } = guestReport(result.console.join('\n'));
    expect(result.failures).toEqual([]);
    if (kernelImage === undefined) throw new Error('/proc/iomem has no kernel image');
    const { address, size } = kernelImage;
    const area = scratch.find((area) => address >= area.address && address + size <= area.address + area.size);
    expect(area).toBeDefined();
    places.add(address);
  }
  expect(places.size).toBeGreaterThanOrEqual(2);
});
