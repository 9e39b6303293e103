import type { Worker } from 'node:worker_threads';

/**
 * The worker threads of this process that began while it watches, by their ids: so that one can be terminated from outside,
 * whoever has started it, and so that it can be seen whether one is gone. Node tells of every new worker.
 */
export class WorkerWatch implements Disposable {
  readonly #workers = new Map<number, Worker>();
  readonly #ending = new Set<number>();

  constructor() {
    process.on('worker', this.#began);
  }

  /** Terminates a thread, as `worker.terminate()` does; false if there is none of that id. */
  terminate(threadId: number): boolean {
    const worker = this.#workers.get(threadId);
    if (worker !== undefined && !this.#ending.has(threadId)) {
      this.#ending.add(threadId);
      void worker.terminate();
    }
    return worker !== undefined;
  }

  isAlive(threadId: number): boolean {
    return this.#workers.has(threadId);
  }

  /** Ids of the threads that run. */
  get threads(): readonly number[] {
    return [...this.#workers.keys()];
  }

  [Symbol.dispose](): void {
    process.off('worker', this.#began);
    this.#workers.clear();
  }

  readonly #began = (worker: Worker): void => {
    const { threadId } = worker;
    if (threadId < 0) return; // it has ended already
    this.#workers.set(threadId, worker);
    worker.once('exit', () => {
      this.#workers.delete(threadId);
      this.#ending.delete(threadId);
    });
  };
}
