import { threadId } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { describeRegistrations } from './describe.js';
import { LiveStates } from './live-states.js';
import { RunState } from './run-state.js';
import { standBy } from './stand-by.js';
import type { AttachTask, Task, TaskAnswer } from './task.js';

/** How long threads wait for each other in an attach task. */
const BARRIER_TIMEOUT_MS = 30_000;

const runs = new Map<string, RunState>();
const live = new LiveStates();

/** Runs one task on this thread: the entry of pool workers and of driver hosts. */
export async function runTask(task: Task): Promise<TaskAnswer> {
  if (task.kind === 'describe') return describeRegistrations(task);
  if (task.kind === 'attach') return attach(task);
  if (task.kind === 'stand-by') {
    arrive(task.barrier);
    const run = runs.get(task.runId);
    await standBy(task, run !== undefined, async (order) => run?.run(order) ?? emptyAnswer(false));
    return emptyAnswer(true);
  }
  const run = runs.get(task.runId);
  if (task.kind === 'prepared') {
    run?.setPrepared(task.prepared);
    if (task.barrier !== undefined) arrive(task.barrier);
    return emptyAnswer(run !== undefined);
  }
  if (run === undefined) return emptyAnswer(false);
  return task.kind === 'render' ? run.render(task) : run.run(task);
}

function emptyAnswer(attached: boolean): TaskAnswer {
  return { threadId, attached, spans: new Float64Array(0), values: [], failures: [] };
}

async function attach({ description, alive, barrier }: AttachTask): Promise<TaskAnswer> {
  const answer = emptyAnswer(true);
  try {
    if (!runs.has(description.id)) runs.set(description.id, await RunState.attach(description, live));
    for (const id of runs.keys()) if (!alive.includes(id)) runs.delete(id);
    return answer;
  } catch (thrown) {
    return { ...answer, failures: [{ position: 0, error: KhoError.from(thrown).toJSON() }] };
  } finally {
    if (barrier !== undefined) arrive(barrier);
  }
}

/** Waits until every thread has arrived. A thread that fails arrives too, so nobody waits in vain. */
function arrive({ arrived, threads }: NonNullable<AttachTask['barrier']>): void {
  const words = new Int32Array(arrived);
  let count = Atomics.add(words, 0, 1) + 1;
  Atomics.notify(words, 0);
  const deadline = performance.now() + BARRIER_TIMEOUT_MS;
  while (count < threads) {
    const left = deadline - performance.now();
    if (left <= 0 || Atomics.wait(words, 0, count, left) === 'timed-out') {
      throw new KhoError(
        'KHO_EWORKER',
        `only ${count} of ${threads} workers were ready within ${BARRIER_TIMEOUT_MS} ms`,
      );
    }
    count = Atomics.load(words, 0);
  }
}
