/** A thread that is one successor after another: see {@link TestSuccessor}. */
import { parentPort } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { restoreImage, type SuccessorInput } from '../successor/index.js';
import { type SuccessorFaults, setSuccessorFaults } from './successor-faults.js';

parentPort?.on('message', ({ input, faults }: { input: SuccessorInput; faults?: SuccessorFaults }) => {
  setSuccessorFaults(faults);
  restoreImage(input).then(
    (report) => parentPort?.postMessage({ report }),
    (thrown: unknown) => parentPort?.postMessage({ error: KhoError.from(thrown, 'KHO_EIMAGE').toJSON() }),
  );
});
