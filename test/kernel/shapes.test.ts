import { describe, expect } from 'vitest';
import type { RunRecord } from '#dist/coordinator/index.js';
import { foundBy, type GuestReport, guestReport, troubleOn } from './support/guest-console.js';
import { kernelTest } from './support/kernel-test.js';
import { handOver, type Shape, takeOver } from './support/khorus.js';
import { digestsOf } from './support/run-digests.js';

/** LUO with the FLBs that a kernel with CONFIG_LIVEUPDATE_TEST misses otherwise. */
const luo = (options: Record<string, unknown>) => ({ use: 'luo', options: { testFlbs: true, ...options } });
const khoTest = (orders: readonly number[]) => ({ use: 'kho-test', options: { orders } });
const folios = (count: number, order: number): number[] => new Array<number>(count).fill(order);

const MIB = 2 ** 20;
const GIB = 2 ** 30;

interface KnownShape extends Shape {
  /** What the guest says of a memfd besides its digest. */
  attributes?: Readonly<Record<string, readonly string[]>>;
  /** How many memfds the guest finds in how many sessions. */
  sessions?: { count: number; memfds: number };
  /** Sizes of memfds that the guest finds, in bytes. */
  sizes?: Readonly<Record<string, number>>;
  /** How many folios of each order above 0 LUO's memfds are made of. */
  luoFolios?: Readonly<Record<number, number>>;
  /** Memfds with holes, by name: the bytes of the folios that the guest has are more than none and fewer than the size. */
  holey?: readonly string[];
  /** reserve_mem areas that lie above 4 GiB as a whole. */
  high?: readonly string[];
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
    sessions: { count: 1, memfds: 3 },
    sizes: { 'vm/0': 0, 'vm/1': 1, 'vm/9': 4097 },
    attributes: { 'vm/0': ['blocks=0'], 'vm/1': ['blocks=8'], 'vm/9': ['blocks=16'] },
  },
  '512 MiB with 60 sessions, more than a block holds': {
    memory: '512M',
    drivers: [luo({ sessions: 60, memfds: 1, size: '16K' })],
    sessions: { count: 60, memfds: 1 },
  },
  '512 MiB with 70 memfds in one session, more than a block holds': {
    memory: '512M',
    drivers: [luo({ sessions: 1, memfds: 70, size: '20K' })],
    sessions: { count: 1, memfds: 70 },
  },
  '512 MiB with a memfd of 64 MiB in pages': {
    memory: '512M',
    drivers: [luo({ sessions: [{ name: 'vm', memfds: [{ token: 0, size: '64M' }] }] })],
    sizes: { 'vm/0': 64 * MIB },
    attributes: { 'vm/0': ['blocks=131072'] },
    luoFolios: {},
  },
  '512 MiB with a memfd of 64 MiB in folios of 2 MiB': {
    memory: '512M',
    drivers: [
      luo({
        sessions: [
          {
            name: 'vm',
            memfds: [
              { token: 0, size: '64M', order: 9 },
              { token: 1, size: '3M', order: 9 },
            ],
          },
        ],
      }),
    ],
    sizes: { 'vm/0': 64 * MIB, 'vm/1': 3 * MIB },
    // Blocks of 512 bytes. The second is a folio of 2 MiB and one of 1 MiB.
    attributes: { 'vm/0': ['blocks=131072'], 'vm/1': ['blocks=6144'] },
    luoFolios: { 8: 1, 9: 33 },
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
    sizes: { 'pages/0': MIB, 'folios/0': 4 * MIB, 'one%20hole/5': 8 * MIB, 'all%20hole/5': 64 * 1024 },
    attributes: { 'one%20hole/5': ['blocks=8192'], 'all%20hole/5': ['blocks=0'] },
    holey: ['pages/0', 'pages/1', 'folios/0', 'folios/1', 'one%20hole/5'],
    luoFolios: { 4: 64, 9: 2 },
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
    sessions: { count: 52, memfds: 2 },
  },
  '4 GiB, of which QEMU puts a part above the hole for devices': {
    memory: '4G',
    reserveMem: { trace: '1M' },
    drivers: [
      khoTest([9, 0, 9]),
      luo({
        sessions: [
          { name: 'vm', memfds: [{ token: 0, size: '4M', order: 9 }] },
          { name: 'pages', memfds: [{ token: 0, size: '256K' }] },
        ],
      }),
    ],
    luoFolios: { 9: 2 },
    high: ['trace'],
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
      expectAsNamed(shape, handed.record, report);
    });
  }
});

/** That the shape was what its name says: what the run recorded of its memory, and what the guest found. */
function expectAsNamed(shape: KnownShape, record: RunRecord, { memfds, memfdAttributes }: GuestReport): void {
  for (const { use, options } of shape.drivers ?? []) {
    if (use !== 'kho-test') continue;
    const there = foliosByOrder(record, 'kho_test');
    const wanted = (options as { orders?: readonly number[] } | undefined)?.orders;
    if (wanted === undefined) {
      // The kernel draws 8 MiB; three pages more are the test's own.
      const pages = [...there].reduce((sum, [order, count]) => sum + count * 2 ** order, 0);
      expect(pages).toBe(2048 + 3);
      expect(there.size).toBeGreaterThan(3);
      continue;
    }
    const expected = new Map([[0, 3]]);
    for (const order of wanted) expected.set(order, (expected.get(order) ?? 0) + 1);
    expect(there).toEqual(expected);
  }
  if (shape.luoFolios !== undefined) {
    const large = [...foliosByOrder(record, 'LUO')].filter(([order]) => order > 0);
    expect(Object.fromEntries(large)).toEqual(shape.luoFolios);
  }
  if (shape.sessions !== undefined) {
    const { count, memfds: each } = shape.sessions;
    const inSession = new Map<string, number>();
    for (const name of memfds.keys()) {
      const [session] = name.split('/');
      inSession.set(session, (inSession.get(session) ?? 0) + 1);
    }
    expect([...inSession.values()]).toEqual(new Array<number>(count).fill(each));
  }
  for (const [name, size] of Object.entries(shape.sizes ?? {}))
    expect([name, memfds.get(name)?.size]).toEqual([name, size]);
  for (const name of shape.holey ?? []) {
    const blocks = memfdAttributes.get(name)?.find((attribute) => attribute.startsWith('blocks='));
    const bytes = Number(blocks?.slice('blocks='.length)) * 512;
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(memfds.get(name)?.size ?? 0);
  }
  if (shape.high !== undefined) {
    // That the digests arrived was compared above, for all of them.
    for (const area of shape.high) {
      const owned = record.ranges.filter(({ owner }) => owner.kind === 'reserve_mem' && owner.name === area);
      expect(owned.length).toBeGreaterThan(0);
      expect(owned.filter(({ address }) => address < 4 * GIB)).toEqual([]);
    }
  }
}

/** How many folios of each order a run recorded as a driver's. */
function foliosByOrder({ ranges }: RunRecord, driver: string): Map<number, number> {
  const orders = new Map<number, number>();
  for (const { order, owner } of ranges) {
    if (owner.kind !== 'pages' || owner.name !== driver) continue;
    orders.set(order, (orders.get(order) ?? 0) + 1);
  }
  return orders;
}

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
