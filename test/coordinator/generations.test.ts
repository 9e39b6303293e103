import { join } from 'node:path';
import {
  Coordinator,
  type CoordinatorOptions,
  type DriverRegistration,
  type Handover,
  Host,
  type HostOptions,
  type RangeRecord,
  restoreImage,
  type SuccessorReport,
  WorkerPool,
} from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { PAGE_SIZE, type PhysicalAddress, physicalAddress } from '#dist/memblock/index.js';
import { builtInDriver } from '../support/drivers.js';
import { temporaryDirectory } from '../support/run.js';

const HOST: HostOptions = {
  arch: 'x86_64',
  memory: 256 * 2 ** 20,
  nodes: 2,
  cmdline: 'kho=on kho_scratch=16M,16M,8M reserve_mem=300K:4096:trace reserve_mem=5000:64:odd',
  cpus: 2,
  release: '7.2.0-test',
};
const GENERATIONS = 4;
const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

type Drivers = readonly DriverRegistration[];

/**
 * A driver with two shards: 8 pages, of which it preserves three and claims as many as `options.claim` says (the rest is
 * discarded), and `options.pages`, of which it preserves nothing. Of its pages the first counts what was in it, the second is
 * overwritten, the third has what was in the second and in a page that is not preserved.
 */
const OWN_MODULE = {
  origin: 'own',
  url: `data:text/javascript,${encodeURIComponent(`export default { name: 'own', compatible: 'own-v1',
    shards: ({ pages }) => [{ pages: 8 }, { pages }],
    create: ({ options }) => ({ claim: options.claim }),
    prepare(ctx) {
      if (ctx.options.fail === 'prepare') { ctx.alloc(8); throw new Error('boom'); }
      const unused = ctx.alloc(1);
      const folios = [ctx.allocFolio(0), ctx.allocFolio(0), ctx.allocFolio(0)];
      for (const folio of folios) ctx.preserve(folio);
      ctx.memory.writeU64(folios[2].address, ctx.memory.readU64(folios[1].address) + ctx.memory.readU64(unused.address));
      ctx.memory.fill(folios[1].address, 4096, 1);
      ctx.memory.fill(unused.address, 4096, 1);
      ctx.memory.writeU64(folios[0].address, ctx.memory.readU64(folios[0].address) + 1n);
      return folios;
    },
    serialize(ctx, shard) {
      if (ctx.options.fail === 'serialize') throw new Error('boom');
      if (shard !== 0) return;
      ctx.root.u32('claim', ctx.state.claim).u64s('pages', ctx.prepared.map(({ address }) => address));
    },
    restore(ctx) {
      const claim = ctx.node.property('claim').u32('little');
      for (const [index, address] of ctx.node.property('pages').number64s('little').entries()) {
        ctx[index < claim ? 'claim' : 'discard']({ address, order: 0 });
      }
      return { claim };
    },
    snapshot: (state) => state };`)}`,
};
const own = (options: { claim: number; pages?: number; fail?: string }, count = 1): DriverRegistration => ({
  module: OWN_MODULE,
  count,
  options: { pages: 4, ...options },
  after: [],
  priority: 0,
});

function coordinatorOf(host: Host, drivers: Drivers, options: Partial<CoordinatorOptions> = {}): Coordinator {
  const base = { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool } as const;
  const coordinator = new Coordinator(host, { ...base, ...options });
  for (const registration of drivers) coordinator.register(registration);
  return coordinator;
}

interface Generation {
  readonly handover: Handover;
  readonly report: SuccessorReport;
  readonly ranges: readonly RangeRecord[];
}

/** Hands a host over and lets a successor restore it. */
async function handOver(host: Host, drivers: Drivers, options: Partial<CoordinatorOptions> = {}): Promise<Generation> {
  const image = join(temporaryDirectory(), 'ram.img');
  const coordinator = coordinatorOf(host, drivers, options);
  try {
    const handover = await coordinator.handover();
    await handover.writeImage(image);
    const report = await restoreImage({ image, arch: 'x86_64', drivers: handover.modules });
    return { handover, report, ranges: handover.ranges() };
  } finally {
    await coordinator[Symbol.asyncDispose]();
  }
}

/** The next kernel's host. */
async function next(host: Host, drivers: Drivers, options: Partial<CoordinatorOptions> = {}): Promise<Host> {
  const { handover, report } = await handOver(host, drivers, options);
  return handover.nextHost(report);
}

/** Where the drivers' own memory is, and the named reservations. */
const places = (ranges: readonly RangeRecord[]): string[] =>
  ranges
    .filter(({ owner }) => owner.kind === 'pages' || owner.kind === 'reserve_mem')
    .map(({ address, order, owner: { name, instance, shard } }) => `${address}/${order} ${name} ${instance} ${shard}`)
    .sort();

/** The pages of a driver that were handed over. */
const pagesOf = (ranges: readonly RangeRecord[], driver: string): number[] =>
  ranges
    .filter(({ owner }) => owner.kind === 'pages' && owner.name === driver)
    .map(({ address }) => address)
    .sort((a, b) => a - b);

const allPages = (host: Host): number => host.memory.ranges.reduce((sum, { size }) => sum + size / PAGE_SIZE, 0);

const VARIANTS = [
  { profile: 'kho-v4', mode: 'sequential' },
  { profile: 'kho-v4', mode: 'hash' },
  { profile: 'kho-v4', mode: 'subfdt' },
  { profile: 'series-v4', mode: 'hash', fdtMax: 2 ** 20 },
  { profile: 'series-v5', mode: 'sequential', fdtMax: 2 ** 20 },
] as const;

describe.each(VARIANTS)('profile $profile, mode $mode', (variant) => {
  const drivers = [
    builtInDriver('iommu', 2),
    builtInDriver('netdevsim', 2, { queues: 20 }),
    builtInDriver('kvm-vcpu', 2),
    builtInDriver('ftrace', 1),
    builtInDriver('memfd', 2, { size: '6M' }),
    own({ claim: 2 }, 2),
  ];

  test('kernel after kernel, memory stays where it is and every state is restored', async () => {
    let host = new Host(HOST);
    const scratch = host.scratch.areas;
    const { reserveMem } = host;
    const first: { places?: string[]; states?: unknown; free?: unknown } = {};
    for (let generation = 1; generation <= GENERATIONS; generation++) {
      const { handover, report, ranges } = await handOver(host, drivers, variant);
      expect(report.failures).toEqual([]);
      const counted = variant.profile === 'kho-v4';
      expect([report.kexecCount, report.previousRelease]).toEqual(counted ? [generation, HOST.release] : [0, '']);
      first.places ??= places(ranges);
      expect(places(ranges)).toEqual(first.places);
      first.states ??= report.restored;
      expect(report.restored).toEqual(first.states);

      host = handover.nextHost(report);
      expect(host.kexecCount).toBe(report.kexecCount);
      expect(host.scratch.areas).toEqual(scratch);
      expect(host.reserveMem).toEqual(reserveMem);
      first.free ??= host.pages.statistics();
      expect(host.pages.statistics()).toEqual(first.free);
      handover[Symbol.dispose]();
      expect(host.pages.statistics()).toEqual(first.free);
    }
  });
});

describe('the host of the next kernel', () => {
  test('has free what nobody claimed: all but scratch, reservations, the first MiB and the extents that are kept', async () => {
    const scratch = new Host(HOST).scratch.areas.reduce((sum, { size }) => sum + size / PAGE_SIZE, 0);
    // 300K are 75 pages, and 5000 bytes touch two.
    const always = scratch + 75 + 2 + pagesBelowOneMib(new Host(HOST));
    const kept = async (drivers: Drivers): Promise<number> => {
      const host = await next(new Host(HOST), drivers);
      return allPages(host) - host.pages.freePages() - always;
    };
    expect(await kept([])).toBe(0);
    // The shard that preserved nothing keeps nothing; the other one keeps its extents for one claimed page.
    expect(await kept([own({ claim: 1 })])).toBe(8);
    expect(await kept([own({ claim: 3 }, 2)])).toBe(16);
    expect(await kept([own({ claim: 0 })])).toBe(0);
    // The kernel's own test looks at its folios and lets them go.
    expect(await kept([builtInDriver('kho-test', 1, { orders: [0, 3] })])).toBe(0);
  });

  test('keeps what was claimed from other drivers and instances', async () => {
    const { handover, report, ranges } = await handOver(new Host(HOST), [own({ claim: 3 }, 2)]);
    const claimed = new Set(pagesOf(ranges, 'own'));
    const host = handover.nextHost(report);
    // Another driver's, instances that are new, and a shard of another size: none gets these pages.
    const others = [builtInDriver('memfd', 4), builtInDriver('ftrace', 2)];
    const second = await handOver(host, others);
    expect(second.ranges.filter(({ address }) => claimed.has(address))).toEqual([]);
    expect(second.ranges.length).toBeGreaterThan(0);
    // The drivers did not hand them over again: so the kernel after that has them free.
    const last = second.handover.nextHost(second.report);
    const fill = last.pages.freePages();
    const lone = await next(new Host(HOST), others);
    expect(fill).toBe(lone.pages.freePages());
  });

  test('grants an instance that is new pages of its own, and leaves the old ones where they are', async () => {
    const { handover, report, ranges } = await handOver(new Host(HOST), [own({ claim: 3 }, 2)]);
    const host = handover.nextHost(report);
    const grown = await handOver(host, [own({ claim: 3 }, 4)]);
    const before = pagesOf(ranges, 'own');
    const after = pagesOf(grown.ranges, 'own');
    expect(after.length).toBe(12);
    expect(after.filter((address) => before.includes(address))).toEqual(before);
  });

  test('grants a shard that declares another number of pages new ones, and the old ones stay taken', async () => {
    const options = { size: '1M' };
    const { handover, report, ranges } = await handOver(new Host(HOST), [builtInDriver('memfd', 1, options)]);
    const host = handover.nextHost(report);
    const other = await handOver(host, [builtInDriver('memfd', 1, { size: '2M' })]);
    const before = new Set(pagesOf(ranges, 'memfd'));
    expect(pagesOf(other.ranges, 'memfd').filter((address) => before.has(address))).toEqual([]);
  });

  test('keeps the content of what was claimed until its driver writes it, and clears the rest', async () => {
    let host = new Host(HOST);
    let page: PhysicalAddress | undefined;
    for (const count of [1n, 2n, 3n]) {
      const { handover, report, ranges } = await handOver(host, [own({ claim: 1 })]);
      const [first = 0, second = 0, third = 0] = pagesOf(ranges, 'own');
      page ??= physicalAddress(first);
      expect(first).toBe(page);
      // What was claimed counts on; what was discarded, or not handed over, was cleared.
      expect(host.memory.readU64(page)).toBe(count);
      expect(host.memory.readU64(physicalAddress(second))).toBe(0x0101010101010101n);
      expect(host.memory.readU64(physicalAddress(third))).toBe(0n);
      host = handover.nextHost(report);
      expect(host.memory.readU64(page)).toBe(count);
    }
  });

  test.each(['prepare', 'serialize'])(
    'keeps drivers their extents when it fails in %s and rolls back',
    async (fail) => {
      const drivers = [own({ claim: 3 }, 2), builtInDriver('memfd', 1)];
      const host = await next(new Host(HOST), drivers);
      const free = host.pages.statistics();
      const failing = coordinatorOf(host, [own({ claim: 3, fail }, 2), builtInDriver('memfd', 1)]);
      await expect(failing.handover()).rejects.toMatchObject({ code: 'KHO_EDRIVER' });
      await failing[Symbol.asyncDispose]();
      expect(host.pages.statistics()).toEqual(free);
      const again = await handOver(host, drivers);
      const first = await handOver(new Host(HOST), drivers);
      expect(places(again.ranges)).toEqual(places(first.ranges));
    },
  );

  test('gives inherited extents to one run at a time', async () => {
    const { handover, report, ranges } = await handOver(new Host(HOST), [own({ claim: 3 })]);
    const host = handover.nextHost(report);
    const one = await handOver(host, [own({ claim: 3 })]);
    const two = await handOver(host, [own({ claim: 3 })]);
    expect(pagesOf(one.ranges, 'own')).toEqual(pagesOf(ranges, 'own'));
    expect(pagesOf(two.ranges, 'own').filter((address) => pagesOf(ranges, 'own').includes(address))).toEqual([]);
    one.handover[Symbol.dispose]();
    const three = await handOver(host, [own({ claim: 3 })]);
    expect(pagesOf(three.ranges, 'own')).toEqual(pagesOf(ranges, 'own'));
  });

  test('has the release that it is told, and names it to the next one', async () => {
    const { handover, report } = await handOver(new Host(HOST), []);
    const host = handover.nextHost(report, { release: '7.3.0-next' });
    expect([host.options.release, host.previousRelease]).toEqual(['7.3.0-next', HOST.release]);
    const second = await handOver(host, []);
    expect([second.report.previousRelease, second.report.kexecCount]).toEqual(['7.3.0-next', 2]);
  });
});

/** Pages of memory below 1 MiB, of which the firmware has some itself. */
function pagesBelowOneMib({ memory }: Host): number {
  return (
    memory.ranges.reduce((sum, { base, size }) => sum + Math.max(0, Math.min(base + size, 2 ** 20) - base), 0) /
    PAGE_SIZE
  );
}

describe('a handover', () => {
  test('whose memory the next kernel has is spent, and its host is over', async () => {
    const host = new Host(HOST);
    const { handover, report } = await handOver(host, [own({ claim: 1 })]);
    expect(host.isOver).toBe(false);
    const free = host.pages.freePages();
    handover.nextHost(report);
    expect(host.isOver).toBe(true);
    const busy = expect.objectContaining({ code: 'KHO_EBUSY' });
    expect(() => handover.nextHost(report)).toThrow(busy);
    expect(() => handover.record()).toThrow(busy);
    expect(() => handover.blob('fdt')).toThrow(busy);
    await expect(handover.writeImage('never-written.img')).rejects.toEqual(busy);
    expect(handover.modules).toHaveLength(1);
    handover[Symbol.dispose]();
    expect(handover.released).toBe(false);
    expect(host.pages.freePages()).toBe(free);
    const coordinator = coordinatorOf(host, [own({ claim: 1 })]);
    await expect(coordinator.handover()).rejects.toEqual(busy);
    await coordinator[Symbol.asyncDispose]();
  });

  test('leaves a coordinator whose every call says that the next kernel has taken over', async () => {
    const image = join(temporaryDirectory(), 'ram.img');
    await using coordinator = coordinatorOf(new Host(HOST), [own({ claim: 1 })]);
    const handover = await coordinator.handover();
    await handover.writeImage(image);
    handover.nextHost(await restoreImage({ image, arch: 'x86_64', drivers: handover.modules }));
    await expect(coordinator.prepare()).rejects.toMatchObject({
      code: 'KHO_EINVAL',
      message: 'prepare() is not legal any more: the next kernel has taken over, so make a coordinator for its host',
    });
  });

  test('that was disposed of has no next host', async () => {
    const host = new Host(HOST);
    const { handover, report } = await handOver(host, []);
    handover[Symbol.dispose]();
    expect(() => handover.nextHost(report)).toThrow(expect.objectContaining({ code: 'KHO_EBUSY' }));
    expect(host.isOver).toBe(false);
  });

  test.each<[string, (report: SuccessorReport) => SuccessorReport, string]>([
    [
      'that tells of a failure',
      (report) => ({ ...report, failures: [{ code: 'KHO_EDRIVER', message: 'boom' }] }),
      'boom',
    ],
    ['that lacks an instance', (report) => ({ ...report, restored: [] }), 'own own0 was not restored'],
    [
      'with another state',
      (report) => ({ ...report, restored: report.restored.map((one) => ({ ...one, digest: 'x' })) }),
      'was restored to another state',
    ],
    [
      'with unclaimed memory',
      (report) => ({ ...report, unclaimed: [{ address: 0x4000, order: 1 }] }),
      'nobody claimed',
    ],
    ['of another kexec', (report) => ({ ...report, kexecCount: 7 }), 'of another handover'],
    [
      'of another root FDT',
      (report) => ({ ...report, bootRecord: { ...report.bootRecord, root: 0x1000 } }),
      'of another handover',
    ],
  ])('has no next host by a report %s, and can still be taken back', async (_what, change, message) => {
    const host = new Host(HOST);
    const free = host.pages.statistics();
    const { handover, report } = await handOver(host, [own({ claim: 1 })]);
    expect(() => handover.nextHost(change(report))).toThrow(
      expect.objectContaining({ code: 'KHO_EINVAL', message: expect.stringContaining(message) }),
    );
    expect(host.isOver).toBe(false);
    handover[Symbol.dispose]();
    expect(host.pages.statistics()).toEqual(free);
  });
});
