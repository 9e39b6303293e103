import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { MessagePort, ResourceLimits } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { KhoError } from '../errors.js';
import { Crew } from './crew.js';
import type { TaskRunner } from './driver-host.js';
import type { RunDescription } from './run-description.js';
import { StartingThreads } from './starting-threads.js';
import type { AttachTask, CallbackTask, Task, TaskAnswer } from './task.js';

export interface WorkerPoolOptions {
  /** Default: the machine's available parallelism. */
  readonly threads?: number;
  /** Of each thread's heap and stack; a driver that needs more ends its thread, which is KHO_EWORKER. Default: Node's. */
  readonly resourceLimits?: ResourceLimits;
}

/** What a thread that replaces another one must be told. */
interface AttachedRun {
  readonly description: RunDescription;
  prepared: ReadonlyMap<number, unknown>;
  /** The threads, while they stand by for this run; only one run has them. */
  crew?: Crew | undefined;
  /** Settles when they have come. */
  gathering?: Promise<void> | undefined;
}

/**
 * The worker threads for stateless drivers. They start when the pool is made and stay: one pool can serve many runs,
 * of several hosts. A task may go to any thread.
 */
export class WorkerPool implements TaskRunner {
  readonly threads: number;
  readonly #limits: ResourceLimits | undefined;
  readonly #starting = new StartingThreads();
  #piscina: Piscina;
  readonly #attached = new Map<string, AttachedRun>();

  constructor({ threads = availableParallelism(), resourceLimits }: WorkerPoolOptions = {}) {
    if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
      throw new KhoError('KHO_EINVAL', `a pool has 1 to 1024 threads, not ${threads}`);
    }
    this.threads = threads;
    this.#limits = resourceLimits;
    this.#piscina = startPiscina(threads, resourceLimits, this.#starting);
  }

  /** The first error of any thread is thrown, after all have answered. */
  async attach(description: RunDescription): Promise<void> {
    this.#attached.set(description.id, { description, prepared: new Map() });
    await this.#attachAll(description);
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
    const run = this.#attachedRun(task.runId);
    for (let attempt = 0; attempt <= this.threads; attempt++) {
      await this.#attachAgain(run);
      const again = await this.#run(task);
      if (again.attached) return again;
    }
    throw new KhoError('KHO_EWORKER', `no thread of the pool stays attached to run ${task.runId}`);
  }

  runAll(tasks: readonly CallbackTask[]): Promise<TaskAnswer>[] {
    const crew = tasks[0] === undefined ? undefined : this.#attached.get(tasks[0].runId)?.crew;
    return crew?.run(tasks) ?? tasks.map((task) => this.run(task));
  }

  async standBy(runId: string): Promise<void> {
    const run = this.#attachedRun(runId);
    run.gathering ??= this.#gather(run);
    await run.gathering;
  }

  async dismiss(runId: string): Promise<void> {
    const run = this.#attached.get(runId);
    // Whoever was waiting for the threads waits no more, but they come nevertheless.
    await run?.gathering?.catch(() => {});
    const crew = run?.crew;
    if (run === undefined) return;
    run.gathering = undefined;
    run.crew = undefined;
    await crew?.dismiss();
  }

  async detach(runId: string): Promise<void> {
    await this.dismiss(runId);
    this.#attached.delete(runId);
  }

  /** A thread may have been replaced since it was attached, and the next one too: bounded by the number of threads. */
  async #gather(run: AttachedRun): Promise<void> {
    const { id } = run.description;
    for (let attempt = 0; attempt <= this.threads; attempt++) {
      run.crew = await Crew.gather(id, this.threads, (task, transfer) => this.#run(task, transfer));
      if (run.crew !== undefined) return;
      await this.#attachAgain(run);
    }
    throw new KhoError('KHO_EWORKER', `no thread of the pool stays attached to run ${id}`);
  }

  #attachedRun(runId: string): AttachedRun {
    const run = this.#attached.get(runId);
    if (run === undefined) throw new KhoError('KHO_EINVAL', `the pool is not attached to run ${runId}`);
    return run;
  }

  async endThread(threadId: number): Promise<void> {
    await this.#piscina.threads.find((thread) => thread.threadId === threadId)?.terminate();
  }

  async restart(): Promise<void> {
    const old = this.#piscina;
    for (const run of this.#attached.values()) {
      run.crew = undefined;
      run.gathering = undefined;
    }
    // Before the new ones are made: it is the old ones that must have started.
    const started = this.#starting.settled();
    this.#piscina = startPiscina(this.threads, this.#limits, this.#starting);
    await started;
    await old.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#starting.settled();
    await this.#piscina.destroy();
  }

  /** Tells every thread all of a run, those too that know it. */
  async #attachAgain({ description, prepared }: AttachedRun): Promise<void> {
    await this.#attachAll(description);
    await this.setPrepared(description.id, prepared);
  }

  async #attachAll(description: RunDescription): Promise<void> {
    // Piscina starts no other thread for one that dies before it is ready, such as for want of memory.
    if (this.#piscina.threads.length < this.threads) await this.restart();
    const alive = [...this.#attached.keys()];
    const answers = await this.#onEveryThread((barrier) => ({ kind: 'attach', description, alive, barrier }));
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

function startPiscina(threads: number, resourceLimits: ResourceLimits | undefined, starting: StartingThreads): Piscina {
  const piscina = new Piscina({
    filename: fileURLToPath(new URL('./pool-worker.js', import.meta.url)),
    minThreads: threads,
    maxThreads: threads,
    idleTimeout: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: 1,
    // Tasks that wait for all threads must not mix with those of another run: both would wait for ever.
    stricterFIFO: true,
    ...(resourceLimits && { resourceLimits }),
  });
  // A thread that dies while it has nothing to do (a timer that a driver left behind has thrown) is replaced, and no
  // task's matter: without a listener it would end the process.
  piscina.on('error', () => {});
  const watch = (): void => starting.watch(piscina.threads);
  watch();
  // Whoever replaces it is made in the same turn.
  piscina.on('workerDestroy', () => queueMicrotask(watch));
  return piscina;
}
