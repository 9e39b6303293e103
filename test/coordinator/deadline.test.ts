import { type Budget, Coordinator, type CoordinatorOptions, Host, type PhaseTimes, WorkerPool } from 'khorus';
import { ManualClock } from 'khorus/testing';
import { afterAll, describe, expect, test } from 'vitest';
import { countOf, driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());
const host = new Host(SMALL_HOST);
const free = host.pages.statistics();

/** Waits until a driver has logged something: then it is where the test wants it. */
async function until(log: SharedLog, line: string): Promise<void> {
  for (let tries = 0; !log.lines.some((one) => one.startsWith(line)); tries++) {
    if (tries > 4000) throw new Error(`nobody logged '${line}'`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

interface Options extends Partial<CoordinatorOptions> {
  readonly hosted?: boolean;
  readonly driverBudget?: number;
  readonly count?: number;
}

function coordinatorOf(body: string, log: SharedLog, clock: ManualClock, options: Options = {}) {
  const { hosted = false, driverBudget, count = 2, ...rest } = options;
  const plan = { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool, clock, ...rest } as const;
  const coordinator = new Coordinator(host, plan);
  const base = { count: 2, options: { log: log.buffer }, after: [], priority: 0 };
  coordinator.register({ ...base, module: driverModule('good') });
  const budget = driverBudget === undefined ? {} : { budget: driverBudget };
  coordinator.register({ ...base, ...budget, count, module: driverModule('tested', body, { hosted }) });
  return coordinator;
}

const HANG = 'for (;;) {}';
const NEVER = 'return new Promise(() => {});';

describe('a callback that does not return', () => {
  const cases = ['prepare', 'freeze', 'serialize', 'cancel'].flatMap((phase) =>
    [false, true].flatMap((hosted) =>
      [HANG, NEVER].flatMap((how) => (phase === 'serialize' && how === NEVER ? [] : [{ phase, hosted, how }])),
    ),
  );

  test.each(cases)(
    'in $phase (hosted: $hosted, $how) costs its thread, and its driver has failed',
    async ({ phase, hosted, how }) => {
      const log = new SharedLog();
      const clock = new ManualClock();
      const hang = `${phase}(ctx) { log(ctx, 'in ${phase}'); if (ctx.options.hang !== false) { ${how} } },`;
      const fails = phase === 'cancel' ? "serialize() { throw new Error('boom') }," : '';
      await using coordinator = coordinatorOf(hang + fails, log, clock, { hosted, callbackLimit: 1000 });
      const handover = coordinator.handover();
      handover.catch(() => {});
      await until(log, `in ${phase}`);
      // The two instances may hang one after the other.
      let ended = false;
      const advancing = (async () => {
        while (!ended) {
          clock.advance(500);
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      })();
      const error = await handover.then(
        () => undefined,
        (reason: Error & { code: string; details: object }) => reason,
      );
      ended = true;
      await advancing;
      if (phase === 'cancel') {
        expect(error).toMatchObject({ code: 'KHO_EDRIVER', message: 'boom' });
        const hung = coordinator.lastRollback?.failures.filter(({ code }) => code === 'KHO_ETIMEDOUT');
        expect(hung).toHaveLength(2);
        expect(hung?.[0]).toMatchObject({ details: { driver: 'tested', phase: 'cancel' } });
      } else {
        expect(error).toMatchObject({
          code: 'KHO_ETIMEDOUT',
          message: expect.stringMatching(new RegExp(`^${phase} of tested[01] did not return within 1000 ms`)),
          details: { driver: 'tested', phase },
        });
      }
      expect(coordinator.state).toBe('normal');
      expect(host.pages.statistics()).toEqual(free);
      // The others were cancelled, and the pool works.
      expect(countOf(log.lines, 'cancel good')).toBe(2);
      await using again = coordinatorOf('', new SharedLog(), clock);
      (await again.handover())[Symbol.dispose]();
    },
  );

  test('only the thread that hangs is ended: another callback goes on to its end', async () => {
    const log = new SharedLog();
    const clock = new ManualClock();
    const body = `async freeze(ctx) {
      log(ctx, 'in ' + ctx.index);
      if (ctx.index === 0) { ${HANG} }
      while (Atomics.load(new Int32Array(ctx.options.log), 1000) < ctx.index) await wait(5);
      log(ctx, 'end');
    },`;
    const release = (index: number) => Atomics.store(new Int32Array(log.buffer), 1000, index);
    await using coordinator = coordinatorOf(body, log, clock, { callbackLimit: 1000, count: 3 });
    const handover = coordinator.handover();
    handover.catch(() => {});
    await until(log, 'in 0');
    await until(log, 'in 1');
    clock.advance(750);
    release(1);
    await until(log, 'in 2'); // on the thread of the second, long after the first has begun
    clock.advance(500);
    release(2);
    await expect(handover).rejects.toMatchObject({ code: 'KHO_ETIMEDOUT', details: { instance: 'tested0' } });
    expect(countOf(log.lines, 'end tested2')).toBe(1);
  });

  test('a module that hangs while it is asked what it is, is named', async () => {
    const clock = new ManualClock();
    await using coordinator = new Coordinator(host, {
      mode: 'hash',
      workers: 1,
      seed: 1,
      profile: 'kho-v4',
      clock,
      callbackLimit: 1000,
    });
    const log = new SharedLog();
    const base = { count: 1, options: { log: log.buffer }, after: [], priority: 0 };
    coordinator.register({ ...base, module: driverModule('good') });
    const body = "instanceName(options) { log({ options, instance: 'x' }, 'asked'); for (;;) {} },";
    coordinator.register({
      ...base,
      module: { ...driverModule('hangs', body), origin: './hangs.js' },
    });
    const handover = coordinator.handover();
    handover.catch(() => {});
    await until(log, 'asked');
    clock.advance(30_001);
    await expect(handover).rejects.toMatchObject({ code: 'KHO_ETIMEDOUT', details: { file: './hangs.js' } });
  });
});

/** A freeze that goes on until the test lets it. */
const HELD = `async freeze(ctx) {
  log(ctx, 'in freeze');
  while (Atomics.load(new Int32Array(ctx.options.log), 1000) === 0) await wait(2);
},`;

/** Both instances are in it: while one has not begun, the pace of the phase says that it takes longer. */
async function untilBothFreeze(log: SharedLog): Promise<void> {
  await until(log, 'in freeze tested0');
  await until(log, 'in freeze tested1');
}

describe('a budget', () => {
  const attempt = async (budget: Budget, advance: number, options: Options = {}) => {
    const log = new SharedLog();
    const clock = new ManualClock();
    await using coordinator = coordinatorOf(HELD, log, clock, { budget, grace: 10_000, ...options });
    const handover = coordinator.handover();
    handover.catch(() => {});
    await untilBothFreeze(log);
    clock.advance(advance);
    await new Promise((resolve) => setImmediate(resolve));
    Atomics.store(new Int32Array(log.buffer), 1000, 1);
    try {
      (await handover)[Symbol.dispose]();
      return undefined;
    } finally {
      expect(host.pages.statistics()).toEqual(free);
      expect(coordinator.state).toBe('normal');
    }
  };

  test('of the blackout cancels what takes longer, and says so', async () => {
    await expect(attempt({ blackout: 50, onOverrun: 'cancel' }, 51)).rejects.toMatchObject({
      code: 'KHO_ETIMEDOUT',
      message: expect.stringMatching(
        /^the blackout had a budget of 50 ms and took 5\d(\.\d)? ms so far; it was cancelled, and everything rolled back$/,
      ),
    });
    await expect(attempt({ blackout: 50, onOverrun: 'cancel' }, 49)).resolves.toBeUndefined();
    await expect(attempt({ blackout: 50, onOverrun: 'ignore' }, 500)).resolves.toBeUndefined();
  });

  test('of a phase cancels that phase', async () => {
    const budget = { phases: { freeze: 20, serialize: 1000 }, onOverrun: 'cancel' } as const;
    await expect(attempt(budget, 21)).rejects.toMatchObject({
      code: 'KHO_ETIMEDOUT',
      message: 'freeze took longer than its budget of 20 ms; it was cancelled, and everything rolled back',
      details: { phase: 'freeze', field: 'budget.freeze' },
    });
    await expect(attempt(budget, 19)).resolves.toBeUndefined();
  });

  test("of a driver cancels when one of its callbacks takes longer, and names it; another driver's is not", async () => {
    const budget = { onOverrun: 'cancel' } as const;
    // A callback is seen at a look, and again at a later one: up to two quarters of the budget more.
    await expect(attempt(budget, 160, { driverBudget: 100 })).rejects.toMatchObject({
      code: 'KHO_ETIMEDOUT',
      message: expect.stringMatching(
        /^freeze of tested[01] took longer than the 100 ms that its driver has for a callback; it was cancelled, and everything rolled back$/,
      ),
      details: { driver: 'tested' },
    });
    await expect(attempt(budget, 90, { driverBudget: 100 })).resolves.toBeUndefined();
    await expect(attempt({ onOverrun: 'ignore' }, 1000, { driverBudget: 100 })).resolves.toBeUndefined();
  });
});

describe('a forecast', () => {
  const earlier: PhaseTimes[] = [
    { freeze: 10, serialize: 30, finalize: 5, jump: 0, boot: 20, restore: 15 },
    { freeze: 12, serialize: 25, finalize: 6, jump: 0, boot: 18, restore: 40 },
  ];

  test('from earlier runs refuses a budget that cannot be met before anything is frozen', async () => {
    const log = new SharedLog();
    const budget = { blackout: 72, onOverrun: 'cancel' } as const;
    await using coordinator = coordinatorOf('', log, new ManualClock(), { budget, earlier });
    // 10 + 25 + 5 + 0 + 18 + 15
    await expect(coordinator.handover()).rejects.toMatchObject({
      code: 'KHO_ETIMEDOUT',
      message: "the blackout's budget of 72 ms cannot be met: 2 earlier runs took 73 ms at least; nothing was frozen",
    });
    expect(countOf(log.lines, 'freeze')).toBe(0);
    expect(countOf(log.lines, 'cancel')).toBe(4);
    expect(host.pages.statistics()).toEqual(free);
  });

  test('cancels during a phase as soon as what is left no longer holds what is to come', async () => {
    const log = new SharedLog();
    const clock = new ManualClock();
    const budget = { blackout: 80, onOverrun: 'cancel' } as const;
    await using coordinator = coordinatorOf(HELD, log, clock, { budget, earlier, grace: 10_000 });
    const handover = coordinator.handover();
    handover.catch(() => {});
    await untilBothFreeze(log);
    clock.advance(20); // of 80; 63 are to come after freeze
    Atomics.store(new Int32Array(log.buffer), 1000, 1);
    await expect(handover).rejects.toMatchObject({
      code: 'KHO_ETIMEDOUT',
      message: expect.stringMatching(
        /^the blackout's budget of 80 ms cannot be met any more: 20 ms are gone, and by 2 earlier runs/,
      ),
    });
    expect(countOf(log.lines, 'serialize')).toBe(0);
  });

  test('is no reason where the policy is to ignore', async () => {
    const budget = { blackout: 1, onOverrun: 'ignore' } as const;
    await using coordinator = coordinatorOf('', new SharedLog(), new ManualClock(), { budget, earlier });
    (await coordinator.handover())[Symbol.dispose]();
  });
});
