import { FAULT_CALLBACKS, type Fault, HandoverHarness, impossible, type Outcome, TestThreads } from 'khorus/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { columns } from '#dist/report/index.js';

/** A stateless driver, whose callbacks run on the pool, and a hosted one on a thread of its own: two instances each. */
const DRIVERS = [
  { name: 'pad', where: 'pool' },
  { name: 'live-pad', where: 'hosted' },
] as const;
const KINDS = [
  { kind: 'throw', code: 'KHO_EDRIVER' },
  { kind: 'hang', code: 'KHO_ETIMEDOUT' },
  { kind: 'never', code: 'KHO_ETIMEDOUT' },
  { kind: 'exit', code: 'KHO_EWORKER' },
] as const;
const HEADINGS = { throw: 'throws', hang: 'hangs', never: 'promise never settles', exit: 'worker dies' };

const CELLS = DRIVERS.flatMap(({ name, where }) =>
  FAULT_CALLBACKS.flatMap((callback) => KINDS.map(({ kind, code }) => ({ driver: name, where, callback, kind, code }))),
);
type Cell = (typeof CELLS)[number];
const keyOf = ({ driver, callback, kind }: Pick<Cell, 'driver' | 'callback' | 'kind'>): string =>
  `${driver} ${callback} ${kind}`;

const results = new Map<string, string>();
const footnotes = new Set<string>();
let threads: TestThreads;
let activate: HandoverHarness;
let shutdown: HandoverHarness;

beforeAll(async () => {
  threads = new TestThreads({ workers: 2 });
  const drivers = DRIVERS.map(({ name }) => ({
    use: new URL(`../../dist/testing/drivers/${name}.js`, import.meta.url),
    count: 2,
    after: name === 'live-pad' ? ['pad'] : [],
  }));
  activate = await HandoverHarness.create({ threads, drivers });
  shutdown = await HandoverHarness.create({ threads, drivers, trigger: 'shutdown' });
});

afterAll(async () => {
  await activate[Symbol.asyncDispose]();
  await shutdown[Symbol.asyncDispose]();
  await threads[Symbol.asyncDispose]();
  const rows = DRIVERS.flatMap(({ name, where }) =>
    FAULT_CALLBACKS.map((callback) => [
      `${where}: ${callback}`,
      ...KINDS.map(({ kind }) => results.get(keyOf({ driver: name, callback, kind })) ?? 'not run'),
    ]),
  );
  const layout = ['a callback of the driver', ...KINDS.map(({ kind }) => HEADINGS[kind])];
  const table = columns(
    layout.map((heading) => ({ heading, align: 'left' })),
    rows,
  );
  console.log(['', ...table, '', ...[...footnotes].map((note) => `(-) ${note}`)].join('\n'));
});

/** The handover of a cell: by the calls that lead to its callback. */
async function handOver({ callback }: Cell): Promise<Outcome> {
  if (callback === 'shutdown') return await shutdown.handover();
  if (callback !== 'update') return await activate.handover();
  return await activate.attempt(async (coordinator) => {
    await coordinator.prepare();
    await coordinator.update();
    await coordinator.freeze();
    await coordinator.serialize();
    await coordinator.finalize();
    return await coordinator.jump();
  });
}

describe.each(CELLS)('$where: $callback, $kind', (cell) => {
  const { driver, callback, kind, code } = cell;
  const why = impossible(kind, callback);
  if (why !== undefined) {
    test(`cannot exist: ${why}`, () => {
      results.set(keyOf(cell), '-');
      footnotes.add(why);
      expect(() => activate.inject({ driver, callback, fault: kind })).toThrow(why);
    });
    return;
  }

  test('ends in a clear state, told by name, and the next handover is clean', async () => {
    const harness = callback === 'shutdown' ? shutdown : activate;
    const instance = `${driver}1`;
    const fault: Fault = { driver, instance: 1, callback, fault: kind };
    const undoing = callback === 'cancel' || callback === 'unfreeze';
    harness.clearFaults().inject(fault);
    // There is nothing to undo unless something goes wrong.
    if (undoing) harness.inject({ driver: 'pad', instance: 0, callback: 'serialize', fault: 'throw' });
    const outcome = await handOver(cell);
    expect(harness.faults().every(({ struck }) => struck === 1)).toBe(true);

    if (callback === 'restore' || callback === 'finish') {
      // The old kernel is gone: what cannot be restored is told, and the image is as good as before.
      if (outcome.state !== 'handed over') throw outcome.error;
      const told = kind === 'throw' ? { driver, instance, code } : { code: 'KHO_EWORKER' };
      expect(outcome.failures).toContainEqual(expect.objectContaining(told));
      if (kind === 'throw' && callback === 'restore') {
        expect(outcome.restored).toEqual(
          ['pad/pad0', 'pad/pad1', 'live-pad/live-pad0', 'live-pad/live-pad1'].filter(
            (one) => !one.endsWith(`/${instance}`),
          ),
        );
      }
      harness.assertHandedOver(await harness.restoreAgain(outcome));
      results.set(keyOf(cell), 'handed over, told');
    } else if (undoing) {
      const { rollback } = harness.assertRolledBack(outcome, {
        code: 'KHO_EDRIVER',
        instance: 'pad0',
        phase: 'serialize',
      });
      expect(rollback?.failures).toMatchObject([{ code, details: { driver, instance, phase: callback } }]);
      results.set(keyOf(cell), 'rolled back, told');
    } else {
      const { rollback } = harness.assertRolledBack(outcome, { code, driver, instance });
      results.set(keyOf(cell), 'rolled back');
      expect(rollback?.reason).toMatchObject({ code });
    }
    harness.assertNoLeaks();
    expect(harness.coordinator.state).toBe('normal');
    const again = harness.assertHandedOver(await harness.handover());
    expect(again.restored.length).toBe(4);
    harness.assertNoLeaks();
  });
});
