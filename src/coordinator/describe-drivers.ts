import { KhoError } from '../errors.js';
import type { DescribedRegistration, TaskRunner } from '../workers/index.js';
import type { Clock } from './clock.js';
import { Interrupt } from './interrupt.js';
import type { DriverRegistration } from './plan.js';
import { buildRegistry, type Registry } from './registry.js';

/**
 * Asks the drivers what they are and need, on a thread of `runner`. The errors of buildRegistry(), or of a driver; KHO_ETIMEDOUT,
 * naming the module, if one does not answer within `limit` milliseconds. The thread is then ended.
 */
export async function describeDrivers(
  registrations: readonly DriverRegistration[],
  { runner, clock, limit, interrupt }: { runner: TaskRunner; clock: Clock; limit: number; interrupt: Interrupt },
): Promise<Registry> {
  const current = new SharedArrayBuffer(4);
  const questions = registrations.map(({ module, count, options }) => ({ module, count, options }));
  const task = runner.run({ kind: 'describe', registrations: questions, current });
  task.catch(() => {}); // seen by the race, unless that is over
  const late = new Interrupt();
  using _ = clock.timer(limit, () => {
    const { module } = registrations[Atomics.load(new Int32Array(current), 0)] ?? {};
    const text = `the driver ${module?.origin} did not say what it is within ${limit} ms`;
    late.end(new KhoError('KHO_ETIMEDOUT', text, { file: module?.origin ?? '' }));
  });
  const answer = await Promise.race([task, interrupt.promise, late.promise]).catch(async (error: unknown) => {
    // It may be at it for ever.
    await runner.restart();
    throw error;
  });
  const [failure] = answer.failures;
  if (failure !== undefined) {
    const where = registrations[failure.position]?.where;
    throw KhoError.from(failure.error).with(where === undefined ? {} : { file: where });
  }
  return buildRegistry(registrations, answer.values as DescribedRegistration[]);
}
