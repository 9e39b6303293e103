import { Coordinator, type CoordinatorOptions, Host, WorkerPool } from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

const REGISTRATION = { count: 1, priority: 0, after: [] };

interface DriverOfText {
  readonly name: string;
  readonly body?: string;
  readonly shards?: string;
}

function coordinatorOf(host: Host, drivers: readonly DriverOfText[], options: Partial<CoordinatorOptions> = {}) {
  const coordinator = new Coordinator(host, { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool, ...options });
  const log = new SharedLog();
  for (const { name, body, shards } of drivers) {
    const module = driverModule(name, body, shards === undefined ? {} : { shards });
    coordinator.register({ ...REGISTRATION, module, options: { log: log.buffer } });
  }
  return coordinator;
}

/** It ends with this error, everything as before, and the same host hands over what is right. */
async function expectRolledBack(drivers: readonly DriverOfText[], error: object): Promise<void> {
  const host = new Host(SMALL_HOST);
  const free = host.pages.statistics();
  {
    await using coordinator = coordinatorOf(host, drivers);
    await expect(coordinator.handover()).rejects.toMatchObject(error);
    expect(coordinator.state).toBe('normal');
    expect(host.pages.statistics()).toEqual(free);
  }
  await using right = coordinatorOf(host, [{ name: 'good' }]);
  (await right.handover())[Symbol.dispose]();
  expect(host.pages.statistics()).toEqual(free);
}

const many = (count: number): DriverOfText[] =>
  Array.from({ length: count }, (_, index) => ({ name: `driver-${String(index).padStart(8, '0')}` })); // 15 characters

test('one driver more than the root page holds is refused and rolled back; as many as it holds are not', async () => {
  // 59 fit beside kexec-metadata and memblock: test/abi/root-page-limit.test.ts.
  await expectRolledBack(many(60), { code: 'KHO_ENOMEM', message: expect.stringContaining('one page') });
  const host = new Host(SMALL_HOST);
  await using coordinator = coordinatorOf(host, many(59));
  using handover = await coordinator.handover();
  expect(handover.record().drivers).toHaveLength(59);
}, 120_000);

test('more pages than the host has are refused before any driver runs', async () => {
  await expectRolledBack([{ name: 'good' }, { name: 'greedy', shards: '[{ pages: 2 ** 18 }]' }], {
    code: 'KHO_ENOMEM',
  });
});

test('more bytes of nodes than there is room for are refused before any driver runs', async () => {
  const shards = '[{ pages: 8, maxBytes: 2 ** 30 }, { pages: 8, maxBytes: 2 ** 30 }]';
  await expectRolledBack([{ name: 'good' }, { name: 'greedy', shards }], { code: 'KHO_E2BIG' });
});

describe('what a driver writes beyond its own is its own failure', () => {
  test.each<[string, string, object]>([
    [
      'more bytes than it declared',
      "serialize(ctx) { ctx.root.bytes('x', new Uint8Array(2 ** 20)); },",
      { code: 'KHO_ENOSPC', details: { driver: 'greedy', phase: 'serialize' } },
    ],
    [
      'ever other names of nodes',
      'serialize(ctx) { for (let i = 0; ; i++) { ctx.root.node("s" + i); ctx.root.remove("s" + i); } },',
      { code: 'KHO_ENOSPC', message: expect.stringContaining('names of nodes'), details: { driver: 'greedy' } },
    ],
    [
      'more pages than it declared',
      'serialize(ctx) { for (;;) ctx.alloc(1); },',
      { code: 'KHO_ENOMEM', details: { driver: 'greedy', phase: 'serialize' } },
    ],
  ])('%s', async (_, body, error) => {
    await expectRolledBack([{ name: 'good' }, { name: 'greedy', body }], error);
  });
});

test('two drivers of one name are refused by name', async () => {
  await expectRolledBack([{ name: 'twice' }, { name: 'twice', body: 'freeze() {},' }], {
    code: 'KHO_EEXIST',
    message: expect.stringContaining('twice'),
  });
});

test.each([0, 1, 2, 5, 20])(
  'a worker that exits after %i writes of serialize is told, and rolled back',
  async (writes) => {
    const body = `serialize(ctx, shard) {
    for (let index = 0; index < 40; index++) {
      if (index === ${writes} && shard === 1) process.exit(3);
      ctx.root.node('n' + (index % 3)).u32('p' + index, index);
      if (index % 5 === 4) ctx.root.replace('n0').flag('again' + index);
    }
  },`;
    await expectRolledBack([{ name: 'good' }, { name: 'dying', body }], { code: 'KHO_EWORKER' });
  },
);
