/** A thread that is one successor after another: see {@link TestSuccessor}. */
import { parentPort } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { restoreImage, type SuccessorInput } from '../successor/index.js';
import type { FaultBoardHandle } from './fault-board.js';
import { setSuccessorFaults } from './successor-faults.js';

parentPort?.on('message', ({ input, board }: { input: SuccessorInput; board?: FaultBoardHandle }) => {
  setSuccessorFaults(board);
  restoreImage(input).then(
    (report) => parentPort?.postMessage({ report }),
    (thrown: unknown) => parentPort?.postMessage({ error: KhoError.from(thrown, 'KHO_EIMAGE').toJSON() }),
  );
});
