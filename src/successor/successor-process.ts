/** The successor's process: gets a {@link SuccessorInput} as its only message, and answers once. */
import { KhoError } from '../errors.js';
import { restoreImage, type SuccessorInput } from './restore.js';

process.once('message', (input: SuccessorInput) => {
  restoreImage(input)
    .then(
      (report) => ({ report }),
      (thrown: unknown) => ({ error: KhoError.from(thrown, 'KHO_EIMAGE').toJSON() }),
    )
    // A driver's timer must not keep the process alive once the answer is out.
    .then((answer) => process.send?.(answer, () => process.exit(0)));
});
