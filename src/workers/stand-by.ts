import { receiveMessageOnPort } from 'node:worker_threads';
import { Gate } from './gate.js';
import type { CallbackTask, StandByTask, TaskAnswer } from './task.js';

/** What the main thread sends to a thread that stands by. */
export type CrewOrder = CallbackTask | 'leave';

/**
 * Keeps a thread of the pool at hand for the blackout: it takes tasks from its own port, one a round, until it is told to
 * leave. Nothing else of the thread's goes on meanwhile but what a task waits for. `knows`: whether the thread is attached
 * to the run.
 */
export async function standBy(
  { gate: buffer, slot, port }: StandByTask,
  knows: boolean,
  run: (task: CallbackTask) => Promise<TaskAnswer>,
): Promise<void> {
  const gate = Gate.attach(buffer);
  port.postMessage(knows ? 'ready' : 'stranger');
  try {
    for (let round = 0; ; ) {
      const open = gate.pass(slot, round);
      // One message for each round, and not before the round is open: whoever takes one early does not know whom to wake.
      for (; round !== open; round++) {
        const order = receiveMessageOnPort(port)?.message as CrewOrder;
        if (order === 'leave') return;
        port.postMessage(await run(order));
      }
    }
  } finally {
    port.close();
  }
}
