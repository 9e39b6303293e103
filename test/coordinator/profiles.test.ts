import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Coordinator,
  type CoordinatorOptions,
  type Handover,
  Host,
  type HostOptions,
  type ImageReport,
  inspectPath,
  KhoError,
  restoreImage,
  WorkerPool,
} from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { afterAll, describe, expect, test } from 'vitest';
import { PROFILES, SUB_BLOBS_PROFILES } from '#dist/abi/index.js';
import { builtInDriver } from '../support/drivers.js';
import { temporaryDirectory } from '../support/run.js';

const HOST: HostOptions = {
  arch: 'x86_64',
  memory: 256 * 2 ** 20,
  nodes: 2,
  cmdline: 'kho=on kho_scratch=8M,16M,8M reserve_mem=300K:4096:trace',
  cpus: 2,
  release: '7.2.0-test',
};
const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

const DRIVERS: [string, number, unknown][] = [
  ['iommu', 2, {}],
  ['netdevsim', 3, { queues: 4 }],
  ['kvm-vcpu', 2, {}],
  ['memfd', 1, {}],
  ['kho-test', 1, { orders: [3, 0, 1, 0] }],
];

function coordinatorOf(host: Host, options: Partial<CoordinatorOptions>, drivers = DRIVERS): Coordinator {
  const { workers = 2 } = options;
  const plan = {
    mode: 'hash',
    workers,
    seed: 1,
    profile: 'kho-v1',
    ...(workers === 2 && { pool }),
    ...options,
  } as const;
  const coordinator = new Coordinator(host, plan);
  for (const [name, count, own] of drivers) {
    coordinator.register(builtInDriver(name, count, own));
  }
  return coordinator;
}

/** Hands a host over to `use`, and gives everything back. */
async function handedOver<T>(coordinator: Coordinator, use: (handover: Handover) => Promise<T>): Promise<T> {
  try {
    using handover = await coordinator.handover();
    return await use(handover);
  } finally {
    await coordinator[Symbol.asyncDispose]();
  }
}

const OLD = SUB_BLOBS_PROFILES.filter(({ name }) => name !== 'kho-v4').map(
  (profile) => [profile.name, profile] as const,
);

describe.each(OLD)('profile %s', (name, profile) => {
  test('is handed over the same in every mode, and restored by a successor that is told nothing', async () => {
    const directory = temporaryDirectory();
    const seen = new Set<string>();
    const variants = [
      { mode: 'hash', workers: 1 },
      { mode: 'hash', workers: 2 },
      { mode: 'sequential', workers: 1 },
      { mode: 'subfdt', workers: 2 },
    ] as const;
    for (const [index, variant] of variants.entries()) {
      const image = join(directory, `ram-${index}.img`);
      const host = new Host(HOST);
      const free = host.pages.statistics();
      await handedOver(coordinatorOf(host, { profile: name, ...variant }), async (handover) => {
        await handover.writeImage(image);
        const record = handover.record();
        if (variant.mode !== 'subfdt') seen.add(createHash('sha256').update(readFileSync(image)).digest('hex'));
        const report = await restoreImage({ image, arch: 'x86_64', drivers: handover.modules });
        expect([report.profile, report.failures, report.unclaimed]).toEqual([name, [], []]);
        expect(report.preservedObjects).toBe(record.ranges.length);
        const states = ({ driver, name: own, digest }: { driver: string; name: string; digest: string }) =>
          `${driver}/${own} ${digest}`;
        expect(report.restored.map(states).sort()).toEqual(record.instances.map(states).sort());
        expect(report.revived.map((area) => [area.name, area.size])).toEqual([['trace', 300 * 1024]]);
        // Only a profile with raw blobs hands over what the kernel was.
        const { sized } = profile.subtrees;
        expect([report.kexecCount, report.previousRelease]).toEqual(sized ? [1, '7.2.0-test'] : [0, '']);
        const { root } = FdtReader.open(handover.blob('fdt') ?? new Uint8Array(), { strict: true });
        expect(root.property('compatible')?.string()).toBe(profile.compatible);
        expect(root.child('kexec-metadata') !== undefined).toBe(sized);
      });
      expect(host.pages.statistics()).toEqual(free);
    }
    expect(seen.size).toBe(1);
    const report = (await inspectPath(join(directory, 'ram-0.img'))) as ImageReport;
    expect(report.findings).toEqual([]);
    expect(report.root?.profile).toBe(name);
  }, 120_000);

  test('a kernel that speaks another profile alone refuses it', async () => {
    const image = join(temporaryDirectory(), 'ram.img');
    await handedOver(coordinatorOf(new Host(HOST), { profile: name }), async (handover) => {
      await handover.writeImage(image);
      const boot = (as: (typeof PROFILES)[number]['name']) =>
        restoreImage({ image, arch: 'x86_64', drivers: handover.modules, profile: as });
      const own = await boot(name);
      expect(own.failures).toEqual([]);
      for (const other of PROFILES) {
        if (other === profile) continue;
        if (other.compatible === profile.compatible && other.form === profile.form) {
          // The trap of kho-v1: large bitmaps read as small ones are damage only where a blob lacks, else some is just not there.
          const found = await boot(other.name).catch((error: KhoError) => error);
          if (found instanceof KhoError) expect(found.code).toBe('KHO_ETRACKER');
          else expect([name, found.preservedObjects < own.preservedObjects]).toEqual(['kho-v1', true]);
          continue;
        }
        await expect(boot(other.name)).rejects.toMatchObject({ code: 'KHO_EIMAGE' });
      }
    });
  }, 60_000);

  test('no kernel can be loaded for it', () => {
    const build = () => coordinatorOf(new Host(HOST), { profile: name, kexec: { kernel: 'bzImage' } });
    const message = profile.releases === undefined ? 'no released kernel speaks' : 'speak kho-v4 alone';
    expect(build).toThrow(
      expect.objectContaining({ code: 'KHO_EOPNOTSUPP', message: expect.stringContaining(message) }),
    );
  });

  test('LUO is a raw blob: handed over where sizes are, and else refused before anything is taken', async () => {
    const host = new Host(HOST);
    const free = host.pages.statistics();
    const luo: typeof DRIVERS = [['luo', 1, { sessions: [{ name: 'a', memfds: [{ token: 1, size: '4K' }] }] }]];
    const attempt = handedOver(coordinatorOf(host, { profile: name }, luo), async (handover) => handover.record());
    if (profile.subtrees.sized) expect((await attempt).drivers[0]?.name).toBe('LUO');
    else {
      await expect(attempt).rejects.toMatchObject({
        code: 'KHO_EINVAL',
        message: expect.stringContaining(
          `'LUO' hands over luo-v5, a raw blob, and profile ${name} hands over FDTs alone`,
        ),
      });
    }
    expect(host.pages.statistics()).toEqual(free);
  });

  test.each([
    ['no FDT', "'no FDT'.padEnd(64)", 64, /is no FDT, and nothing else tells its size/],
    [
      'an FDT that says another size',
      "'\\xd0\\x0d\\xfe\\xed\\0\\0\\0\\x30'.padEnd(64, '\\0')",
      64,
      /has 64 bytes, and its header says 48/,
    ],
  ])('a raw blob that is %s needs a size beside it, or all is rolled back', async (_what, content, size, message) => {
    const source = `export default { name: 'raw', compatible: 'raw-v1', blob: 'raw', shards: () => [{ pages: 1 }], create: () => 1,
      prepare(ctx) { const folio = ctx.allocFolio(0); ctx.preserve(folio); return { blob: { address: folio.address, size: ${size} } }; },
      serialize(ctx) { ctx.memory.write(ctx.prepared.blob.address, Buffer.from(${content}, 'latin1')); },
      cancel(ctx) { ctx.unpreserve({ address: ctx.prepared.blob.address, order: 0 }); ctx.free({ address: ctx.prepared.blob.address, order: 0 }); },
      restore: () => 1, snapshot: () => 1 };`;
    const host = new Host(HOST);
    const free = host.pages.statistics();
    const coordinator = coordinatorOf(host, { profile: name }, []);
    const module = { url: `data:text/javascript,${encodeURIComponent(source)}`, origin: 'raw' };
    coordinator.register({ module, count: 1, options: {}, after: [], priority: 0 });
    const attempt = handedOver(coordinator, async (handover) => handover.blob('raw')?.length);
    if (profile.subtrees.sized) expect(await attempt).toBe(size);
    else {
      await expect(attempt).rejects.toMatchObject({
        code: 'KHO_EINVAL',
        message: expect.stringMatching(message),
        details: { driver: 'raw', phase: 'finalize' },
      });
    }
    expect(host.pages.statistics()).toEqual(free);
  });
});
