/** The successor's process: gets a {@link SuccessorInput} as its only message, and answers once. */
import { writeSync } from 'node:fs';
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

// Who was to get the answer is gone, killed perhaps: nobody else would end this process.
process.once('disconnect', () => process.exit(1));

/** A line of the parent's: written at once, because the code that follows may never give the loop back. */
function tell(step: SuccessorStep): void {
  writeSync(STEPS_FD, `${JSON.stringify(step)}\n`);
}
