import { type ResourceLimits, Worker } from 'node:worker_threads';
import type { SuccessorReport } from '../coordinator/index.js';
import { KhoError, type SerializedKhoError } from '../errors.js';
import type { SuccessorInput } from '../successor/index.js';
import type { SuccessorFaults } from './successor-faults.js';

type Answer = { readonly report: SuccessorReport } | { readonly error: SerializedKhoError };

/**
 * Successors on a thread that is kept from one to the next, which takes milliseconds where a process takes a second. It has
 * its memory from the image alone, as a process has. One at a time; a thread that dies or is ended is replaced.
 */
export class TestSuccessor implements AsyncDisposable {
  readonly #limits: ResourceLimits | undefined;
  #worker: Worker | undefined;

  constructor(resourceLimits?: ResourceLimits) {
    this.#limits = resourceLimits;
  }

  /** Rejects with what early boot found wrong, or with KHO_EWORKER if the thread dies. */
  async restore(input: SuccessorInput, faults?: SuccessorFaults): Promise<SuccessorReport> {
    const worker = this.#start();
    const listening = new AbortController();
    const answer = await new Promise<Answer>((resolve, reject) => {
      const died = (how: string): void => {
        this.#worker = undefined;
        reject(new KhoError('KHO_EWORKER', `the successor's thread ${how}`));
      };
      const { signal } = listening;
      const listen = <T>(event: string, listener: (value: T) => void): void => {
        worker.on(event, listener);
        signal.addEventListener('abort', () => worker.off(event, listener));
      };
      listen('message', resolve);
      listen('error', (error: Error) => died(`died: ${error.message}`));
      listen('exit', (code) => died(`exited with code ${String(code)}`));
      worker.postMessage({ input, ...(faults && { faults }) });
    }).finally(() => listening.abort());
    if ('error' in answer) throw KhoError.from(answer.error);
    return answer.report;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  #start(): Worker {
    this.#worker ??= new Worker(new URL('./successor-thread.js', import.meta.url), {
      name: 'successor',
      ...(this.#limits && { resourceLimits: this.#limits }),
    });
    return this.#worker;
  }
}
