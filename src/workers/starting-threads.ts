import type { Worker } from 'node:worker_threads';

/** Milliseconds that a thread is given to start before it is ended nevertheless. */
const START_LIMIT_MS = 10_000;

/**
 * The threads that are still loading their own modules. To terminate one of them aborts the whole process now and then
 * (Node 20 and 22: an assertion in the loading of ES modules), so whoever ends threads waits until they have started.
 *
 * A thread has started with its first message, whatever that is; or it has died. Main thread only.
 */
export class StartingThreads {
  readonly #starting = new Map<Worker, Promise<void>>();
  readonly #known = new WeakSet<Worker>();

  /** Keeps an eye on threads that have just been made; on those that it knows, nothing. */
  watch(threads: Iterable<Worker>): void {
    for (const thread of threads) {
      if (this.#known.has(thread)) continue;
      this.#known.add(thread);
      const started = new Promise<void>((resolve) => {
        for (const event of ['message', 'error', 'exit']) thread.once(event, () => resolve());
      });
      this.#starting.set(
        thread,
        started.then(() => void this.#starting.delete(thread)),
      );
    }
  }

  /** Resolves when all have started; after a time anyway. Never rejects. */
  async settled(): Promise<void> {
    if (this.#starting.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, START_LIMIT_MS);
    });
    await Promise.race([Promise.all(this.#starting.values()), tooLong]);
    clearTimeout(timer);
  }
}
