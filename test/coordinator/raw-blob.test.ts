import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Coordinator, Host, type HostOptions, type Mode, restoreImage } from 'khorus';
import { describe, expect, test } from 'vitest';
import { temporaryDirectory } from '../support/run.js';

const HOST: HostOptions = {
  arch: 'x86_64',
  memory: 128 * 2 ** 20,
  nodes: 1,
  cmdline: 'kho=on kho_scratch=8M,16M,8M',
  cpus: 2,
  release: '7.2.0-test',
};

const DIGEST = createHash('sha256').update('content').digest('hex');

/** A driver with a raw blob of 100 bytes: 99 in prepare, the last in serialize. */
const rawModule = (body = '') => ({
  origin: 'raw',
  url: `data:text/javascript,${encodeURIComponent(`
    export default { name: 'raw', compatible: 'raw-v1', blob: 'raw',
      shards: () => [{ pages: 2 }],
      create: () => ({ first: 7, last: 9 }),
      prepare(ctx) {
        const page = ctx.allocFolio(0);
        ctx.preserve(page);
        ctx.memory.fill(page.address, 99, ctx.state.first);
        const claimed = ctx.allocFolio(0);
        ctx.preserve(claimed);
        ctx.memory.writeU64(page.address, claimed.address);
        return { blob: { address: page.address, size: 100 } };
      },
      serialize(ctx) { ctx.memory.fill(ctx.prepared.blob.address + 99, 1, ctx.state.last); },
      restore(ctx) {
        const bytes = ctx.memory.read(ctx.blob.address, ctx.blob.size);
        ctx.claim({ address: ctx.memory.readAddress(ctx.blob.address), order: 0 });
        return { first: bytes[8], last: bytes[99] };
      },
      snapshot: (state) => state,
      digests: () => ({ thing: '${DIGEST}' }),
      ${body} };`)}`,
});

function coordinatorOf(host: Host, mode: Mode, body?: string, count = 1): Coordinator {
  return new Coordinator(host, { mode, workers: 1, seed: 1, profile: 'kho-v4' }).register({
    module: rawModule(body),
    count,
    options: {},
    after: [],
    priority: 0,
  });
}

describe.each(['hash', 'sequential'] as const)('a driver with a raw blob, in mode %s', (mode) => {
  test('is handed over under its name, restored, and everything is settled', async () => {
    const image = join(temporaryDirectory(), 'ram.img');
    const coordinator = coordinatorOf(new Host(HOST), mode);
    try {
      const handover = await coordinator.handover();
      await handover.writeImage(image);
      const blob = handover.blob('raw');
      expect([blob?.length, blob?.[8], blob?.[98], blob?.[99]]).toEqual([100, 7, 7, 9]);
      const record = handover.record();
      expect(record.instances).toMatchObject([{ driver: 'raw', name: 'raw', digests: { thing: DIGEST } }]);
      expect(record.drivers[0]).toMatchObject({ nodes: 0, properties: 0, blob: { size: 100 } });
      const report = await restoreImage({ image, arch: 'x86_64', drivers: [rawModule()] });
      expect(report.failures).toEqual([]);
      expect(report.unclaimed).toEqual([]);
      expect(report.restored).toEqual([{ driver: 'raw', name: 'raw', digest: record.instances[0]?.digest }]);
      handover[Symbol.dispose]();
    } finally {
      await coordinator[Symbol.asyncDispose]();
    }
  });

  const faults: [string, string, number, { code: string; message: RegExp }][] = [
    ['without a place for the blob', 'prepare() { return {} },', 1, { code: 'KHO_EINVAL', message: /must return/ }],
    [
      'with a blob that begins inside a page',
      'prepare() { return { blob: { address: 4097, size: 1 } } },',
      1,
      { code: 'KHO_EINVAL', message: /must return/ },
    ],
    ['that writes a node', "serialize(ctx) { ctx.node('x') },", 1, { code: 'KHO_EPERM', message: /has no nodes/ }],
    ['with two instances', '', 2, { code: 'KHO_EINVAL', message: /only one instance/ }],
    ['of an unknown kind', "blob: 'json',", 1, { code: 'KHO_EINVAL', message: /expected 'fdt' or 'raw'/ }],
  ];
  test.each(faults)('%s, is refused and nothing stays taken', async (_what, body, count, error) => {
    const host = new Host(HOST);
    const free = host.pages.freePages();
    const coordinator = coordinatorOf(host, mode, body, count);
    try {
      await expect(coordinator.handover()).rejects.toMatchObject({
        code: error.code,
        message: expect.stringMatching(error.message),
      });
      expect(host.pages.freePages()).toBe(free);
    } finally {
      await coordinator[Symbol.asyncDispose]();
    }
  });

  test('whose successor asks for its node is told that there is none', async () => {
    const directory = temporaryDirectory();
    const image = join(directory, 'ram.img');
    const coordinator = coordinatorOf(new Host(HOST), mode);
    try {
      const handover = await coordinator.handover();
      await handover.writeImage(image);
      expect(existsSync(image)).toBe(true);
      const module = rawModule('restore(ctx) { return ctx.node; },');
      const { failures } = await restoreImage({ image, arch: 'x86_64', drivers: [module] });
      expect(failures).toMatchObject([{ code: 'KHO_EPERM', driver: 'raw', instance: 'raw' }]);
      handover[Symbol.dispose]();
    } finally {
      await coordinator[Symbol.asyncDispose]();
    }
  });
});
