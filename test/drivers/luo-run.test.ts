import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Coordinator, Host, type Mode, restoreImage } from 'khorus';
import { describe, expect, test } from 'vitest';
import { readLuo } from '#dist/abi/index.js';
import { BUILTIN_DRIVERS } from '#dist/drivers/builtin.js';
import { ImageMemory } from '#dist/memblock/index.js';
import { khorus, temporaryDirectory } from '../support/run.js';

const SCENARIO = `
host: { memory: 256M, nodes: 2, cmdline: "kho=on kho_scratch=16M,32M,16M reserve_mem=64K:4096:trace" }
seed: 11
drivers:
  - { use: kho-test, options: { size: 3M } }
  - { use: netdevsim, count: 2 }
  - use: luo
    options:
      testFlbs: true
      sessions:
        - { name: vm, count: 55, memfds: 2, size: 9000, holes: 2 }
        - { name: big, memfds: [{ token: "0xFEEDF00DCAFEBEE0", size: 6M, order: 9, seals: [shrink], pos: 77 }] }
        - { name: many, memfds: 70, size: 0 }
        - { name: none, memfds: 0 }
`;

describe('khorus run with luo and kho-test', () => {
  const modes: [Mode, number][] = [
    ['hash', 1],
    ['hash', 2],
    ['sequential', 1],
    ['sequential', 2],
  ];
  test('hands over the same bytes in each mode with each number of workers, and all is restored and claimed', async () => {
    const directory = temporaryDirectory();
    const images: Buffer[] = [];
    for (const [mode, workers] of modes) {
      const out = join(directory, `${mode}-${workers}`);
      const args = ['run', '-', '--mode', mode, '--workers', String(workers), '--json', '--out', out];
      const { code, stdout, stderr } = await khorus(args, { input: SCENARIO });
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const record = JSON.parse(stdout);
      expect(record).toMatchObject({ outcome: 'handed-over', drivers: { total: 3, restored: 3 } });
      const { instances } = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8'));
      const { digests } = instances.find(({ driver }: { driver: string }) => driver === 'LUO');
      expect(Object.keys(digests)).toHaveLength(2 * 55 + 1 + 70);
      images.push(readFileSync(join(out, 'ram.img')));
    }
    const { code, stderr } = await khorus(['verify', join(directory, 'hash-2')]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const image of images.slice(1)) expect(images[0]?.equals(image)).toBe(true);
  }, 300_000);
});

const HOST = {
  arch: 'x86_64',
  memory: 256 * 2 ** 20,
  nodes: 1,
  cmdline: 'kho=on kho_scratch=16M,32M,16M',
  cpus: 2,
  release: '7.2.0-test',
} as const;

const builtin = (name: string, options: unknown) => ({
  module: { origin: name, url: BUILTIN_DRIVERS.get(name) ?? '' },
  count: 1,
  options,
  after: [],
  priority: 0,
});

/** Fails after luo and kho-test went through all of the blackout but the end. */
const failing = {
  module: {
    origin: 'failing',
    url: `data:text/javascript,${encodeURIComponent(`
      export default { name: 'failing', compatible: 'failing-v1', create: () => ({}), restore: () => ({}), snapshot: () => 0,
        serialize() { throw new Error('as it was told to'); } };`)}`,
  },
  count: 1,
  options: {},
  after: [],
  priority: -1,
};
const LUO = builtin('luo', { sessions: 3, memfds: 3, size: '1M', order: 4, holes: 3 });
const KHO_TEST = builtin('kho-test', { orders: [10, 0, 3] });

describe.each(['hash', 'sequential'] as const)('a coordinator with luo and kho-test, in mode %s', (mode) => {
  const plan = { mode, workers: 2, seed: 1, profile: 'kho-v4' } as const;

  test('rolls back and nothing stays taken', async () => {
    const host = new Host(HOST);
    const free = host.pages.freePages();
    const coordinator = new Coordinator(host, plan).register(LUO).register(KHO_TEST).register(failing);
    try {
      await expect(coordinator.handover()).rejects.toMatchObject({
        message: expect.stringContaining('as it was told'),
      });
      expect(host.pages.freePages()).toBe(free);
    } finally {
      await coordinator[Symbol.asyncDispose]();
    }
  });

  test('leaves an image in which a decoder finds the sessions and a stranger restores all of them', async () => {
    const image = join(temporaryDirectory(), 'ram.img');
    const coordinator = new Coordinator(new Host(HOST), plan).register(LUO).register(KHO_TEST);
    try {
      const handover = await coordinator.handover();
      await handover.writeImage(image);
      const record = handover.record();
      handover[Symbol.dispose]();
      const blob = record.drivers.find(({ name }) => name === 'LUO')?.blob;
      using memory = ImageMemory.open(image);
      const read = readLuo(memory, (blob?.address ?? 0) as Parameters<typeof readLuo>[1], blob?.size ?? 0);
      expect(read.sessions.map(({ name, files }) => [name, files.length])).toEqual([
        ['session0', 3],
        ['session1', 3],
        ['session2', 3],
      ]);
      const drivers = [LUO.module, KHO_TEST.module];
      const whole = await restoreImage({ image, arch: 'x86_64', drivers });
      expect(whole).toMatchObject({ failures: [], unclaimed: [] });
      expect(whole.restored.map(({ digest }) => digest).sort()).toEqual(
        record.instances.map(({ digest }) => digest).sort(),
      );
    } finally {
      await coordinator[Symbol.asyncDispose]();
    }
  });
});
