import { receiveMessageOnPort } from 'node:worker_threads';
import { Gate } from './gate.js';
import type { CallbackTask, StandByTask, TaskAnswer } from './task.js';

/** What the main thread sends to a thread that stands by. */
export type CrewOrder = CallbackTask | 'leave';

/**
 * Keeps a thread of the pool at hand for the blackout: it takes tasks from its own port, one a round, until it is told to
 * leave. Nothing else of the thread's goes on meanwhile but what a task waits for.
 */
export async function standBy(
  { gate: buffer, slot, port }: StandByTask,
  run: (task: CallbackTask) => Promise<TaskAnswer>,
): Promise<void> {
  const gate = Gate.attach(buffer);
  port.postMessage('ready');
  let spin = true;
  try {
    for (let round = 0; ; ) {
      round = gate.pass(slot, round, spin);
      // More than one if the rounds came faster than this thread woke up.
      for (;;) {
        const order = receiveMessageOnPort(port)?.message as CrewOrder | undefined;
        if (order === undefined) break;
        gate.wakeNext(slot);
        if (order === 'leave') return;
        port.postMessage(await run(order));
        spin = order.staysAwake;
      }
    }
  } finally {
    port.close();
  }
}
