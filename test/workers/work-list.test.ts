import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { WorkList } from '#dist/workers/work-list.js';

test('every position is taken once, in order, and then there is none', () => {
  const list = WorkList.create(3, 1);
  expect([list.take(0), list.take(0), list.take(0), list.take(0), list.take(0)]).toEqual([
    0,
    1,
    2,
    undefined,
    undefined,
  ]);
  expect(list.taken).toBe(3);
});

test('what succeeded is known, whoever did it', () => {
  const list = WorkList.create(5, 1);
  list.take(0);
  list.take(0);
  WorkList.attach(list.handle).finish(1);
  expect([0, 1, 4].map((position) => list.isFinished(position))).toEqual([false, true, false]);
});

test('a slot has a current position from taking it until it takes again or is left', () => {
  const list = WorkList.create(3, 2);
  expect(list.current(1)).toBeUndefined();
  list.take(0);
  list.take(1);
  expect([list.current(0), list.current(1)]).toEqual([0, 1]);
  list.take(0);
  expect(list.current(0)).toBe(2);
  list.take(0);
  expect(list.current(0)).toBeUndefined();
  list.leave(1);
  expect(list.current(1)).toBeUndefined();
});

test('nobody takes from a closed list, however often they try', () => {
  const list = WorkList.create(10, 2);
  list.take(0);
  list.close();
  expect([list.take(1), list.take(1), list.take(0)]).toEqual([undefined, undefined, undefined]);
  expect(list.taken).toBe(10);
});

test('an empty list has nothing to take', () => {
  expect(WorkList.create(0, 0).taken).toBe(0);
});

test('threads that take at the same time share the list out: no position twice, none left', async () => {
  const length = 20_000;
  const threads = 4;
  const list = WorkList.create(length, threads);
  const counts = new SharedArrayBuffer(length * 4);
  const gate = new SharedArrayBuffer(4);
  const url = import.meta.resolve('#dist/workers/work-list.js');
  const source = `
    import { workerData } from 'node:worker_threads';
    const { handle, slot, counts, gate, threads } = workerData;
    const { WorkList } = await import(${JSON.stringify(url)});
    const list = WorkList.attach(handle);
    const words = new Int32Array(counts);
    const arrived = new Int32Array(gate);
    Atomics.add(arrived, 0, 1);
    while (Atomics.load(arrived, 0) < threads);
    for (let position = list.take(slot); position !== undefined; position = list.take(slot)) Atomics.add(words, position, 1);`;
  const workers = Array.from({ length: threads }, (_, slot) => {
    const workerData = { handle: list.handle, slot, counts, gate, threads };
    return new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData });
  });
  const codes = await Promise.all(workers.map(async (worker) => (await once(worker, 'exit'))[0]));
  expect(codes).toEqual([0, 0, 0, 0]);
  expect(new Int32Array(counts).every((count) => count === 1)).toBe(true);
});
