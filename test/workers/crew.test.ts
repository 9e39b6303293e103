import { type MessagePort, Worker } from 'node:worker_threads';
import { Coordinator, Host, WorkerPool } from 'khorus';
import { describe, expect, test } from 'vitest';
import { Crew } from '#dist/workers/crew.js';
import type { CallbackTask, StandByTask } from '#dist/workers/index.js';
import { WorkList } from '#dist/workers/work-list.js';

const STAND_BY = import.meta.resolve('#dist/workers/stand-by.js');
/** A thread that stands by, and takes a while, always another one, before and after its answers. */
const SOURCE = `
  import { parentPort, threadId, workerData } from 'node:worker_threads';
  const { standBy } = await import(${JSON.stringify(STAND_BY)});
  const pause = (n) => { for (let i = 0; i < n; i++); };
  parentPort.once('message', async (task) => {
    await standBy(task, workerData.knows, async (order) => {
      pause(Math.random() * 20_000);
      return { threadId, attached: true, spans: new Float64Array(0), values: [order.items.length], failures: [] };
    });
    parentPort.postMessage('left');
  });`;

function gather(threads: number, knows: (slot: number) => boolean = () => true): Promise<Crew | undefined> {
  return Crew.gather('run', threads, (task: StandByTask, transfer: readonly MessagePort[]) => {
    const url = new URL(`data:text/javascript,${encodeURIComponent(SOURCE)}`);
    const worker = new Worker(url, { workerData: { knows: knows(task.slot) } });
    worker.postMessage({ ...task, barrier: undefined }, [...transfer]);
    return new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', () => reject(new Error('the thread is gone')));
    }).finally(() => worker.terminate());
  });
}

function tasks(count: number, items: number): CallbackTask[] {
  const list = WorkList.create(0, count).handle;
  return Array.from({ length: count }, (_, slot) => ({
    ...({ kind: 'callback', runId: 'run', phase: 'freeze', collectFailures: false } as const),
    ...{ items: new Int32Array(items), list, slot },
  }));
}

test.each([2, 5, 12])(
  '%i threads answer every round, whoever takes part, asleep or awake',
  async (threads) => {
    const crew = (await gather(threads)) as Crew;
    for (let round = 0; round < 3000; round++) {
      const count = 1 + ((round * 7) % threads);
      const items = round % 5 === 0 ? 5000 : 0; // a message that takes a while to be sent
      const answers = await Promise.all(crew.run(tasks(count, items)));
      expect(answers.map(({ values }) => values[0])).toEqual(Array(count).fill(items));
      if (round % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 2)); // until all sleep
    }
    await crew.dismiss();
  },
  60_000,
);

test('threads that have not woken up from a round when they are dismissed answer it and leave', async () => {
  for (let time = 0; time < 20; time++) {
    const crew = (await gather(4)) as Crew;
    const answers = Promise.all(crew.run(tasks(4, time)));
    await crew.dismiss();
    await crew.dismiss();
    expect((await answers).map(({ values }) => values[0])).toEqual(Array(4).fill(time));
  }
}, 60_000);

test('a crew with a thread that does not know the run is none', async () => {
  expect(await gather(3, (slot) => slot !== 1)).toBeUndefined();
});

describe('pools that several hosts share', () => {
  const hostOf = () =>
    new Host({
      ...({ arch: 'x86_64', memory: 128 * 2 ** 20, nodes: 1, cmdline: 'kho=on kho_scratch=8M,8M,8M' } as const),
      ...{ cpus: 1, release: '7.2.0-test' },
    });
  const moduleOf = (name: string, hosted: boolean) => {
    const source = `export default { name: '${name}', compatible: '${name}-v1', hosted: ${hosted}, shards: () => [{}],
      create: () => null, restore: () => null, snapshot: () => null, freeze() {},
      prepare() { return { name: '${name}' } },
      serialize(ctx) { ctx.root.string('name', ctx.prepared.name); } }`;
    return { url: `data:text/javascript,${encodeURIComponent(source)}`, origin: name };
  };
  const coordinatorOf = (pool: WorkerPool, index: number) => {
    const options = { mode: index % 2 === 0 ? 'hash' : 'subfdt', workers: 2, seed: index, profile: 'kho-v4' } as const;
    const coordinator = new Coordinator(hostOf(), { ...options, pool });
    const base = { options: undefined, priority: 0 };
    coordinator.register({ ...base, module: moduleOf(`hosted-${index}`, true), count: 1, after: [] });
    coordinator.register({ ...base, module: moduleOf(`pooled-${index}`, false), count: 5, after: [`hosted-${index}`] });
    return coordinator;
  };

  test('hand over at the same time, again and again, and each gets what is its own', async () => {
    const pool = new WorkerPool({ threads: 2 });
    const coordinators = [0, 1, 2, 3, 4, 5].map((index) => coordinatorOf(pool, index));
    await Promise.all(
      coordinators.map(async (coordinator, index) => {
        for (let time = 0; time < 15; time++) {
          using handover = await coordinator.handover();
          expect(handover.blob(`pooled-${index}`)?.length).toBeGreaterThan(72);
        }
      }),
    );
    await Promise.all(coordinators.map((coordinator) => coordinator[Symbol.asyncDispose]()));
    await pool[Symbol.asyncDispose]();
  }, 60_000);

  test('a run that is aborted at any moment before its blackout is rolled back, and the next one works', async () => {
    const pool = new WorkerPool({ threads: 2 });
    const coordinator = coordinatorOf(pool, 0);
    (await coordinator.handover())[Symbol.dispose]();
    for (let time = 0; time < 60; time++) {
      const abort = new AbortController();
      const begun = performance.now();
      const outcome = coordinator.handover({ signal: abort.signal }).then(
        (handover) => {
          handover[Symbol.dispose]();
          return 'done';
        },
        (error: { code: string }) => error.code,
      );
      // In steps of 0.2 ms from the start on, through prepare and the gathering of the threads, into the blackout.
      while (performance.now() - begun < time * 0.2) await new Promise((resolve) => setImmediate(resolve));
      abort.abort();
      expect(['done', 'KHO_ECANCELED']).toContain(await outcome);
    }
    (await coordinator.handover())[Symbol.dispose]();
    await coordinator[Symbol.asyncDispose]();
    await pool[Symbol.asyncDispose]();
  }, 60_000);
});
