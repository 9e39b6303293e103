import { join } from 'node:path';
import fc from 'fast-check';
import {
  Coordinator,
  type CoordinatorOptions,
  type DriverRegistration,
  type Handover,
  Host,
  type HostOptions,
  restoreImage,
  type SuccessorReport,
  WorkerPool,
} from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { PROFILE_NAMES } from '#dist/abi/index.js';
import { PAGE_SIZE } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';
import { builtInDriver } from '../support/drivers.js';
import { temporaryDirectory } from '../support/run.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const HOST: HostOptions = {
  arch: 'x86_64',
  memory: 320 * MIB,
  nodes: 2,
  guestMemory: 80 * MIB,
  cmdline: 'kho=on kho_scratch=16M,16M,8M reserve_mem=300K:4096:trace',
  cpus: 2,
  release: '7.2.0-test',
};
const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

const guest = (size: string, pageSize: '2M' | '1G', count = 1) =>
  builtInDriver('guest-memory', count, { size, pageSize });

function coordinatorOf(host: Host, drivers: readonly DriverRegistration[], options: Partial<CoordinatorOptions> = {}) {
  const coordinator = new Coordinator(host, { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool, ...options });
  for (const driver of drivers) coordinator.register(driver);
  return coordinator;
}

async function restore(handover: Handover): Promise<SuccessorReport> {
  const image = join(temporaryDirectory(), 'ram.img');
  await handover.writeImage(image);
  return await restoreImage({ image, arch: 'x86_64', drivers: handover.modules, unbacked: handover.unbackedMemory });
}

/** Addresses of the preserved guest memory, folio by folio. */
const foliosOf = (handover: Handover): number[] =>
  handover
    .unbacked()
    .flatMap(({ address, order, count }) =>
      Array.from({ length: count }, (_, i) => address + i * 2 ** order * PAGE_SIZE),
    );

const freeGuestPages = (host: Host): number =>
  host.pages.statistics({ backed: false }).reduce((sum, { freePages }) => sum + freePages, 0);

describe('a host with guest memory', () => {
  // Beside the guests' memory there is room for the kernel's image, which ends at 48 MiB, on the first node.
  const shapes = fc
    .record({
      share: fc.integer({ min: 0, max: 60 }),
      nodes: fc.integer({ min: 1, max: 4 }),
      blocks: fc.integer({ min: 160, max: 800 }),
      high: fc.boolean(),
    })
    .map(({ share, nodes, blocks, high }) => ({ share, nodes, memory: blocks * nodes * 2 * MIB, high }));

  test('of any shape has it at the top of its nodes, and nothing else there', () => {
    fc.assert(
      fc.property(shapes, ({ memory: small, nodes, share, high }) => {
        const memory = high ? small + 8 * GIB : small;
        const guestMemory = Math.floor((memory * share) / 100 / (2 * MIB)) * 2 * MIB;
        const cmdline = 'kho=on kho_scratch=8M,8M,8M reserve_mem=1M:4096:trace';
        const host = new Host({ ...HOST, memory, nodes, guestMemory, cmdline });
        const guests = host.memory.ranges.filter(({ backed }) => !backed);
        const shares = Array.from({ length: nodes }, (_, nid) =>
          guests.filter((range) => range.nid === nid).reduce((sum, { size }) => sum + size, 0),
        );
        expect(shares.reduce((sum, size) => sum + size, 0)).toBe(guestMemory);
        const unit = guestMemory >= nodes * GIB ? GIB : 2 * MIB;
        expect(Math.max(...shares) - Math.min(...shares)).toBeLessThan(2 * unit);
        for (const { base, size } of guests) expect([base % (2 * MIB), size % (2 * MIB)]).toEqual([0, 0]);
        expect(freeGuestPages(host)).toBe(guestMemory / PAGE_SIZE);
        // The kernel, scratch and named memory keep away: what lies there is one reservation, of no kernel's.
        const overlaps = (address: number, bytes: number) =>
          guests.some(({ base, size }) => address < base + size && base < address + bytes);
        for (const { address, size } of [...host.scratch.areas, ...host.reserveMem]) {
          expect(overlaps(address, size)).toBe(false);
        }
        for (const { base, size, flags } of host.memblock.reserved.regions) {
          if (flags !== 0) expect(overlaps(base, size)).toBe(false);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('of any shape gives out neither scratch nor guest memory to who needs bytes, to the last page', () => {
    fc.assert(
      fc.property(shapes, ({ memory, nodes, share }) => {
        const guestMemory = Math.floor((memory * share) / 100 / (2 * MIB)) * 2 * MIB;
        const host = new Host({ ...HOST, memory, nodes, guestMemory, cmdline: 'kho=on kho_scratch=8M,8M,8M' });
        const kept = [
          ...host.scratch.areas.map(({ address, size }) => ({ base: address, size })),
          ...host.memory.ranges.filter(({ backed }) => !backed),
        ];
        const total = host.pages.freePages();
        let pages = 0;
        for (let order = 10; order >= 0; order--) {
          const blocks = host.pages.statistics().reduce((sum, { freeBlocks }) => sum + freeBlocks[order], 0);
          for (let block = 0; block < blocks; block++) {
            const address = host.pages.allocPages(order, block % nodes);
            const end = address + 2 ** order * PAGE_SIZE;
            if (kept.some(({ base, size }) => address < base + size && base < end))
              throw new Error(`${address} is kept`);
            pages += 2 ** order;
          }
        }
        expect(pages).toBe(total);
        expect(thrown(() => host.pages.allocPages(0, 0)).code).toBe('KHO_ENOMEM');
        expect(freeGuestPages(host)).toBe(guestMemory / PAGE_SIZE);
      }),
      { numRuns: 40 },
    );
  });

  test.each([
    [{ guestMemory: 3 * MIB }, 'are not a multiple of 2 MiB'],
    [{ guestMemory: -2 * MIB }, 'are not a multiple of 2 MiB'],
    [{ guestMemory: 320 * MIB }, "must be less than the host's memory"],
    [{ guestMemory: 310 * MIB }, 'too few for'],
    [{ guestMemory: 300 * MIB }, 'would take in what is at'],
    [{ guestMemory: Number.NaN }, 'are not a multiple of 2 MiB'],
  ])('with more of it than can be is refused: %o', (options, message) => {
    const error = thrown(() => new Host({ ...HOST, ...options }));
    expect(error.code).toBe('KHO_EINVAL');
    expect(error.message).toContain(message);
    expect(error.details.field).toBe('host.guestMemory');
  });
});

test('a host of 64 TiB with holes hands over folios at its far end', async () => {
  const host = new Host({
    ...HOST,
    memory: 64 * TIB,
    nodes: 8,
    guestMemory: 60 * TIB,
    cmdline: 'kho=on kho_scratch=512M,1G,140G', // a TiB of struct pages must fit into scratch
  });
  const free = freeGuestPages(host);
  await using coordinator = coordinatorOf(host, [guest('16G', '1G', 7), guest('2T', '1G'), builtInDriver('memfd', 8)]);
  {
    using handover = await coordinator.handover();
    const folios = foliosOf(handover);
    expect(folios).toHaveLength(7 * 16 + 2048);
    expect(Math.max(...folios)).toBeGreaterThan(58 * TIB);
    expect(folios.every((address) => address % GIB === 0)).toBe(true);
    const far = handover.ranges().filter(({ address }) => address > 56 * TIB);
    expect(far.length).toBeGreaterThan(0); // a memfd on the last node, with bytes
    expect(handover.unbacked().map(({ count }) => count)).toEqual([...new Array(7).fill(16), 2048]);
    expect(handover.record().tracker.length).toBeLessThan(256);
  }
  expect(freeGuestPages(host)).toBe(free);
}, 120_000);

test.each(PROFILE_NAMES)(
  'guest memory is handed over and claimed in the profile %s',
  async (profile) => {
    const host = new Host(HOST);
    await using coordinator = coordinatorOf(host, [guest('12M', '2M', 3), builtInDriver('memfd', 1, { size: '1M' })], {
      profile,
    });
    using handover = await coordinator.handover();
    expect(foliosOf(handover)).toHaveLength(18);
    const report = await restore(handover);
    expect(report.failures).toEqual([]);
    expect(report.unclaimed).toEqual([]);
    expect(report.restored).toHaveLength(4);
  },
  120_000,
);

test('where guests lie depends neither on mode nor on workers', async () => {
  const seen: unknown[] = [];
  for (const [mode, workers] of [
    ['sequential', 1],
    ['hash', 1],
    ['hash', 2],
    ['subfdt', 2],
  ] as const) {
    await using coordinator = coordinatorOf(new Host(HOST), [guest('16M', '2M', 4)], { mode, workers });
    using handover = await coordinator.handover();
    seen.push(handover.unbacked());
  }
  for (const one of seen.slice(1)) expect(one).toEqual(seen[0]);
  expect(seen[0]).toHaveLength(4);
}, 120_000);

test('a guest keeps its memory from kernel to kernel, and what others discard is free for guests again', async () => {
  let host = new Host(HOST);
  const total = freeGuestPages(host);
  let before: number[] | undefined;
  for (let generation = 0; generation < 3; generation++) {
    await using coordinator = coordinatorOf(host, [guest('12M', '2M', 2)]);
    const handover = await coordinator.handover();
    const folios = foliosOf(handover);
    if (before !== undefined) expect(folios).toEqual(before);
    before = folios;
    host = handover.nextHost(await restore(handover));
    expect(freeGuestPages(host)).toBe(total - (24 * MIB) / PAGE_SIZE);
  }
  // A guest of another size gets other memory: what the old one has is still its own.
  await using coordinator = coordinatorOf(host, [guest('14M', '2M')]);
  using handover = await coordinator.handover();
  expect(foliosOf(handover).filter((address) => before?.includes(address))).toEqual([]);
}, 120_000);

/** A driver with four folios of guest memory, and what it does with them. */
const driverOf = (body: string): DriverRegistration => ({
  module: {
    origin: 'own',
    url: `data:text/javascript,${encodeURIComponent(`export default { name: 'own', compatible: 'own-v1',
      shards: () => [{ guest: { size: ${8 * MIB}, order: 9 } }], create: () => ({}), snapshot: () => 1,
      serialize(ctx) { ctx.root.u64('at', ctx.prepared?.address ?? 0); },
      restore: () => ({}), ${body} }`)}`,
  },
  count: 1,
  options: {},
  after: [],
  priority: 0,
});

test('a driver that fails with guest memory in its hands leaves none of it behind', async () => {
  const host = new Host(HOST);
  const free = host.pages.statistics({ backed: false });
  const driver = driverOf(
    `prepare(ctx) { ctx.preserve(ctx.allocGuest()); ctx.allocGuest(); throw new Error('boom'); }`,
  );
  await using coordinator = coordinatorOf(host, [driver]);
  await expect(coordinator.handover()).rejects.toMatchObject({ message: expect.stringContaining('boom') });
  expect(coordinator.lastRollback?.reclaimed).toEqual([
    { driver: 'own', instance: 'own0', shard: 0, pages: 1024, objects: 1 },
  ]);
  expect(host.pages.statistics({ backed: false })).toEqual(free);
});

test('more folios than were declared are KHO_ENOMEM, naming the shard', async () => {
  const host = new Host(HOST);
  const driver = driverOf('prepare(ctx) { for (;;) ctx.allocGuest(); }');
  await using coordinator = coordinatorOf(host, [driver]);
  await expect(coordinator.handover()).rejects.toMatchObject({
    code: 'KHO_ENOMEM',
    details: { driver: 'own', instance: 'own0', shard: 0, size: 2 * MIB },
  });
});

test('the successor cannot read guest memory, and does not take it for zeros', async () => {
  const host = new Host(HOST);
  const driver = driverOf(
    `prepare(ctx) { const folio = ctx.allocGuest(); ctx.preserve(folio); return folio; },
    restore(ctx) {
      const address = ctx.node.property('at').number64('little');
      ctx.claim({ address, order: 9 });
      return { byte: ctx.memory.read(address, 1) };
    }`.replace('restore: () => ({}),', ''),
  );
  await using coordinator = coordinatorOf(host, [driver]);
  using handover = await coordinator.handover();
  const report = await restore(handover);
  expect(report.failures).toMatchObject([
    { code: 'KHO_EFAULT', driver: 'own', message: expect.stringContaining('unbacked') },
  ]);
});
