import { Coordinator, type CoordinatorOptions, Host } from 'khorus';
import { expect, test } from 'vitest';
import { driverModule, SMALL_HOST } from '../support/drivers.js';

const host = new Host(SMALL_HOST);
const PLAN = { mode: 'hash', workers: 1, seed: 1, profile: 'kho-v4' } as const;

/** What types hold back, but plain JavaScript does not. */
const WRONG: [string, object][] = [
  ['mode', { mode: 'zz' }],
  ['trigger', { trigger: 'bogus' }],
  ['workers', { workers: 0 }],
  ['budget', { budget: null }],
  ['onShutdownFailure', { onShutdownFailure: 'x' }],
  ['lateWrites', { lateWrites: 'bogus' }],
  ['seed', { seed: Number.NaN }],
  ['callbackLimit', { callbackLimit: 0 }],
  ['grace', { grace: -1 }],
  ['budget.onOverrun', { budget: { blackout: 5, onOverrun: 'abort' } }],
  ['budget.onOverrun', { budget: { blackout: 5 } }],
  ...[-1, 0, Number.NaN, '5'].map((blackout): [string, object] => [
    'budget.blackout',
    { budget: { blackout, onOverrun: 'cancel' } },
  ]),
  ['budget.phases', { budget: { phases: { frooze: 1 }, onOverrun: 'cancel' } }],
  ['budget.phases.freeze', { budget: { phases: { freeze: Number.NaN }, onOverrun: 'cancel' } }],
];

test.each(WRONG)('an option %s that is none (%j) is KHO_EINVAL with its field', (field, wrong) => {
  const options = { ...PLAN, ...wrong } as CoordinatorOptions;
  expect(() => new Coordinator(host, options)).toThrow(
    expect.objectContaining({ code: 'KHO_EINVAL', details: { field } }),
  );
});

test.each([
  ['count', { count: 1.5 }],
  ['priority', { priority: Number.NaN }],
  ['budget', { budget: 0 }],
])("so is a registration's %s", async (field, wrong) => {
  await using coordinator = new Coordinator(host, PLAN);
  const registration = { module: driverModule('one'), count: 1, options: {}, after: [], priority: 0, ...wrong };
  expect(() => coordinator.register(registration)).toThrow(
    expect.objectContaining({ code: 'KHO_EINVAL', details: { field } }),
  );
});
