import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { SuccessorReport } from '../coordinator/index.js';
import { KhoError, type SerializedKhoError } from '../errors.js';
import type { SuccessorInput } from './restore.js';

type Answer = { readonly report: SuccessorReport } | { readonly error: SerializedKhoError };

/**
 * Starts a successor in a process of its own, which knows only its input, and waits for its report.
 *
 * Rejects with what early boot found wrong, with KHO_EWORKER if the process ends without an answer, with KHO_ECANCELED
 * (or the signal's own KhoError) when aborted. The process is gone in every case.
 */
export async function startSuccessor(input: SuccessorInput, signal?: AbortSignal): Promise<SuccessorReport> {
  const child = fork(fileURLToPath(new URL('./successor-process.js', import.meta.url)), {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    execArgv: [],
  });
  let words = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString()).slice(-2000);
  });
  const abort = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', abort);
  try {
    const answer = await new Promise<Answer>((resolve, reject) => {
      child.once('message', (message) => resolve(message as Answer));
      child.once('error', reject);
      child.once('exit', (code, name) => {
        const how = name === null ? `exited with code ${code}` : `was ended by ${name}`;
        reject(
          new KhoError(
            'KHO_EWORKER',
            `the successor ${how} without an answer${words === '' ? '' : `: ${words.trim()}`}`,
          ),
        );
      });
      if (signal?.aborted) abort();
      else child.send(input);
    });
    if ('error' in answer) throw KhoError.from(answer.error);
    return answer.report;
  } catch (error) {
    if (signal?.aborted) {
      throw signal.reason instanceof KhoError
        ? signal.reason
        : new KhoError('KHO_ECANCELED', 'the restore was aborted');
    }
    throw KhoError.from(error, 'KHO_EWORKER');
  } finally {
    signal?.removeEventListener('abort', abort);
    child.kill('SIGKILL');
  }
}
