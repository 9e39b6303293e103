import { Coordinator, type CoordinatorOptions, Host, phaseDuration, type TimelineSpan, WorkerPool } from 'khorus';
import { afterAll, describe, expect, test } from 'vitest';
import { countOf, driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());
const host = new Host(SMALL_HOST);
const free = host.pages.statistics();
const SHUTDOWN = "shutdown(ctx) { log(ctx, 'shutdown'); },";

interface Registered {
  readonly name: string;
  readonly body?: string;
  readonly after?: string[];
  readonly hosted?: boolean;
}

function coordinatorOf(drivers: readonly Registered[], log: SharedLog, options: Partial<CoordinatorOptions> = {}) {
  const plan = { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool, trigger: 'shutdown', ...options } as const;
  const coordinator = new Coordinator(host, plan);
  for (const { name, body = SHUTDOWN, after = [], hosted = false } of drivers) {
    const module = driverModule(name, body, { hosted });
    coordinator.register({ module, count: 2, options: { log: log.buffer }, after, priority: 0 });
  }
  return coordinator;
}

describe('serialization during shutdown', () => {
  test.each(['hash', 'sequential', 'subfdt'] as const)(
    'each driver shuts down after those that come after it, then freezes and serializes; mode %s',
    async (mode) => {
      const log = new SharedLog();
      await using coordinator = coordinatorOf(
        [{ name: 'base' }, { name: 'middle', after: ['base'] }, { name: 'top', after: ['middle'] }],
        log,
        { mode },
      );
      using handover = await coordinator.handover();
      const of = (what: string) => log.lines.findIndex((line) => line.startsWith(what));
      const last = (what: string) => log.lines.findLastIndex((line) => line.startsWith(what));
      expect(last('shutdown top')).toBeLessThan(of('shutdown middle'));
      expect(last('shutdown middle')).toBeLessThan(of('shutdown base'));
      for (const name of ['base', 'middle', 'top']) {
        expect(last(`shutdown ${name}`)).toBeLessThan(of(`freeze ${name}`));
        expect(last(`freeze ${name}`)).toBeLessThan(of(`serialize ${name}`));
        expect(countOf(log.lines, `serialize ${name}`)).toBe(4);
      }
      const phases = handover.timeline.phases.map(({ phase }) => phase);
      expect(phases).toEqual(['prepare', 'shutdown', 'serialize', 'finalize', 'jump', 'snapshot']);
    },
  );

  test('hands over the same bytes as an activated handover', async () => {
    const drivers = [{ name: 'base' }, { name: 'top', after: ['base'] }];
    const blobs: (Uint8Array | undefined)[][] = [];
    for (const trigger of ['activate', 'shutdown'] as const) {
      await using coordinator = coordinatorOf(drivers, new SharedLog(), { trigger });
      using handover = await coordinator.handover();
      blobs.push([handover.blob('base'), handover.blob('top'), handover.blob('fdt')]);
    }
    expect(blobs[1]).toEqual(blobs[0]);
  });

  test('a driver serializes while another one still shuts down: the first waits until it sees that', async () => {
    const log = new SharedLog();
    const waits = `async shutdown(ctx) {
      log(ctx, 'shutdown');
      const text = () => new TextDecoder().decode(new Uint8Array(ctx.options.log, 4).slice());
      for (let tries = 0; !text().includes('serialize quick'); tries++) {
        if (tries > 2000) throw new Error('the other one did not serialize');
        await wait(5);
      }
    },`;
    await using coordinator = coordinatorOf([{ name: 'slow', body: waits, hosted: true }, { name: 'quick' }], log);
    using handover = await coordinator.handover();
    const spans = (driver: string, phase: string): TimelineSpan[] =>
      handover.timeline.spans.filter((span) => span.driver === driver && span.phase === phase);
    const slowEnd = Math.max(...spans('slow', 'shutdown').map(({ end }) => end));
    expect(Math.min(...spans('quick', 'serialize').map(({ start }) => start))).toBeLessThan(slowEnd);
    // The phases do not overlap: their sum is the blackout.
    expect(phaseDuration(handover.timeline, 'freeze')).toBe(0);
  });

  test('a driver without shutdown is down at once; one that was frozen early is not shut down again', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf([{ name: 'none', body: '' }, { name: 'frozen' }], log);
    await coordinator.prepare();
    await coordinator.freezeEarly(['frozen']);
    await coordinator.shutdown();
    expect(coordinator.state).toBe('serialized');
    expect(countOf(log.lines, 'shutdown')).toBe(0);
    expect(countOf(log.lines, 'freeze frozen')).toBe(2);
    expect(countOf(log.lines, 'freeze none')).toBe(2);
    expect(countOf(log.lines, 'serialize')).toBe(8);
    await coordinator.cancel();
    expect(host.pages.statistics()).toEqual(free);
  });

  const failing = [
    { name: 'bad', body: "shutdown(ctx) { log(ctx, 'shutdown'); throw new Error('stuck') }," },
    { name: 'good', after: ['bad'] },
  ];

  test('a failing shutdown rolls back', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf(failing, log);
    await expect(coordinator.handover()).rejects.toMatchObject({
      code: 'KHO_EDRIVER',
      details: { driver: 'bad', phase: 'shutdown' },
    });
    expect(countOf(log.lines, 'cancel')).toBe(4);
    expect(countOf(log.lines, 'serialize bad')).toBe(0);
    expect(host.pages.statistics()).toEqual(free);
  });

  test('or is passed over, if that is the policy, and told', async () => {
    const log = new SharedLog();
    await using coordinator = coordinatorOf(failing, log, { onShutdownFailure: 'proceed' });
    using handover = await coordinator.handover();
    expect(countOf(log.lines, 'serialize bad')).toBe(4);
    const failures = [...(handover.record().shutdownFailures ?? [])];
    // Two threads, in any order.
    failures.sort((a, b) => (a.instance ?? '').localeCompare(b.instance ?? ''));
    expect(failures).toMatchObject([
      { code: 'KHO_EDRIVER', driver: 'bad', instance: 'bad0' },
      { code: 'KHO_EDRIVER', driver: 'bad', instance: 'bad1' },
    ]);
  });

  test('but not in mode sequential if the thread dies: what was written early has gone with it', async () => {
    const log = new SharedLog();
    const dying = [{ name: 'bad', body: "shutdown(ctx) { log(ctx, 'shutdown'); process.exit(3) }," }];
    await using coordinator = coordinatorOf(dying, log, { mode: 'sequential', onShutdownFailure: 'proceed' });
    await expect(coordinator.handover()).rejects.toMatchObject({ code: 'KHO_EWORKER', details: { driver: 'bad' } });
    expect(coordinator.state).toBe('normal');
    expect(host.pages.statistics()).toEqual(free);
    await using other = coordinatorOf(dying, log, { onShutdownFailure: 'proceed' });
    using handover = await other.handover();
    expect(handover.record().shutdownFailures).toHaveLength(2);
  });
});
