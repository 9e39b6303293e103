import { Coordinator, type CoordinatorOptions, Host, type LifecycleState, WorkerPool } from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { countOf, driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());

const host = new Host(SMALL_HOST);
const free = host.pages.statistics();

interface Registered {
  readonly name: string;
  readonly body?: string;
  readonly after?: string[];
  readonly hosted?: boolean;
  readonly freezeEarly?: boolean;
}

function coordinatorOf(drivers: readonly Registered[], log: SharedLog, options: Partial<CoordinatorOptions> = {}) {
  const coordinator = new Coordinator(host, { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool, ...options });
  for (const { name, body = '', after = [], hosted = false, freezeEarly = false } of drivers) {
    const module = driverModule(name, body, { hosted });
    coordinator.register({ module, count: 2, options: { log: log.buffer }, after, priority: 0, freezeEarly });
  }
  return coordinator;
}

type Call = 'prepare' | 'freeze' | 'shutdown' | 'serialize' | 'finalize' | 'jump' | 'update' | 'cancel';
const WAY: [Call, LifecycleState][] = [
  ['prepare', 'prepared'],
  ['freeze', 'frozen'],
  ['serialize', 'serialized'],
  ['finalize', 'finalized'],
];
/** What docs/lifecycle.md says, written down once more. */
const LEGAL: Record<LifecycleState, Call[]> = {
  normal: ['prepare'],
  prepared: ['update', 'freeze', 'shutdown', 'cancel'],
  frozen: ['serialize', 'cancel'],
  serialized: ['finalize', 'cancel'],
  finalized: ['jump', 'cancel'],
  'handed over': [],
};
const CALLS: Call[] = ['prepare', 'update', 'freeze', 'shutdown', 'serialize', 'finalize', 'jump', 'cancel'];

describe('the state machine', () => {
  test('goes from normal to handed over by its calls, and back when the handover is disposed of', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'one' }], log);
    const seen: string[] = [];
    coordinator.events.on('state', ({ from, to }) => seen.push(`${from} > ${to}`));
    for (const [call, state] of WAY) {
      await coordinator[call]();
      expect(coordinator.state).toBe(state);
    }
    const handover = await coordinator.jump();
    expect(coordinator.state).toBe('handed over');
    expect(handover.blob('one')?.length).toBeGreaterThan(0);
    handover[Symbol.dispose]();
    expect(coordinator.state).toBe('normal');
    expect(host.pages.statistics()).toEqual(free);
    expect(seen).toEqual([
      'normal > prepared',
      'prepared > frozen',
      'frozen > serialized',
      'serialized > finalized',
      'finalized > handed over',
      'handed over > normal',
    ]);
  });

  test.each(Object.keys(LEGAL) as LifecycleState[])(
    'in state %s every other call is KHO_EINVAL, says what is legal, and changes nothing',
    async (state) => {
      const log = new SharedLog();
      await using coordinator = coordinatorOf([{ name: 'one' }], log);
      for (const [call, reached] of WAY) {
        if (coordinator.state === state) break;
        await coordinator[call]();
        if (reached === state) break;
      }
      using _handover = state === 'handed over' ? await coordinator.jump() : undefined;
      expect(coordinator.state).toBe(state);
      for (const call of CALLS) {
        if (LEGAL[state].includes(call)) continue;
        const legal = state === 'handed over' ? 'to dispose of the handover' : (LEGAL[state][0] ?? '');
        await expect(coordinator[call](), call).rejects.toMatchObject({
          code: 'KHO_EINVAL',
          message: expect.stringMatching(
            new RegExp(`^${call}\\(\\) is not legal in state '${state}'; legal now: .*${legal}`),
          ),
        });
        expect(coordinator.state).toBe(state);
      }
    },
  );

  test.each(WAY)('can be cancelled after %s: every driver is back, and all memory', async (last) => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf(
      [
        { name: 'one', body: "unfreeze(ctx) { log(ctx, 'unfreeze') }," },
        { name: 'two', after: ['one'] },
      ],
      log,
    );
    for (const [call] of WAY) {
      await coordinator[call]();
      if (call === last) break;
    }
    const report = await coordinator.cancel();
    expect(coordinator.state).toBe('normal');
    expect(report).toMatchObject({ failures: [], reclaimed: [], reason: { code: 'KHO_ECANCELED' } });
    expect(host.pages.statistics()).toEqual(free);
    expect(countOf(log.lines, 'cancel')).toBe(4);
    expect(countOf(log.lines, 'unfreeze')).toBe(last === 'prepare' ? 0 : 2);
    // Dependents first, and an instance is unfrozen before anything is cancelled.
    const undone = log.lines.filter((line) => /^(cancel|unfreeze)/.test(line));
    expect(undone.findIndex((line) => line.startsWith('cancel two'))).toBeLessThan(
      undone.findIndex((line) => line.startsWith('cancel one')),
    );
    if (last !== 'prepare') expect(undone[0]).toMatch(/^unfreeze one/);
    using handover = await coordinator.handover();
    expect(handover.blob('two')?.length).toBeGreaterThan(0);
  });

  test('a call while another is under way is KHO_EBUSY; cancel() interrupts that one', async () => {
    const log = new SharedLog();
    const body = "async freeze(ctx) { log(ctx, 'freeze'); await wait(60_000); },";
    await using coordinator = coordinatorOf([{ name: 'one', body, hosted: true }], log, { grace: 50 });
    await coordinator.prepare();
    const freezing = coordinator.freeze();
    freezing.catch(() => {});
    await expect(coordinator.serialize()).rejects.toMatchObject({ code: 'KHO_EBUSY' });
    expect(() => coordinator.register(coordinatorRegistration(log))).toThrow(/while freeze\(\) is under way/);
    const report = await coordinator.cancel();
    await expect(freezing).rejects.toMatchObject({ code: 'KHO_ECANCELED' });
    expect(report.from).toBe('prepared');
    expect(coordinator.state).toBe('normal');
    expect(host.pages.statistics()).toEqual(free);
  });

  test('an abort between two calls takes effect with the next one', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'one' }], log);
    const abort = new AbortController();
    await coordinator.prepare({ signal: abort.signal });
    abort.abort();
    await expect(coordinator.freeze()).rejects.toMatchObject({ code: 'KHO_ECANCELED' });
    expect(coordinator.state).toBe('normal');
    expect(host.pages.statistics()).toEqual(free);
  });

  test('what a driver does not give back in cancel is taken back, and told', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'one', body: 'cancel() {},' }], log);
    await coordinator.prepare();
    const report = await coordinator.cancel();
    expect(report.reclaimed).toEqual([
      { driver: 'one', instance: 'one0', shard: 0, pages: 3, objects: 2 },
      { driver: 'one', instance: 'one1', shard: 0, pages: 3, objects: 2 },
    ]);
    expect(coordinator.lastRollback).toBe(report);
    expect(host.pages.statistics()).toEqual(free);
  });

  test.each<LifecycleState>(['prepared', 'frozen', 'serialized', 'finalized'])(
    'cancel() between two calls of a handover, in state %s, has it reject with the reason',
    async (state) => {
      const log = new SharedLog();
      await using coordinator = coordinatorOf([{ name: 'one' }], log);
      let cancelled: Promise<unknown> | undefined;
      coordinator.events.on('state', ({ to }) => {
        if (to === state) cancelled = coordinator.cancel();
      });
      await expect(coordinator.handover()).rejects.toMatchObject({ code: 'KHO_ECANCELED' });
      expect(await cancelled).toBe(coordinator.lastRollback);
      expect(coordinator.state).toBe('normal');
      expect(host.pages.statistics()).toEqual(free);
    },
  );

  test('a coordinator that was disposed of says so', async () => {
    const coordinator = coordinatorOf([{ name: 'one' }], new SharedLog());
    await coordinator[Symbol.asyncDispose]();
    await expect(coordinator.handover()).rejects.toMatchObject({ code: 'KHO_EINVAL', message: /was disposed of/ });
    await coordinator[Symbol.asyncDispose]();
  });

  test('disposing of a coordinator rolls back what it has prepared', async () => {
    const log = new SharedLog();
    const coordinator = coordinatorOf([{ name: 'one' }], log);
    await coordinator.prepare();
    await coordinator[Symbol.asyncDispose]();
    expect(countOf(log.lines, 'cancel')).toBe(2);
    expect(host.pages.statistics()).toEqual(free);
  });
});

function coordinatorRegistration(log: SharedLog) {
  return { module: driverModule('more'), count: 1, options: { log: log.buffer }, after: [], priority: 0 };
}

describe('a hosted driver', () => {
  const body = `create(ctx) {
      log(ctx, 'create');
      const state = { ticks: 0 };
      state.timer = setInterval(() => state.ticks++, 1);
      return state;
    },
    snapshot: ({ ticks }) => ticks,
    async prepare(ctx) { while (ctx.state.ticks < 3) await wait(1); log(ctx, 'prepare'); },
    freeze(ctx) { clearInterval(ctx.state.timer); ctx.state.frozen = ctx.state.ticks; log(ctx, 'freeze'); },
    unfreeze(ctx) { ctx.state.timer = setInterval(() => ctx.state.ticks++, 1); log(ctx, 'unfreeze'); },
    cancel(ctx) { log(ctx, 'ticks>' + (ctx.state.ticks >= ctx.state.frozen)); },`;

  test.each(['hash', 'sequential', 'subfdt'] as const)('lives on when it is rolled back, in mode %s', async (mode) => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'live', body, hosted: true }], log, { mode });
    await coordinator.prepare();
    await coordinator.freeze();
    await coordinator.cancel();
    expect(log.lines).toContain('ticks>true live0');
    using handover = await coordinator.handover();
    expect(handover.blob('live')?.length).toBeGreaterThan(0);
    expect(countOf(log.lines, 'create')).toBe(2); // once for each of two instances
    expect(countOf(log.lines, 'unfreeze')).toBe(2);
  });

  test.each(['hash', 'sequential'] as const)(
    'whose thread dies while nobody asks anything of it has failed, even if it never looks at its state; mode %s',
    async (mode) => {
      const log = new SharedLog();
      const dies = `prepare(ctx) {
        setTimeout(() => { log(ctx, 'dying'); throw new Error('left behind') }, 20);
      },
      snapshot: () => 1,`;
      await using coordinator = coordinatorOf([{ name: 'idle', body: dies, hosted: true }], log, { mode });
      await coordinator.prepare();
      for (let tries = 0; countOf(log.lines, 'dying') === 0; tries++) {
        if (tries > 4000) throw new Error('the timer did not fire');
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await expect(coordinator.freeze()).rejects.toMatchObject({ code: 'KHO_EWORKER', details: { driver: 'idle' } });
      expect(coordinator.state).toBe('normal');
      expect(host.pages.statistics()).toEqual(free);
    },
  );

  test('is made anew after a handover', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'live', body, hosted: true }], log);
    (await coordinator.handover())[Symbol.dispose]();
    (await coordinator.handover())[Symbol.dispose]();
    expect(countOf(log.lines, 'create')).toBe(4);
  });
});

describe('state before the blackout', () => {
  test.each(['hash', 'sequential', 'subfdt'] as const)(
    'a hosted driver writes between callbacks until it is frozen, and the record tells how much was early; mode %s',
    async (mode) => {
      const log = new SharedLog();
      const body = `
        prepare(ctx) {
          const early = ctx.early();
          const state = ctx.state;
          let n = 0;
          const done = new Promise((resolve) => {
            state.timer = setInterval(() => {
              early.root.replace('counter').u32('n', ++n);
              if (n === 1) early.node('gone').flag('x');
              if (n === 2) early.root.remove('gone');
              early.root.replace('large').bytes('b', new Uint8Array(1000).fill(n));
              if (n === 5) { clearInterval(state.timer); resolve(); }
            }, 1);
          });
          state.early = early;
          state.done = done;
        },
        async update(ctx) { await ctx.state.done; log(ctx, 'update'); ctx.node('updated').flag('x'); },
        serialize(ctx, shard) {
          if (shard !== 0) return;
          try { ctx.state.early.node('late'); } catch (error) { log(ctx, error.code); }
          try { ctx.state.early.preserve({ address: 0, pages: 1 }); } catch (error) { log(ctx, error.code); }
          ctx.root.replace('counter').u32('n', 6);
        },`;
      await using coordinator = coordinatorOf([{ name: 'live', body, hosted: true }], log, { mode });
      await coordinator.prepare();
      await coordinator.update();
      await coordinator.freeze();
      await coordinator.serialize();
      await coordinator.finalize();
      using handover = await coordinator.jump();
      expect(countOf(log.lines, 'update')).toBe(2);
      expect(countOf(log.lines, 'KHO_EBUSY')).toBe(4);
      const [driver] = handover.record().drivers;
      expect(driver?.earlyBytes).toBeGreaterThan(2000);
      expect(driver?.stateBytes).toBeGreaterThan(driver?.earlyBytes ?? 0);
      // Two counters of 16 bytes and their node were written in the blackout.
      expect((driver?.stateBytes ?? 0) - (driver?.earlyBytes ?? 0)).toBeLessThan(200);
    },
  );

  test('a stateless driver has no early access, for nothing of it goes on', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'one', body: 'prepare(ctx) { ctx.early() },' }], log);
    await expect(coordinator.prepare()).rejects.toMatchObject({ code: 'KHO_EPERM', details: { driver: 'one' } });
  });

  test('after the run early access is over', async () => {
    const log = new SharedLog();
    const body = `prepare(ctx) { ctx.state.early ??= ctx.early(); if (ctx.state.again) { ctx.state.early.node('x') } ctx.state.again = true; },`;
    await using coordinator = coordinatorOf([{ name: 'live', body, hosted: true }], log);
    await coordinator.prepare();
    await coordinator.cancel();
    await expect(coordinator.prepare()).rejects.toMatchObject({
      code: 'KHO_EPERM',
      message: /after the run was cancelled/,
    });
  });
});

describe('freezing early', () => {
  const drivers = [
    { name: 'base' },
    { name: 'top', after: ['base'] },
    { name: 'other', body: "unfreeze(ctx) { log(ctx, 'unfreeze') }," },
  ];

  test('a driver that is frozen early is skipped later', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf(drivers, log);
    await coordinator.prepare();
    await coordinator.freezeEarly(['other', 'base']);
    expect(log.lines.filter((line) => line.startsWith('freeze')).sort()).toEqual([
      'freeze base0',
      'freeze base1',
      'freeze other0',
      'freeze other1',
    ]);
    await coordinator.freeze();
    expect(countOf(log.lines, 'freeze')).toBe(6);
    await coordinator.serialize();
    await coordinator.finalize();
    using handover = await coordinator.jump();
    expect(handover.record().drivers.map(({ frozenEarly }) => frozenEarly)).toEqual([true, undefined, true]);
  });

  test('has the errors of the proposal: twice KHO_EBUSY, changed KHO_EBUSY, handed over KHO_EINVAL; nothing changes', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf(drivers, log);
    await coordinator.prepare();
    await coordinator.freezeEarly(['other']);
    await expect(coordinator.freezeEarly(['other'])).rejects.toMatchObject({ code: 'KHO_EBUSY' });
    await expect(coordinator.update(['other'])).rejects.toMatchObject({ code: 'KHO_EBUSY' });
    await expect(coordinator.freezeEarly(['nobody'])).rejects.toMatchObject({ code: 'KHO_ENOENT' });
    await expect(coordinator.freezeEarly(['top'])).rejects.toMatchObject({
      code: 'KHO_EINVAL',
      message: /after 'base'/,
    });
    await expect(coordinator.unfreeze(['base'])).rejects.toMatchObject({ code: 'KHO_EINVAL' });
    expect(coordinator.state).toBe('prepared');
    await coordinator.freezeEarly(['top', 'base']);
    await expect(coordinator.unfreeze(['base'])).rejects.toMatchObject({
      code: 'KHO_EINVAL',
      message: /unfreeze it first/,
    });
    await coordinator.unfreeze(['other']);
    expect(countOf(log.lines, 'unfreeze')).toBe(2);
    await coordinator.freezeEarly(['other']);
    await coordinator.freeze();
    await coordinator.serialize();
    await coordinator.finalize();
    using _handover = await coordinator.jump();
    await expect(coordinator.freezeEarly(['other'])).rejects.toMatchObject({ code: 'KHO_EINVAL' });
  });

  test('what was frozen early is unfrozen on cancel', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf(drivers, log);
    await coordinator.prepare();
    await coordinator.freezeEarly(['other']);
    await coordinator.cancel();
    expect(countOf(log.lines, 'unfreeze')).toBe(2);
    expect(host.pages.statistics()).toEqual(free);
  });

  test('a whole handover freezes those early that are registered so', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'late' }, { name: 'early', freezeEarly: true }], log);
    using handover = await coordinator.handover();
    const freezes = log.lines.filter((line) => line.startsWith('freeze'));
    expect(freezes.slice(0, 2).every((line) => line.startsWith('freeze early'))).toBe(true);
    expect(handover.timeline.phases.map(({ phase }) => phase)).toContain('early freeze');
  });
});
