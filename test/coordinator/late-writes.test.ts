import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import {
  Coordinator,
  type CoordinatorOptions,
  type Handover,
  Host,
  type KhoError,
  restoreImage,
  WorkerPool,
} from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';
import { temporaryDirectory } from '../support/run.js';

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

/**
 * A device of two shards on the driver's own thread: five pages, the first four preserved. It writes a byte where the test
 * tells it to, at any time: [offset + 1, or 0 for nothing, times done, errors KHO_EPERM].
 */
const DEVICE = `
  create: () => ({}),
  prepare(ctx) {
    const range = ctx.alloc(5);
    ctx.preserve({ address: range.address, pages: 4 });
    ctx.memory.fill(range.address, 5 * 4096, 0x11);
    const window = ctx.dma({ address: range.address, pages: 8 });
    const words = new Int32Array(ctx.options.device);
    clearInterval(globalThis.deviceTimer); // that of an earlier run on this thread
    ctx.state.timer = globalThis.deviceTimer = setInterval(() => {
      const command = Atomics.exchange(words, 0, 0);
      if (command === 0) return;
      try { window.write(command - 1, Uint8Array.of(0xbb)); }
      catch (error) { if (error.code === 'KHO_EPERM') Atomics.add(words, 2, 1); }
      Atomics.add(words, 1, 1);
    }, 1);
    ctx.state.window = window;
    return range;
  },
`;

class Device {
  readonly buffer = new SharedArrayBuffer(12);
  readonly #words = new Int32Array(this.buffer);

  get refused(): number {
    return Atomics.load(this.#words, 2);
  }

  /** Makes the device write a byte at an offset of its pages, now. */
  async write(offset: number): Promise<void> {
    const done = Atomics.load(this.#words, 1);
    Atomics.store(this.#words, 0, offset + 1);
    for (let tries = 0; Atomics.load(this.#words, 1) === done; tries++) {
      if (tries > 10_000) throw new Error('the device does not answer');
      await setTimeout(1);
    }
  }
}

interface Setup {
  readonly host: Host;
  readonly device: Device;
  readonly coordinator: Coordinator;
}

function setup(body = '', options: Partial<CoordinatorOptions> = {}, hosted = true): Setup {
  const host = new Host(SMALL_HOST);
  const device = new Device();
  const plan = { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool } as const;
  const coordinator = new Coordinator(host, { ...plan, ...options });
  const common = { count: 2, priority: 0, after: [] };
  coordinator.register({ ...common, module: driverModule('quiet'), options: { log: new SharedLog().buffer } });
  coordinator.register({
    ...common,
    count: 1,
    module: driverModule('nic', `${DEVICE}${body}`, { hosted }),
    options: { log: new SharedLog().buffer, device: device.buffer },
  });
  return { host, device, coordinator };
}

async function failureOf(work: Promise<unknown>): Promise<KhoError> {
  return (await work.then(
    () => expect.unreachable('it must fail'),
    (error: unknown) => error,
  )) as KhoError;
}

const CALLS = ['prepare', 'freeze', 'serialize', 'finalize'] as const;

describe.each(['hash', 'subfdt'] as const)('in mode %s', (mode) => {
  test.each(['freeze', 'serialize', 'finalize'] as const)(
    'a device that writes after %s is found at the jump, and all is rolled back',
    async (last) => {
      const { host, device, coordinator } = setup('', { mode });
      const free = host.pages.freePages;
      for (const call of CALLS) {
        await coordinator[call]();
        if (call === last) await device.write(4096 + 3 * 64 + 7);
      }
      const error = await failureOf(coordinator.jump());
      expect(error).toMatchObject({
        code: 'KHO_EDIGEST',
        details: { driver: 'nic', instance: 'nic0', shard: 0, phase: 'jump', offset: 192 },
      });
      const { address = 0 } = error.details;
      expect(address % 4096).toBe(0);
      expect(error.message).toBe(
        `nic nic0 wrote to the page at 0x${address.toString(16)}, at offset 0xc0, after it was frozen`,
      );
      expect([coordinator.state, host.pages.freePages]).toEqual(['normal', free]);
      // The run is over: the device, whose thread lives on, cannot reach its pages any more.
      await device.write(0);
      expect(device.refused).toBe(1);
      (await coordinator.handover())[Symbol.dispose]();
      await coordinator[Symbol.asyncDispose]();
    },
  );
});

test('a device that stops in freeze is found nowhere', async () => {
  const { device, coordinator } = setup('freeze({ state }) { clearInterval(state.timer); },');
  await coordinator.prepare();
  await device.write(100);
  await device.write(9000);
  for (const call of ['freeze', 'serialize', 'finalize'] as const) await coordinator[call]();
  using handover = await coordinator.jump();
  expect(handover.record().lateWrites).toEqual({ policy: 'cancel', found: [] });
  await coordinator[Symbol.asyncDispose]();
});

test('what the driver itself writes in serialize is no late write: to old pages, to new ones, to those of another shard', async () => {
  const serialize = `serialize(ctx, shard) {
    const { address } = ctx.prepared;
    ctx.root.u32('of-' + shard, shard);
    ctx.memory.write(address + 30 + shard, Uint8Array.of(shard + 1)); // one line, from two threads
    ctx.memory.writeU64(address + 4096 + 60 + 8 * shard, 7n);
    ctx.memory.fill(address + 2 * 4096 + 100 * shard, 90, 5);
    const gone = ctx.alloc(1);
    ctx.memory.fill(gone.address, 4096, 1);
    ctx.free(gone);
    const kept = ctx.alloc(2);
    ctx.preserve(kept);
    ctx.memory.fill(kept.address + 4090, 12, 2);
  },`;
  for (const hosted of [true, false]) {
    const body = hosted
      ? serialize
      : `${serialize} prepare(ctx) {
      const range = ctx.alloc(5);
      ctx.preserve({ address: range.address, pages: 4 });
      return range;
    },`;
    const { coordinator } = setup(body, {}, hosted);
    using handover = await coordinator.handover();
    expect(handover.record().lateWrites?.found, `hosted: ${hosted}`).toEqual([]);
    await coordinator[Symbol.asyncDispose]();
  }
});

test('a write by right does not cover up a late one', async () => {
  const { device, coordinator } = setup('serialize(ctx, shard) { ctx.memory.fill(ctx.prepared.address, 8192, 3); },');
  await coordinator.prepare();
  await coordinator.freeze();
  await device.write(4096 + 1000);
  await coordinator.serialize();
  await coordinator.finalize();
  expect(await failureOf(coordinator.jump())).toMatchObject({ code: 'KHO_EDIGEST', details: { offset: 960 } });
  await coordinator[Symbol.asyncDispose]();
});

test('a page allocated in serialize is watched from its end on', async () => {
  const serialize =
    "serialize(ctx, shard) { if (shard === 0) ctx.preserve(ctx.alloc(1)); ctx.root.u32('n' + shard, 1); },";
  const { device, coordinator } = setup(serialize);
  for (const call of CALLS) await coordinator[call]();
  await device.write(5 * 4096 + 4095); // the first one behind those of prepare
  expect(await failureOf(coordinator.jump())).toMatchObject({ code: 'KHO_EDIGEST', details: { offset: 4032 } });
  await coordinator[Symbol.asyncDispose]();
});

test('a page that is not handed over may change', async () => {
  const { device, coordinator } = setup();
  for (const call of CALLS) await coordinator[call]();
  await device.write(4 * 4096);
  using handover = await coordinator.jump();
  expect(handover.record().lateWrites?.found).toEqual([]);
  await coordinator[Symbol.asyncDispose]();
});

test('several pages are one failure that counts them', async () => {
  const { device, coordinator } = setup();
  for (const call of CALLS) await coordinator[call]();
  for (const page of [3, 1, 2]) await device.write(page * 4096);
  expect((await failureOf(coordinator.jump())).message).toContain('after it was frozen, and 2 more pages changed');
  await coordinator[Symbol.asyncDispose]();
});

test('with policy report it goes on, each page is told once, and only news are the successor’s', async () => {
  const { device, coordinator } = setup('', { lateWrites: 'report' });
  for (const call of CALLS) await coordinator[call]();
  await device.write(2 * 4096 + 64);
  using handover = await coordinator.jump();
  const { lateWrites } = handover.record();
  const found = { found: 'jump', driver: 'nic', instance: 'nic0', shard: 0, offset: 64 };
  expect(lateWrites).toEqual({ policy: 'report', found: [{ ...found, address: expect.any(Number) }] });
  expect((await successor(handover)).lateWrites).toBeUndefined();
  await device.write(4096);
  const report = await successor(handover, 'report');
  const address = (lateWrites?.found[0]?.address ?? 0) - 4096;
  expect(report.lateWrites).toEqual([{ ...found, found: 'successor', address, offset: 0 }]);
  expect(report.failures.filter(({ code }) => code === 'KHO_EDIGEST')).toEqual([]);
  await coordinator[Symbol.asyncDispose]();
});

test('a write after the jump is found in the successor, by page and offset; without the digests nobody looks', async () => {
  const { device, coordinator } = setup();
  for (const call of CALLS) await coordinator[call]();
  using handover = await coordinator.jump();
  expect((await successor(handover)).failures.filter(({ code }) => code === 'KHO_EDIGEST')).toEqual([]);
  await device.write(3 * 4096 + 130);
  const report = await successor(handover);
  const [late, ...others] = report.failures.filter(({ code }) => code === 'KHO_EDIGEST');
  expect(others).toEqual([]);
  expect(late).toMatchObject({ driver: 'nic', instance: 'nic0', offset: 128 });
  expect(late?.message).toMatch(/^nic nic0 wrote to the page at 0x[0-9a-f]+, at offset 0x80, after the jump$/);
  const blind = await successor(handover, 'blind');
  expect([blind.lateWrites, blind.failures.filter(({ code }) => code === 'KHO_EDIGEST')]).toEqual([undefined, []]);
  handover[Symbol.dispose]();
  await device.write(0);
  expect(device.refused).toBe(1);
  await coordinator[Symbol.asyncDispose]();
});

/** What a successor says of a handover as it is in memory now. */
async function successor(handover: Handover, policy: 'cancel' | 'report' | 'blind' = 'cancel') {
  const directory = temporaryDirectory();
  const image = join(directory, 'ram.img');
  const file = join(directory, 'frozen');
  await handover.writeImage(image);
  const frozen = policy !== 'blind' && (await handover.writeFrozenDigests(file)) && { file, policy };
  return await restoreImage({ image, arch: 'x86_64', drivers: handover.modules, ...(frozen && { frozen }) });
}

test('switched off, nobody looks', async () => {
  const { device, coordinator } = setup('', { lateWrites: 'off' });
  for (const call of CALLS) await coordinator[call]();
  await device.write(0);
  using handover = await coordinator.jump();
  expect(handover.record().lateWrites).toBeUndefined();
  expect(await handover.writeFrozenDigests(join(temporaryDirectory(), 'frozen'))).toBe(false);
  await coordinator[Symbol.asyncDispose]();
});

test('what is frozen early is watched from then on, until it is unfrozen', async () => {
  const { device, coordinator } = setup();
  await coordinator.prepare();
  await coordinator.freezeEarly(['nic']);
  await coordinator.unfreeze(['nic']);
  await device.write(0);
  await coordinator.freezeEarly(['nic']);
  for (const call of ['freeze', 'serialize', 'finalize'] as const) await coordinator[call]();
  (await coordinator.jump())[Symbol.dispose]();

  await coordinator.prepare();
  await coordinator.freezeEarly(['nic']);
  await device.write(0);
  for (const call of ['freeze', 'serialize', 'finalize'] as const) await coordinator[call]();
  expect(await failureOf(coordinator.jump())).toMatchObject({ code: 'KHO_EDIGEST', details: { offset: 0 } });
  await coordinator[Symbol.asyncDispose]();
});

test('serialization during shutdown is watched, too', async () => {
  const { device, coordinator } = setup('', { trigger: 'shutdown' });
  await coordinator.prepare();
  await coordinator.shutdown();
  await device.write(70);
  await coordinator.finalize();
  expect(await failureOf(coordinator.jump())).toMatchObject({ code: 'KHO_EDIGEST', details: { offset: 64 } });
  await coordinator[Symbol.asyncDispose]();
});

describe('a DMA window', () => {
  const cases: [what: string, body: string, hosted: boolean, code: string][] = [
    ['of a driver that is not hosted', 'prepare(ctx) { ctx.dma(ctx.alloc(1)); },', false, 'KHO_EPERM'],
    ['on pages of somebody else', 'prepare(ctx) { ctx.dma({ address: 4096, pages: 1 }); },', true, 'KHO_EPERM'],
    ['on no pages', 'prepare(ctx) { ctx.dma({ address: ctx.alloc(1).address, pages: 0 }); },', true, 'KHO_EPERM'],
    ['on more pages than there are', 'prepare(ctx) { ctx.dma({ ...ctx.alloc(1), pages: 9 }); },', true, 'KHO_EPERM'],
    ['asked for in freeze', 'freeze(ctx) { ctx.dma(ctx.prepared); },', true, 'KHO_EPERM'],
    ['written beyond its end', 'prepare(ctx) { ctx.dma(ctx.alloc(1)).fill(4095, 2, 1); },', true, 'KHO_EINVAL'],
    [
      'written before its start',
      'prepare(ctx) { ctx.dma(ctx.alloc(1)).write(-1, new Uint8Array(2)); },',
      true,
      'KHO_EINVAL',
    ],
  ];
  test.each(cases)('%s is refused', async (_what, body, hosted, code) => {
    const { coordinator } = setup(body, {}, hosted);
    expect(await failureOf(coordinator.handover())).toMatchObject({ code, details: { driver: 'nic' } });
    await coordinator[Symbol.asyncDispose]();
  });

  test('may be on a folio, and its bytes are handed over', async () => {
    const body = `prepare(ctx) {
      const folio = ctx.allocFolio(1);
      ctx.preserve(folio);
      ctx.dma(folio).fill(4000, 200, 9);
      return folio;
    },`;
    const { host, coordinator } = setup(body);
    using handover = await coordinator.handover();
    const range = handover.ranges().find(({ owner }) => owner.name === 'nic');
    expect(range?.order).toBe(1);
    const bytes = host.memory.read(range?.address as never, 8192);
    expect([bytes[3999], bytes[4000], bytes[4199], bytes[4200]]).toEqual([0, 9, 9, 0]);
    await coordinator[Symbol.asyncDispose]();
  });
});
