import { subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel';
import { Coordinator, type CoordinatorOptions, type HandoverEventMap, Host, WorkerPool } from 'khorus';
import { afterAll, expect, test } from 'vitest';
import { driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';

const pool = new WorkerPool({ threads: 2 });
afterAll(() => pool[Symbol.asyncDispose]());
const host = new Host(SMALL_HOST);

function coordinatorOf(body = '', options: Partial<CoordinatorOptions> = {}): Coordinator {
  const coordinator = new Coordinator(host, { mode: 'hash', workers: 2, seed: 1, profile: 'kho-v4', pool, ...options });
  const base = { count: 2, options: { log: new SharedLog().buffer }, priority: 0 };
  coordinator.register({ ...base, module: driverModule('good'), after: [] });
  coordinator.register({ ...base, module: driverModule('tested', body), after: ['good'] });
  return coordinator;
}

test('tell of every phase and driver, in order, with times that agree with the timeline', async () => {
  await using coordinator = coordinatorOf();
  const phases: HandoverEventMap['phase-end'][0][] = [];
  const started: string[] = [];
  const drivers: HandoverEventMap['driver'][0][] = [];
  coordinator.events.on('phase-start', ({ phase }) => started.push(phase));
  coordinator.events.on('phase-end', (event) => phases.push(event));
  coordinator.events.on('driver', (event) => drivers.push(event));
  using handover = await coordinator.handover();
  const expected = ['prepare', 'freeze', 'serialize', 'finalize', 'jump', 'snapshot'];
  expect(started).toEqual(expected);
  expect(phases.map(({ phase, start, end }) => ({ phase, start, end }))).toEqual(handover.timeline.phases);
  const told = drivers.map(({ phase, driver, callbacks }) => `${phase} ${driver} ${callbacks}`);
  expect(told).toEqual(
    expect.arrayContaining([
      'prepare good 2',
      'freeze good 2',
      'freeze tested 2',
      'serialize good 4',
      'snapshot tested 2',
    ]),
  );
  expect(told.indexOf('freeze good 2')).toBeLessThan(told.indexOf('freeze tested 2'));
});

test('tell of a failure in its phase, and of the rollback', async () => {
  await using coordinator = coordinatorOf("serialize() { throw new Error('boom') },");
  const failed: unknown[] = [];
  const reports: unknown[] = [];
  coordinator.events.on('phase-end', ({ phase, error }) => error && failed.push([phase, error.message]));
  coordinator.events.on('rolled-back', (report) => reports.push(report));
  await expect(coordinator.handover()).rejects.toThrow('boom');
  expect(failed).toEqual([['serialize', 'boom']]);
  expect(reports).toEqual([coordinator.lastRollback]);
  expect(reports).toMatchObject([{ from: 'frozen', reason: { message: 'boom' }, failures: [], reclaimed: [] }]);
});

test('a listener that is taken off hears nothing more', async () => {
  await using coordinator = coordinatorOf();
  let heard = 0;
  const listener = (): void => void heard++;
  coordinator.events.on('state', listener);
  await coordinator.prepare();
  coordinator.events.off('state', listener);
  await coordinator.cancel();
  expect(heard).toBe(1);
});

test('are on diagnostics channels for tools that do not hold the coordinator', async () => {
  const seen: string[] = [];
  const onState = (message: unknown): void => void seen.push(`state ${(message as { to: string }).to}`);
  const onDriver = (message: unknown): void => void seen.push(`driver ${(message as { driver: string }).driver}`);
  const onRollback = (): void => void seen.push('rolled back');
  const phases = tracingChannel('khorus:phase');
  const subscribers = {
    start: (message: unknown) => void seen.push(`start ${(message as { phase: string }).phase}`),
    end: (message: unknown) => void seen.push(`end ${(message as { phase: string }).phase}`),
    error: (message: unknown) => void seen.push(`error ${(message as { phase: string }).phase}`),
    asyncStart: () => {},
    asyncEnd: () => {},
  };
  subscribe('khorus:state', onState);
  subscribe('khorus:driver', onDriver);
  subscribe('khorus:rolled-back', onRollback);
  phases.subscribe(subscribers);
  try {
    await using coordinator = coordinatorOf("freeze() { throw new Error('boom') },");
    await expect(coordinator.handover()).rejects.toThrow('boom');
  } finally {
    unsubscribe('khorus:state', onState);
    unsubscribe('khorus:driver', onDriver);
    unsubscribe('khorus:rolled-back', onRollback);
    phases.unsubscribe(subscribers);
  }
  expect(seen.filter((line) => !line.startsWith('driver'))).toEqual([
    'start prepare',
    'end prepare',
    'state prepared',
    'start freeze',
    'error freeze',
    'end freeze',
    'start cancel',
    'end cancel',
    'rolled back',
    'state normal',
  ]);
  expect(seen).toContain('driver good');
});

test('phases and drivers become performance measures only if they are wanted', async () => {
  performance.clearMeasures();
  await using silent = coordinatorOf();
  (await silent.handover())[Symbol.dispose]();
  expect(performance.getEntriesByType('measure')).toEqual([]);
  await using marked = coordinatorOf('', { performanceMarks: true });
  (await marked.handover())[Symbol.dispose]();
  const names = performance.getEntriesByType('measure').map(({ name }) => name);
  performance.clearMeasures();
  expect(names).toEqual(expect.arrayContaining(['khorus prepare', 'khorus serialize', 'khorus serialize tested']));
});
