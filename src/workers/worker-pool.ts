import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { KhoError } from '../errors.js';
import { Crew } from './crew.js';
import type { TaskRunner } from './driver-host.js';
import type { RunDescription } from './run-description.js';
import type { AttachTask, CallbackTask, Task, TaskAnswer } from './task.js';

export interface WorkerPoolOptions {
  /** Default: the machine's available parallelism. */
  readonly threads?: number;
}

/** What a thread that replaces another one must be told. */
interface AttachedRun {
  readonly description: RunDescription;
  prepared: ReadonlyMap<number, unknown>;
}

/**
 * The worker threads for stateless drivers. They start when the pool is made and stay: one pool can serve many runs,
 * of several hosts. A task may go to any thread.
 */
export class WorkerPool implements TaskRunner {
  readonly threads: number;
  #piscina: Piscina;
  #crew: Crew | undefined;
  readonly #attached = new Map<string, AttachedRun>();

  constructor({ threads = availableParallelism() }: WorkerPoolOptions = {}) {
    if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
      throw new KhoError('KHO_EINVAL', `a pool has 1 to 1024 threads, not ${threads}`);
    }
    this.threads = threads;
    this.#piscina = startPiscina(threads);
  }

  /** The first error of any thread is thrown, after all have answered. */
  async attach(description: RunDescription): Promise<void> {
    await this.#attachAll(description);
    this.#attached.set(description.id, { description, prepared: new Map() });
  }

  async setPrepared(runId: string, prepared: ReadonlyMap<number, unknown>): Promise<void> {
    const run = this.#attached.get(runId);
    if (run !== undefined) run.prepared = prepared;
    await this.#onEveryThread((barrier) => ({ kind: 'prepared', runId, prepared, barrier }));
  }

  async run(task: Task): Promise<TaskAnswer> {
    const answer = await this.#run(task);
    if (answer.attached || !('runId' in task)) return answer;
    // The thread is new (it replaced one that died) or has forgotten the run. The next task may meet another such
    // thread, so the loop is bounded by the number of threads.
    const run = this.#attached.get(task.runId);
    if (run === undefined) throw new KhoError('KHO_EINVAL', `the pool is not attached to run ${task.runId}`);
    for (let attempt = 0; attempt <= this.threads; attempt++) {
      await this.#attachAll(run.description);
      await this.setPrepared(task.runId, run.prepared);
      const again = await this.#run(task);
      if (again.attached) return again;
    }
    throw new KhoError('KHO_EWORKER', `no thread of the pool stays attached to run ${task.runId}`);
  }

  runAll(tasks: readonly CallbackTask[]): Promise<TaskAnswer>[] {
    return this.#crew?.run(tasks) ?? tasks.map((task) => this.run(task));
  }

  async standBy(): Promise<void> {
    this.#crew ??= await Crew.gather(this.threads, (task, transfer) => this.#run(task, transfer));
  }

  async dismiss(): Promise<void> {
    const crew = this.#crew;
    this.#crew = undefined;
    await crew?.dismiss();
  }

  /** Forgets a run that is over. */
  detach(runId: string): void {
    this.#attached.delete(runId);
  }

  async restart(): Promise<void> {
    const old = this.#piscina;
    this.#crew = undefined;
    this.#piscina = startPiscina(this.threads);
    await old.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#piscina.destroy();
  }

  async #attachAll(description: RunDescription): Promise<void> {
    const answers = await this.#onEveryThread((barrier) => ({ kind: 'attach', description, barrier }));
    for (const { failures } of answers) if (failures[0] !== undefined) throw KhoError.from(failures[0].error);
  }

  /** As many tasks as threads, each of which waits for all others: so no thread takes two. */
  async #onEveryThread(taskWith: (barrier: NonNullable<AttachTask['barrier']>) => Task): Promise<TaskAnswer[]> {
    const task = taskWith({ arrived: new SharedArrayBuffer(4), threads: this.threads });
    return await Promise.all(Array.from({ length: this.threads }, () => this.#run(task)));
  }

  async #run(task: Task, transferList: readonly MessagePort[] = []): Promise<TaskAnswer> {
    try {
      return (await this.#piscina.run(task, { transferList: [...transferList] })) as TaskAnswer;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new KhoError('KHO_EWORKER', `a worker of the pool failed: ${reason}`, {}, { cause: error });
    }
  }
}

function startPiscina(threads: number): Piscina {
  return new Piscina({
    filename: fileURLToPath(new URL('./pool-worker.js', import.meta.url)),
    minThreads: threads,
    maxThreads: threads,
    idleTimeout: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: 1,
  });
}
