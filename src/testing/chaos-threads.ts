import { TestThreads } from './test-threads.js';

const all = new Map<number, TestThreads>();

/** The threads of this process for so many workers. They are started once, and end with the process. */
export function chaosThreads(workers: number): TestThreads {
  let threads = all.get(workers);
  if (threads === undefined) {
    threads = new TestThreads({ workers, resourceLimits: { maxOldGenerationSizeMb: 64 } });
    all.set(workers, threads);
  }
  return threads;
}
