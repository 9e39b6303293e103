import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Coordinator,
  type CoordinatorOptions,
  type Handover,
  Host,
  type HostOptions,
  type KexecPlan,
  restoreImage,
  WorkerPool,
} from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { afterAll, describe, expect, test } from 'vitest';
import { memRanges, readOneFdt } from '#dist/abi/index.js';
import { ImageMemory, PAGE_SIZE, physicalAddress } from '#dist/memblock/index.js';
import { builtInDriver } from '../support/drivers.js';
import { temporaryDirectory } from '../support/run.js';

const HOST: HostOptions = {
  arch: 'x86_64',
  memory: 256 * 2 ** 20,
  nodes: 2,
  cmdline: 'kho=on kho_scratch=8M,16M,8M reserve_mem=300K:4096:trace reserve_mem=5000:64:odd',
  cpus: 2,
  release: '7.2.0-test',
};
/** The scratch of the host has no room for the 10 MiB that the series give the FDT. */
const ROOM = 2 ** 20;
const SERIES = ['series-v4', 'series-v5'] as const;
const pools = new Map([1, 2, 4].map((threads) => [threads, new WorkerPool({ threads })]));
afterAll(() => Promise.all([...pools.values()].map((pool) => pool[Symbol.asyncDispose]())));

const DRIVERS: [string, number, unknown][] = [
  ['iommu', 2, {}],
  ['netdevsim', 3, { queues: 4 }],
  ['kvm-vcpu', 2, {}],
  ['memfd', 1, {}],
  ['ftrace', 1, {}],
];

/** A driver that counts its cancels in a shared buffer; `body` replaces its callbacks. */
function moduleOf(body: string, name = 'tested'): { url: string; origin: string } {
  const source = `export default { name: '${name}', compatible: '${name}-v1', shards: () => [{ pages: 8 }, { pages: 4 }],
    create: () => ({}), restore: () => ({}), snapshot: () => 1,
    serialize(ctx, shard) { ctx.root.u32('of-' + shard, shard); },
    cancel(ctx) { Atomics.add(new Int32Array(ctx.options.log), 0, 1); },
    ${body} };`;
  return { url: `data:text/javascript,${encodeURIComponent(source)}`, origin: name };
}

function coordinatorOf(host: Host, options: Partial<CoordinatorOptions>): Coordinator {
  const { workers = 2 } = options;
  const pool = pools.get(workers);
  return new Coordinator(host, {
    mode: 'hash',
    workers,
    seed: 1,
    profile: 'series-v5',
    fdtMax: ROOM,
    ...(pool && { pool }),
    ...options,
  });
}

function register(coordinator: Coordinator): Coordinator {
  for (const [name, count, options] of DRIVERS) {
    coordinator.register(builtInDriver(name, count, options));
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

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe.each(SERIES)('profile %s', (profile) => {
  test('all drivers are handed over in one FDT, the same in every mode, and restored from it', async () => {
    const directory = temporaryDirectory();
    const seen = new Set<string>();
    const variants = [
      { mode: 'hash', workers: 1 },
      { mode: 'hash', workers: 2 },
      { mode: 'hash', workers: 4 },
      { mode: 'sequential', workers: 1 },
    ] as const;
    for (const [index, variant] of variants.entries()) {
      const image = join(directory, `ram-${index}.img`);
      const coordinator = register(coordinatorOf(new Host(HOST), { profile, ...variant }));
      await handedOver(coordinator, async (handover) => {
        await handover.writeImage(image);
        const blob = handover.blob('fdt') ?? new Uint8Array();
        seen.add(`${sha256(blob)} ${sha256(readFileSync(image))}`);
        const fdt = readOneFdt(FdtReader.open(blob, { strict: true }));
        expect(fdt.profile.name).toBe(profile);
        expect(fdt.drivers.map(({ name }) => name)).toEqual(DRIVERS.map(([name]) => name));
        const record = handover.record();
        const report = await restoreImage({ image, arch: 'x86_64', drivers: handover.modules });
        expect([report.profile, report.failures, report.unclaimed]).toEqual([profile, [], []]);
        const states = ({ driver, name, digest }: { driver: string; name: string; digest: string }) =>
          `${driver}/${name} ${digest}`;
        expect(report.restored.map(states).sort()).toEqual(record.instances.map(states).sort());
        expect(report.revived.map(({ name, size }) => [name, size])).toEqual([
          ['trace', 300 * 1024],
          ['odd', 5000],
        ]);
        expect(report.preservedObjects).toBe(record.ranges.length);
        expect(record.drivers.map(({ blob: part }) => part.size).every((size) => size > 0)).toBe(true);
      });
    }
    expect(seen.size).toBe(1);
  }, 60_000);

  test('the boot record says how large the FDT is, and it lies in scratch', async () => {
    const image = join(temporaryDirectory(), 'ram.img');
    const host = new Host(HOST);
    await handedOver(register(coordinatorOf(host, { profile })), async (handover) => {
      await handover.writeImage(image);
      const { root, fdtMax } = handover.record();
      expect(fdtMax).toBe(ROOM);
      const memory = ImageMemory.open(image);
      try {
        const record = host.arch.findBootRecord(memory);
        // The series v4 gives the FDT's own size, v5 that of the segment in which it was made.
        expect([record.root, record.rootSize]).toEqual([root.address, profile === 'series-v4' ? root.size : ROOM]);
      } finally {
        memory.close();
      }
      const area = host.scratch.areas.find(
        ({ address, size }) => root.address >= address && root.address < address + size,
      );
      expect(area).toBeDefined();
    });
  });

  test('the room may shrink to the last page that the FDT needs; one page less rolls back, naming it', async () => {
    const host = new Host(HOST);
    const free = host.pages.statistics();
    const needed = await handedOver(register(coordinatorOf(host, { profile })), async (handover) =>
      Math.ceil(handover.record().root.size / PAGE_SIZE),
    );
    expect(host.pages.statistics()).toEqual(free);
    for (const mode of ['hash', 'sequential'] as const) {
      for (const pages of [needed, needed - 1, Math.ceil(needed / 2), 1]) {
        const coordinator = register(coordinatorOf(host, { profile, mode, fdtMax: pages * PAGE_SIZE }));
        const attempt = handedOver(coordinator, async (handover) => handover.record().root.size);
        if (pages === needed) {
          expect(await attempt).toBeGreaterThan((needed - 1) * PAGE_SIZE);
          continue;
        }
        const option = profile === 'series-v4' ? 'dt_max' : 'fdt_max';
        await expect(attempt).rejects.toMatchObject({
          code: 'KHO_ENOSPC',
          message: expect.stringContaining(`does not fit into its room, ${option} = ${pages * PAGE_SIZE} bytes`),
          details: { phase: 'finalize' },
        });
        expect(host.pages.statistics()).toEqual(free);
      }
    }
  }, 60_000);

  test('drivers are cancelled when the FDT does not fit, and the next handover comes about', async () => {
    const host = new Host(HOST);
    const log = new SharedArrayBuffer(4);
    const module = moduleOf(
      "serialize(ctx) { ctx.root.bytes('large', new Uint8Array(6000)); }, shards: () => [{ maxBytes: 9000 }],",
    );
    const coordinator = coordinatorOf(host, { profile, fdtMax: PAGE_SIZE });
    coordinator.register({ module, count: 2, options: { log }, after: [], priority: 0 });
    await expect(coordinator.handover()).rejects.toMatchObject({ code: 'KHO_ENOSPC' });
    expect(new Int32Array(log)[0]).toBe(2);
    coordinator.fdtMax = 4 * PAGE_SIZE;
    await handedOver(coordinator, async (handover) => expect(handover.record().root.size).toBeGreaterThan(12_000));
  });

  test('the room is set before the FDT is made, and after it is gone', async () => {
    const coordinator = register(coordinatorOf(new Host(HOST), { profile }));
    coordinator.fdtMax = 2 * ROOM;
    const busy = expect.objectContaining({ code: 'KHO_EBUSY' });
    const set = () => {
      coordinator.fdtMax = ROOM;
    };
    const pending = coordinator.handover();
    expect(set).toThrow(busy);
    const handover = await pending;
    expect(set).toThrow(busy);
    handover[Symbol.dispose]();
    set();
    expect(coordinator.fdtMax).toBe(ROOM);
    for (const bytes of [0, 4095, 4097, 2 ** 28 + 4096, Number.NaN]) {
      expect(() => {
        coordinator.fdtMax = bytes;
      }).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
    }
    await coordinator[Symbol.asyncDispose]();
  });

  test('room that scratch does not have is an error of kexec, with nothing taken', async () => {
    const host = new Host(HOST);
    const free = host.pages.statistics();
    const attempt = handedOver(register(coordinatorOf(host, { profile, fdtMax: 17 * 2 ** 20 })), async () => {});
    await expect(attempt).rejects.toMatchObject({
      code: 'KHO_EADDRNOTAVAIL',
      message: expect.stringContaining("the FDT's room needs 17"),
    });
    expect(host.pages.statistics()).toEqual(free);
  });

  const core = profile === 'series-v4' ? 'reserve_mem' : 'memblock';
  const refused: [string, ReturnType<typeof moduleOf>, object][] = [
    [
      'with a raw blob',
      moduleOf("blob: 'raw', prepare: () => ({ blob: { address: 4096, size: 1 } }),"),
      {
        code: 'KHO_EINVAL',
        message: `the driver 'tested' has a raw blob, and profile ${profile} has all drivers as nodes of one FDT`,
      },
    ],
    ["with the name of the core's node", moduleOf('', core), { code: 'KHO_EEXIST', details: { driver: core } }],
  ];
  test.each(refused)('a driver %s is refused before anything is taken', async (_what, module, error) => {
    const host = new Host(HOST);
    const free = host.pages.statistics();
    const coordinator = coordinatorOf(host, { profile });
    const log = new SharedArrayBuffer(4);
    coordinator.register({ module, count: 1, options: { log }, after: [], priority: 0 });
    await expect(handedOver(coordinator, async () => {})).rejects.toMatchObject(error);
    expect(host.pages.statistics()).toEqual(free);
  });

  test.each(['hash', 'sequential'] as const)('a driver with a property mem of its own, in mode %s', async (mode) => {
    const coordinator = coordinatorOf(new Host(HOST), { profile, mode });
    const module = moduleOf("serialize(ctx, shard) { if (shard === 1) ctx.node('deep').u32('mem', 1); },");
    coordinator.register({ module, count: 1, options: { log: new SharedArrayBuffer(4) }, after: [], priority: 0 });
    const attempt = handedOver(coordinator, async (handover) => handover.record().drivers[0]?.nodes);
    // In series v4 the next kernel would take it for a list of preserved memory, wherever it stands.
    if (profile === 'series-v4') {
      await expect(attempt).rejects.toMatchObject({
        code: 'KHO_EEXIST',
        details: { driver: 'tested', property: 'mem', phase: 'finalize' },
      });
    } else {
      expect(await attempt).toBe(3);
    }
  });

  test('a kernel to load is refused: none speaks it', () => {
    const kexec: KexecPlan = { kernel: 'bzImage' };
    expect(() => coordinatorOf(new Host(HOST), { profile, kexec })).toThrow(
      expect.objectContaining({ code: 'KHO_EOPNOTSUPP' }),
    );
  });
});

test('series v4 lists what each instance preserved, object by object, in its own node', async () => {
  const module = moduleOf(`prepare(ctx) { const range = ctx.alloc(3); ctx.preserve(range); return range.address; },
    serialize(ctx, shard) {
      if (shard === 1) { const folio = ctx.allocFolio(1); ctx.preserve(folio); ctx.root.u64('folio', BigInt(folio.address)); }
      else ctx.root.u64('range', BigInt(ctx.prepared));
    },`);
  const coordinator = coordinatorOf(new Host(HOST), { profile: 'series-v4' });
  coordinator.register({ module, count: 2, options: { log: new SharedArrayBuffer(4) }, after: [], priority: 0 });
  await handedOver(coordinator, async (handover) => {
    const { reader, mem } = readOneFdt(FdtReader.open(handover.blob('fdt') ?? new Uint8Array()));
    for (const instance of ['tested0', 'tested1']) {
      const node = reader.root.get(`/tested/${instance}`);
      const range = node.property('range')?.number64('little') ?? 0;
      const folio = node.property('folio')?.number64('little') ?? 0;
      // Three pages from an even frame on: one of two pages, and one.
      const expected = [
        { address: range, size: 2 * PAGE_SIZE },
        { address: range + 2 * PAGE_SIZE, size: PAGE_SIZE },
        { address: folio, size: 2 * PAGE_SIZE },
      ].sort((a, b) => a.address - b.address);
      const found = mem.filter(({ path }) => path === `/tested/${instance}`).flatMap(memRanges);
      expect(found).toEqual(expected);
    }
  });
});

describe('a successor', () => {
  /** An image whose FDT, at `root`, may be damaged. */
  async function damaged(
    profile: (typeof SERIES)[number],
    damage: (memory: ImageMemory, root: number) => [address: number, bytes: Uint8Array],
  ) {
    const image = join(temporaryDirectory(), 'ram.img');
    return handedOver(register(coordinatorOf(new Host(HOST), { profile })), async (handover) => {
      await handover.writeImage(image);
      const memory = ImageMemory.open(image);
      const [address, bytes] = damage(memory, handover.record().root.address);
      memory.close();
      const { openSync, writeSync, closeSync } = await import('node:fs');
      const file = openSync(image, 'r+');
      writeSync(file, bytes, 0, bytes.length, address);
      closeSync(file);
      return restoreImage({ image, arch: 'x86_64', drivers: handover.modules });
    });
  }
  const valueAt = (memory: ImageMemory, root: number, path: string, name: string): number => {
    const reader = FdtReader.open(memory.read(physicalAddress(root), ROOM));
    const property = reader.root.get(path).property(name);
    return root + (property?.offset ?? 0) + 12;
  };
  const u64 = (value: number) => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);

  test('refuses a chunk with too many elements', async () => {
    const attempt = damaged('series-v5', (memory, root) => {
      const chunk = memory.readU64Number(physicalAddress(valueAt(memory, root, '/preserved-memory', 'metadata')));
      return [chunk + 12, Uint8Array.of(0, 1, 0, 0)];
    });
    await expect(attempt).rejects.toMatchObject({
      code: 'KHO_ETRACKER',
      message: expect.stringContaining('256 elements'),
    });
  });

  test('refuses a first chunk inside of a page', async () => {
    const attempt = damaged('series-v5', (memory, root) => [
      valueAt(memory, root, '/preserved-memory', 'metadata'),
      u64(0x1008),
    ]);
    await expect(attempt).rejects.toMatchObject({ code: 'KHO_EIMAGE', message: expect.stringContaining('0x1008') });
  });

  test('refuses a range of preserved memory that overlaps another', async () => {
    const attempt = damaged('series-v4', (memory, root) => {
      const first = valueAt(memory, root, '/iommu/iommu0', 'mem');
      return [valueAt(memory, root, '/iommu/iommu1', 'mem'), memory.read(physicalAddress(first), 16)];
    });
    await expect(attempt).rejects.toMatchObject({ code: 'KHO_ETRACKER', message: expect.stringContaining('overlap') });
  });

  test('does not take over a reservation of another size', async () => {
    const report = await damaged('series-v4', (memory, root) => [
      valueAt(memory, root, '/reserve_mem/trace', 'mem') + 8,
      u64(299 * 1024),
    ]);
    expect(report.failures).toMatchObject([
      { code: 'KHO_EIMAGE', message: expect.stringContaining("'trace' is not revived") },
    ]);
  });

  test('restores the rest where it knows no driver for a node', async () => {
    const image = join(temporaryDirectory(), 'ram.img');
    await handedOver(register(coordinatorOf(new Host(HOST), { profile: 'series-v5' })), async (handover) => {
      await handover.writeImage(image);
      const drivers = handover.modules.filter(({ origin }) => origin !== 'memfd');
      const { failures, restored, unclaimed } = await restoreImage({ image, arch: 'x86_64', drivers });
      expect(failures).toMatchObject([{ code: 'KHO_ENOENT', driver: 'memfd' }]);
      expect(new Set(restored.map(({ driver }) => driver)).size).toBe(DRIVERS.length - 1);
      expect(unclaimed.length).toBeGreaterThan(0);
    });
  });
});

test('a profile without one FDT has no room to set', () => {
  const invalid = expect.objectContaining({ code: 'KHO_EINVAL', details: { field: 'fdtMax' } });
  expect(() => coordinatorOf(new Host(HOST), { profile: 'kho-v4' })).toThrow(invalid);
});
