import { type Budget, Coordinator, Host, type Mode, WorkerPool } from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { SMALL_HOST } from '../support/drivers.js';

/** A module made of the callbacks' text; `log(n)` counts in a buffer that the test shares through the options. */
function moduleOf(name: string, body: string, hosted = false): { url: string; origin: string } {
  const source = `
    const log = (ctx, n) => Atomics.add(new Int32Array(ctx.options.log), n, 1);
    const sequence = (ctx, n) => { const w = new Int32Array(ctx.options.log); Atomics.store(w, n, Atomics.add(w, 15, 1) + 1); };
    export default { name: '${name}', compatible: '${name}-v1', hosted: ${hosted},
      shards: () => [{ pages: 8 }, { pages: 4 }],
      create: () => ({}), restore: () => ({}), snapshot: () => 1,
      prepare(ctx) { log(ctx, 0); const range = ctx.alloc(3); ctx.preserve(range); ctx.node('early').flag('x'); return range; },
      freeze(ctx) { log(ctx, 1); },
      serialize(ctx, shard) { log(ctx, 2); ctx.root.u32('of-' + shard, shard); },
      cancel(ctx) { log(ctx, 3); sequence(ctx, 8 + ctx.options.slot); },
      ${body} };`;
  return { url: `data:text/javascript,${encodeURIComponent(source)}`, origin: name };
}

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

interface Outcome {
  readonly code: string | undefined;
  readonly log: Int32Array;
}

async function attempt(
  host: Host,
  mode: Mode,
  body: string,
  options: { hosted?: boolean; budget?: Budget; signal?: AbortSignal } = {},
): Promise<Outcome> {
  const buffer = new SharedArrayBuffer(64);
  const coordinator = new Coordinator(host, {
    mode,
    workers: 2,
    seed: 1,
    profile: 'kho-v4',
    pool,
    ...(options.budget && { budget: options.budget }),
  });
  const base = { count: 3, priority: 0 };
  coordinator.register({ ...base, module: moduleOf('good', ''), options: { log: buffer, slot: 0 }, after: [] });
  coordinator.register({
    ...base,
    module: moduleOf('tested', body, options.hosted),
    options: { log: buffer, slot: 1 },
    after: ['good'],
  });
  let code: string | undefined;
  try {
    const handover = await coordinator.handover(options.signal ? { signal: options.signal } : {});
    handover[Symbol.dispose]();
  } catch (error) {
    code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  } finally {
    await coordinator[Symbol.asyncDispose]();
  }
  return { code, log: new Int32Array(buffer) };
}

const FAULTS: [string, string, string][] = [
  ['throws in prepare', "prepare() { throw new Error('boom') },", 'KHO_EDRIVER'],
  ['rejects in prepare', "async prepare() { throw new Error('boom') },", 'KHO_EDRIVER'],
  ['returns from prepare what cannot go to another thread', 'prepare() { return () => 1 },', 'KHO_EINVAL'],
  ['changes in freeze what prepare returned', 'freeze({ prepared }) { prepared.pages = 1 },', 'KHO_EDRIVER'],
  ['throws in freeze', "freeze() { throw new Error('boom') },", 'KHO_EDRIVER'],
  ['throws in serialize', "serialize() { throw new Error('boom') },", 'KHO_EDRIVER'],
  ['allocates in freeze', 'freeze(ctx) { ctx.alloc(1) },', 'KHO_EPERM'],
  ['allocates too much', 'serialize(ctx) { ctx.alloc(9) },', 'KHO_ENOMEM'],
  ['writes memory that is not its own', 'serialize(ctx) { ctx.memory.fill(0, 8, 1) },', 'KHO_EPERM'],
  ['gives one node a property from two shards', "serialize(ctx) { ctx.root.u32('same', 1) },", 'KHO_EEXIST'],
  [
    'writes siblings that libfdt cannot tell apart',
    "serialize(ctx) { ctx.node('p').flag('a' + ctx.random().u32()); ctx.node('p@1') },",
    'KHO_EINVAL',
  ],
  ['ends its thread', 'serialize() { process.exit(3) },', 'KHO_EWORKER'],
];

describe.each(['hash', 'sequential', 'subfdt'] as const)('mode %s', (mode) => {
  const host = new Host(SMALL_HOST);
  const free = host.pages.statistics();

  for (const hosted of [false, true]) {
    test.each(FAULTS)(
      `a ${hosted ? 'hosted' : 'stateless'} driver that %s is rolled back, and the next handover works`,
      async (_name, body, code) => {
        const failed = await attempt(host, mode, body, { hosted });
        expect(failed.code).toBe(code);
        expect(host.pages.statistics()).toEqual(free);
        const again = await attempt(host, mode, '', { hosted });
        expect(again.code).toBeUndefined();
        expect(host.pages.statistics()).toEqual(free);
      },
    );
  }

  test('every driver is cancelled, dependents first', async () => {
    const { log } = await attempt(host, mode, "serialize() { throw new Error('boom') },");
    expect(log[3]).toBe(6);
    expect(log[9]).toBeLessThan(log[8] ?? 0); // the last cancel of `tested` came before the last of `good`
  });

  test('an abort in the middle of the blackout ends it and rolls back, even while a driver hangs', async () => {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 300);
    const { code } = await attempt(host, mode, 'serialize() { for (;;); },', { signal: abort.signal });
    expect(code).toBe('KHO_ECANCELED');
    expect(host.pages.statistics()).toEqual(free);
    expect((await attempt(host, mode, '')).code).toBeUndefined();
  });

  test('an overrun budget cancels, one that is ignored does not', async () => {
    const slow = 'async freeze() { await new Promise((resolve) => setTimeout(resolve, 60)) },';
    const budget = { blackout: 20, onOverrun: 'cancel' } as const;
    expect((await attempt(host, mode, slow, { budget })).code).toBe('KHO_ETIMEDOUT');
    expect((await attempt(host, mode, slow, { budget: { ...budget, onOverrun: 'ignore' } })).code).toBeUndefined();
    expect(host.pages.statistics()).toEqual(free);
  });

  test('a signal that was aborted before begins nothing', async () => {
    const { code, log } = await attempt(host, mode, '', { signal: AbortSignal.abort() });
    expect(code).toBe('KHO_ECANCELED');
    expect([...log].every((count) => count === 0)).toBe(true);
  });
});
