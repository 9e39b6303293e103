import { FdtReader } from 'khorus/fdt';
import { type FaultKind, HandoverHarness, type HarnessOptions, ManualClock, TestThreads } from 'khorus/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const PAD = new URL('../../dist/testing/drivers/pad.js', import.meta.url);
const LIVE_PAD = new URL('../../dist/testing/drivers/live-pad.js', import.meta.url);

let threads: TestThreads;
beforeAll(() => {
  threads = new TestThreads({ resourceLimits: { maxOldGenerationSizeMb: 64 } });
});
afterAll(() => threads[Symbol.asyncDispose]());

function create(options: Partial<HarnessOptions> = {}): Promise<HandoverHarness> {
  const drivers = [
    { use: PAD, count: 2 },
    { use: LIVE_PAD, after: ['pad'] },
  ];
  return HandoverHarness.create({ threads, drivers, ...options });
}

test('drivers of both kinds are handed over, and what came of it can be looked at', async () => {
  await using harness = await create({
    drivers: [
      { use: PAD, count: 2 },
      { use: 'netdevsim', options: { queues: 2 } },
    ],
  });
  const outcome = harness.assertHandedOver(await harness.handover());
  expect(outcome.restored).toEqual(['pad/pad0', 'pad/pad1', 'netdevsim/netdevsim0']);
  expect(outcome.timeline.phases.map(({ phase }) => phase)).toContain('serialize');
  const blob = FdtReader.open(outcome.blob('pad') ?? new Uint8Array());
  expect([...blob.root.children()].map(({ name }) => name)).toEqual(['pad0', 'pad1']);
  harness.assertNoLeaks();
});

const FAULTS: [FaultKind, string][] = [
  ['throw', 'KHO_EDRIVER'],
  ['hang', 'KHO_ETIMEDOUT'],
  ['exit', 'KHO_EWORKER'],
  ['terminate', 'KHO_EWORKER'],
  ['out of memory', 'KHO_EWORKER'],
  ['too many bytes', 'KHO_ENOSPC'],
  ['too many nodes', 'KHO_ENOSPC'],
  ['too many pages', 'KHO_ENOMEM'],
  ['foreign free', 'KHO_EPERM'],
  ['foreign unpreserve', 'KHO_EPERM'],
  ['foreign write', 'KHO_EPERM'],
  ['collision', 'KHO_EEXIST'],
];

describe.each(['pad', 'live-pad'])('a fault in serialize of %s', (driver) => {
  test.each(FAULTS)('%s: the handover is rolled back with %s, and the next one works', async (fault, code) => {
    await using harness = await create();
    harness.inject({ driver, instance: 0, callback: 'serialize', fault, when: 'midway' });
    const outcome = await harness.handover();
    harness.assertRolledBack(outcome, {
      code: code as 'KHO_EDRIVER',
      driver,
      instance: `${driver}0`,
      phase: 'serialize',
    });
    expect(harness.faults()).toMatchObject([{ fault, struck: 1 }]);
    harness.assertHandedOver(await harness.handover());
    harness.assertNoLeaks();
  });
});

test.each(['reject', 'never', 'rejection', 'uncaught'] as const)('%s in a callback that may wait', async (fault) => {
  await using harness = await create();
  harness.inject({ driver: 'pad', callback: 'prepare', fault });
  harness.assertRolledBack(await harness.handover(), { driver: 'pad', phase: 'prepare' });
  harness.assertHandedOver(await harness.handover());
});

test('a device that writes after it was frozen is found at the jump', async () => {
  await using harness = await create();
  harness.inject({ driver: 'live-pad', callback: 'serialize', fault: 'late write' });
  harness.assertRolledBack(await harness.handover(), { code: 'KHO_EDIGEST', driver: 'live-pad', phase: 'jump' });
  harness.assertHandedOver(await harness.handover());
});

test('an abort while a callback runs', async () => {
  await using harness = await create();
  harness.inject({ driver: 'pad', callback: 'freeze', fault: 'abort' });
  harness.assertRolledBack(await harness.handover(), { code: 'KHO_ECANCELED' });
});

test('a cancel that fails is told, and what its driver did not give back is taken back', async () => {
  await using harness = await create();
  harness
    .inject({ driver: 'pad', instance: 1, callback: 'serialize', fault: 'throw' })
    .inject({ driver: 'pad', instance: 1, callback: 'cancel', fault: 'throw' });
  const outcome = harness.assertRolledBack(await harness.handover(), { code: 'KHO_EDRIVER', instance: 'pad1' });
  expect(outcome.rollback?.failures).toMatchObject([{ details: { instance: 'pad1', phase: 'cancel' } }]);
  expect(outcome.rollback?.reclaimed).toContainEqual(expect.objectContaining({ instance: 'pad1', shard: 0 }));
});

test('what goes wrong in the successor is told of its driver alone, and the image is unharmed', async () => {
  await using harness = await create();
  harness.inject({ driver: 'pad', instance: 1, callback: 'restore', fault: 'throw' });
  const outcome = await harness.handover();
  if (outcome.state !== 'handed over') throw outcome.error;
  expect(outcome.restored).toEqual(['pad/pad0', 'live-pad/live-pad0']);
  expect(() => harness.assertHandedOver(outcome)).toThrow(/injected: throw in restore of pad/);
  harness.assertHandedOver(await harness.restoreAgain(outcome));
});

test('a successor that hangs is ended, and the next one restores', async () => {
  await using harness = await create();
  harness.inject({ driver: 'pad', callback: 'restore', fault: 'hang' });
  const outcome = await harness.handover();
  if (outcome.state !== 'handed over') throw outcome.error;
  expect(outcome.failures).toMatchObject([{ code: 'KHO_EWORKER' }]);
  harness.assertHandedOver(await harness.restoreAgain(outcome));
});

test('a successor without a driver leaves its memory unclaimed', async () => {
  await using harness = await create();
  harness.successorDrivers((modules) => modules.filter(({ url }) => !url.includes('live-pad')));
  const outcome = await harness.handover();
  if (outcome.state !== 'handed over') throw outcome.error;
  expect(outcome.restored).toEqual(['pad/pad0', 'pad/pad1']);
  expect(outcome.failures.map(({ code }) => code)).toEqual(expect.arrayContaining(['KHO_ENOENT', 'KHO_EBUSY']));
});

test('the successor can be a process of its own', async () => {
  await using harness = await create({ successor: 'process' });
  harness.assertHandedOver(await harness.handover());
});

test("calls of one's own are judged the same way, and cancelled if they stop half way", async () => {
  await using harness = await create();
  const outcome = await harness.attempt(async (coordinator) => {
    await coordinator.prepare();
    await coordinator.freeze();
    return undefined;
  });
  harness.assertRolledBack(outcome, { code: 'KHO_ECANCELED' });
  harness.assertHandedOver(await harness.handover());
});

test('a fault strikes as often as it is planned, whatever is planned beside it', async () => {
  await using harness = await create();
  harness.inject({ driver: 'pad', instance: 0, callback: 'freeze', fault: 'throw', times: 2 });
  harness.assertRolledBack(await harness.handover());
  harness.inject({ driver: 'live-pad', callback: 'finish', fault: 'throw' });
  harness.assertRolledBack(await harness.handover());
  const outcome = await harness.handover();
  expect(outcome.state).toBe('handed over');
  expect(harness.faults().map(({ struck }) => struck)).toEqual([2, 1]);
});

test('a fault that cannot exist is refused with the reason', async () => {
  await using harness = await create();
  expect(() => harness.inject({ driver: 'pad', callback: 'serialize', fault: 'never' })).toThrow(
    /serialize is synchronous/,
  );
  expect(() => harness.inject({ driver: 'pad', callback: 'freeze', fault: 'too many nodes' })).toThrow(/no call/);
  expect(() => harness.inject({ driver: 'pad', callback: 'freeze', fault: 'boom' as FaultKind })).toThrow(
    /there is no fault 'boom'; there are throw, /,
  );
  expect(() => harness.inject({ driver: 'pad', callback: 'serialise' as 'serialize', fault: 'throw' })).toThrow(
    /there is no callback 'serialise'/,
  );
});

test('assertions that do not hold say what was expected and what was found', async () => {
  await using harness = await create();
  const handedOver = await harness.handover();
  expect(() => harness.assertRolledBack(handedOver)).toThrow('expected that it is rolled back, but it was handed over');
  harness.inject({ driver: 'pad', callback: 'freeze', fault: 'throw' });
  const rolledBack = await harness.handover();
  expect(() => harness.assertHandedOver(rolledBack)).toThrow(
    /rolled back: KHO_EDRIVER injected: throw in freeze of pad/,
  );
  expect(() => harness.assertRolledBack(rolledBack, { driver: 'live-pad' })).toThrow(
    /expected the driver live-pad, found pad/,
  );
});

test('a page that somebody took is a leak', async () => {
  await using harness = await create();
  harness.assertNoLeaks();
  const page = harness.host.pages.allocPages(0, 0);
  expect(() => harness.assertNoLeaks()).toThrow(/1 pages are not free any more/);
  harness.host.pages.free(page, 1);
  harness.assertNoLeaks();
});

test('the manual clock calls back in order, once, and not what was disposed of', () => {
  const clock = new ManualClock();
  const called: string[] = [];
  clock.timer(20, () => called.push(`b ${clock.now()}`));
  clock.timer(10, () => {
    called.push(`a ${clock.now()}`);
    clock.timer(5, () => called.push(`c ${clock.now()}`));
  });
  clock.timer(15, () => called.push('never'))[Symbol.dispose]();
  clock.advance(9);
  expect(called).toEqual([]);
  clock.advance(11);
  expect(called).toEqual(['a 10', 'c 15', 'b 20']);
  clock.advance(100);
  expect([called.length, clock.now(), clock.pending]).toEqual([3, 120, 0]);
});
