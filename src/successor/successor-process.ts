/** The successor's process: gets a {@link SuccessorInput} as its only message, and answers once. */
import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { restoreImage, type SuccessorInput, type SuccessorStep } from './restore.js';
import { STEPS_FD } from './start-successor.js';

process.once('message', (input: SuccessorInput) => {
  restoreImage(input, tell)
    .then(
      (report) => ({ report }),
      (thrown: unknown) => ({ error: KhoError.from(thrown, 'KHO_EIMAGE').toJSON() }),
    )
    // A driver's timer must not keep the process alive once the answer is out.
    .then((answer) => process.send?.(answer, () => process.exit(0)));
});

// Who was to get the answer is gone, killed perhaps: nobody else would end this process. A driver that never gives the loop
// back would keep that from being heard; so a thread looks who the parent is, once a second, and ends the process from outside.
process.once('disconnect', () => process.exit(1));
new Worker(
  `const parent = process.ppid;
   setInterval(() => { if (process.ppid !== parent) process.kill(process.pid, 'SIGKILL'); }, 1000);`,
  { eval: true },
).unref();

/** A line of the parent's: written at once, because the code that follows may never give the loop back. */
function tell(step: SuccessorStep): void {
  writeSync(STEPS_FD, `${JSON.stringify(step)}\n`);
}
