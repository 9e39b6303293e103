import { HandoverHarness, TestThreads } from 'khorus/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';

/** What chaos has found in the coordinator, each by itself. */

const PAD = new URL('../../dist/testing/drivers/pad.js', import.meta.url);
let threads: TestThreads;
beforeAll(() => {
  threads = new TestThreads({ workers: 1 });
});
afterAll(() => threads[Symbol.asyncDispose]());

test('an instance that was frozen is unfrozen, though its thread died with the next one before it could tell', async () => {
  await using harness = await HandoverHarness.create({ threads, drivers: [{ use: PAD, count: 3 }] });
  harness.inject({ driver: 'pad', instance: 1, callback: 'freeze', fault: 'exit' });
  // A breach of the order is a leak: `cancelled while it was frozen, without unfreeze`.
  harness.assertRolledBack(await harness.handover(), { code: 'KHO_EWORKER', instance: 'pad1' });
  harness.assertHandedOver(await harness.handover());
});

test('an abort while the last device shuts down is rolled back, and nobody else hears of it', async () => {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown): void => void unhandled.push(reason);
  process.on('unhandledRejection', listener);
  await using harness = await HandoverHarness.create({ threads, drivers: [{ use: PAD }], trigger: 'shutdown' });
  harness.inject({ driver: 'pad', callback: 'shutdown', fault: 'abort' });
  harness.assertRolledBack(await harness.handover(), { code: 'KHO_ECANCELED' });
  harness.assertHandedOver(await harness.handover());
  process.off('unhandledRejection', listener);
  expect(unhandled).toEqual([]);
});
