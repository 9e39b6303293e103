import { type ResourceLimits, Worker } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { type Remote, release, remoteOf } from './comlink.js';
import type { RunDescription } from './run-description.js';
import { StartingThreads } from './starting-threads.js';
import type { CallbackTask, Task, TaskAnswer } from './task.js';

interface HostApi {
  runTask(task: Task): Promise<TaskAnswer>;
}

/** What runs tasks: the pool, or one host. */
export interface TaskRunner extends AsyncDisposable {
  /** Makes its threads take part in a run. Rejects with the error of a module that cannot be loaded. */
  attach(description: RunDescription): Promise<void>;
  /**
   * Tells every thread, and each that will replace one, what the instances' `prepare` returned. It must be
   * structured-cloneable: KHO_EINVAL.
   */
  setPrepared(runId: string, prepared: ReadonlyMap<number, unknown>): Promise<void>;
  /** Rejects with KHO_EWORKER if the thread dies; a driver's error is in the answer. */
  run(task: Task): Promise<TaskAnswer>;
  /**
   * Runs tasks, at most as many as there are threads, all at once: one a thread. Each rejects as {@link run} does. Fastest
   * while the threads stand by.
   */
  runAll(tasks: readonly CallbackTask[]): Promise<TaskAnswer>[];
  /** Keeps all threads at hand for {@link runAll}; nothing else runs on them until {@link dismiss}. */
  standBy(runId: string): Promise<void>;
  /** Ends {@link standBy}, when the callbacks that are running have ended. Never rejects. */
  dismiss(runId: string): Promise<void>;
  /** The run is over: its threads may forget it. They do when they are attached to another one. Never rejects. */
  detach(runId: string): Promise<void>;
  /**
   * Ends one thread at once, whatever it is doing, and starts another one; its task rejects with KHO_EWORKER. Nothing
   * happens if it is gone already.
   */
  endThread(threadId: number): Promise<void>;
  /** The same for all of them. */
  restart(): Promise<void>;
}

/**
 * One worker thread of its own, for drivers whose state lives: every callback of theirs runs here, in the order of the
 * calls. Mode `sequential` uses one for everything.
 *
 * Not a pool worker, because those sit in Atomics.wait between tasks: timers and messages of a live driver would stand
 * still.
 */
export class DriverHost implements TaskRunner {
  readonly #name: string;
  readonly #limits: ResourceLimits | undefined;
  #thread: HostThread;
  #description: RunDescription | undefined;
  #prepared: ReadonlyMap<number, unknown> = new Map();

  /** `name` is that of the driver, for messages and debuggers; `limits` are those of its heap and stack. */
  constructor(name: string, limits?: ResourceLimits) {
    this.#name = name;
    this.#limits = limits;
    this.#thread = startThread(name, limits);
  }

  async attach(description: RunDescription): Promise<void> {
    if (this.#thread.dead) await this.restart();
    this.#description = description;
    this.#prepared = new Map();
    const { failures } = await this.#call({ kind: 'attach', description, alive: [description.id] });
    if (failures[0] !== undefined) throw KhoError.from(failures[0].error);
  }

  async setPrepared(runId: string, prepared: ReadonlyMap<number, unknown>): Promise<void> {
    this.#prepared = prepared;
    await this.run({ kind: 'prepared', runId, prepared });
  }

  async run(task: Task): Promise<TaskAnswer> {
    // Its last task, or nobody's, has cost it its life; the next one gets a thread without live states.
    if (this.#thread.dead) await this.restart();
    const answer = await this.#call(task);
    if (!answer.attached) {
      throw new KhoError('KHO_EWORKER', `the host's thread does not know run ${this.#description?.id ?? '(none)'}`);
    }
    return answer;
  }

  runAll(tasks: readonly CallbackTask[]): Promise<TaskAnswer>[] {
    return tasks.map((task) => this.run(task));
  }

  /** Nothing: the thread has a live driver, whose timers and messages must go on. */
  async standBy(): Promise<void> {}

  async dismiss(): Promise<void> {}

  async detach(): Promise<void> {
    this.#description = undefined;
    this.#prepared = new Map();
  }

  async endThread(threadId: number): Promise<void> {
    if (this.#thread.worker.threadId === threadId) await endThread(this.#thread);
  }

  /** The live states are gone with the old thread. */
  async restart(): Promise<void> {
    await endThread(this.#thread);
    const [description, prepared] = [this.#description, this.#prepared];
    this.#thread = startThread(this.#name, this.#limits);
    if (description === undefined) return;
    await this.attach(description);
    await this.setPrepared(description.id, prepared);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endThread(this.#thread);
  }

  #call(task: Task): Promise<TaskAnswer> {
    const { remote, ended } = this.#thread;
    return Promise.race([remote.runTask(task), ended]);
  }
}

interface HostThread {
  readonly worker: Worker;
  readonly remote: Remote<HostApi>;
  readonly starting: StartingThreads;
  dead: boolean;
  /** Settles when it has been ended. */
  ending?: Promise<void>;
  /** Rejects when the thread ends: Comlink itself would leave calls pending for ever. */
  readonly ended: Promise<never>;
}

function startThread(name: string, resourceLimits?: ResourceLimits): HostThread {
  const worker = new Worker(new URL('./host-worker.js', import.meta.url), {
    name,
    ...(resourceLimits && { resourceLimits }),
  });
  const ended = new Promise<never>((_resolve, reject) => {
    worker.once('error', (error) => {
      reject(new KhoError('KHO_EWORKER', `the thread of ${name} died: ${error.message}`, {}, { cause: error }));
    });
    worker.once('exit', (code) => {
      reject(new KhoError('KHO_EWORKER', `the thread of ${name} exited with code ${code}`));
    });
  });
  const starting = new StartingThreads();
  starting.watch([worker]);
  const thread: HostThread = { worker, remote: remoteOf<HostApi>(worker), starting, dead: false, ended };
  ended.catch(() => {
    thread.dead = true; // whoever races it sees the reason
  });
  return thread;
}

/** Ends a thread; any number of times. */
function endThread(thread: HostThread): Promise<unknown> {
  const end = async (): Promise<void> => {
    await thread.starting.settled();
    release(thread.remote);
    await thread.worker.terminate();
  };
  thread.ending ??= end();
  return thread.ending;
}
