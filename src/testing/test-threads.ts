import type { ResourceLimits } from 'node:worker_threads';
import { WorkerPool } from '../workers/index.js';
import { TestSuccessor } from './test-successor.js';
import { WorkerWatch } from './worker-watch.js';

export interface TestThreadsOptions {
  /** Threads of the pool; default 2. */
  readonly workers?: number;
  readonly resourceLimits?: ResourceLimits;
}

/**
 * The threads of a harness: a pool, and the successor's. They take a quarter of a second to start, so several harnesses,
 * one after another, may use the same.
 */
export class TestThreads implements AsyncDisposable {
  /** Begins before any thread does: it knows only those that it saw begin. */
  readonly watch = new WorkerWatch();
  readonly pool: WorkerPool;
  readonly successor: TestSuccessor;
  readonly resourceLimits: ResourceLimits | undefined;

  constructor({ workers = 2, resourceLimits }: TestThreadsOptions = {}) {
    this.resourceLimits = resourceLimits;
    this.pool = new WorkerPool({ threads: workers, ...(resourceLimits && { resourceLimits }) });
    this.successor = new TestSuccessor(resourceLimits);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.pool[Symbol.asyncDispose](), this.successor[Symbol.asyncDispose]()]);
    this.watch[Symbol.dispose]();
  }
}
