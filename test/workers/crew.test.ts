import { WorkerPool } from 'khorus';
import { afterAll, expect, test } from 'vitest';
import type { CallbackTask } from '#dist/workers/index.js';
import { WorkList } from '#dist/workers/work-list.js';

const THREADS = 4;
const pool = new WorkerPool({ threads: THREADS });
afterAll(() => pool[Symbol.asyncDispose]());

/** Tasks of a run that no thread knows: each answers at once, that it does not. */
function tasks(count: number, staysAwake: boolean): CallbackTask[] {
  const list = WorkList.create(0, count).handle;
  return Array.from({ length: count }, (_, slot) => ({
    ...({ kind: 'callback', runId: 'none', phase: 'freeze', collectFailures: false } as const),
    ...{ items: new Int32Array(0), list, slot, staysAwake },
  }));
}

async function answersOf(count: number, staysAwake = false): Promise<unknown[]> {
  const settled = await Promise.allSettled(pool.runAll(tasks(count, staysAwake)));
  return settled.map((one) => (one.status === 'rejected' ? one.reason.message : one.value));
}

const UNKNOWN = 'a thread that stands by does not know the run';

test('threads that stand by answer every round, whoever takes part, sleeping or awake', async () => {
  await pool.standBy();
  for (let round = 0; round < 400; round++) {
    const count = 1 + ((round * 7) % THREADS);
    expect(await answersOf(count, round % 3 === 0)).toEqual(Array(count).fill(UNKNOWN));
    if (round % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2)); // until all sleep
  }
  await pool.dismiss();
});

test('threads can be dismissed while they have not woken up from the round before, again and again', async () => {
  for (let time = 0; time < 100; time++) {
    await pool.standBy();
    const answers = answersOf(THREADS);
    await pool.dismiss();
    expect(await answers).toEqual(Array(THREADS).fill(UNKNOWN));
  }
});

test('to be dismissed without standing by, and to stand by twice, does no harm', async () => {
  await pool.dismiss();
  await pool.standBy();
  await pool.standBy();
  expect(await answersOf(2)).toEqual([UNKNOWN, UNKNOWN]);
  await pool.dismiss();
  await pool.dismiss();
});

test('a pool whose threads stand by can be restarted', async () => {
  await pool.standBy();
  await pool.restart();
  await pool.standBy();
  expect(await answersOf(THREADS)).toEqual(Array(THREADS).fill(UNKNOWN));
  await pool.dismiss();
});
