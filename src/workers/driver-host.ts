import { Worker } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { type Remote, release, remoteOf } from './comlink.js';
import type { RunDescription } from './run-description.js';
import type { Task, TaskAnswer } from './task.js';

interface HostApi {
  runTask(task: Task): Promise<TaskAnswer>;
}

/** What runs tasks: the pool, or one host. */
export interface TaskRunner extends AsyncDisposable {
  /** Makes its threads take part in a run. Rejects with the error of a module that cannot be loaded. */
  attach(description: RunDescription): Promise<void>;
  /** Rejects with KHO_EWORKER if the thread dies; a driver's error is in the answer. */
  run(task: Task): Promise<TaskAnswer>;
  /** Ends the threads at once, whatever they are doing; running tasks reject. */
  terminate(): Promise<void>;
}

/**
 * One worker thread of its own, for drivers whose state lives: every callback of theirs runs here, in the order of the
 * calls. Mode `sequential` uses one for everything.
 *
 * Not a pool worker, because those sit in Atomics.wait between tasks: timers and messages of a live driver would stand
 * still.
 */
export class DriverHost implements TaskRunner {
  readonly #worker: Worker;
  readonly #remote: Remote<HostApi>;
  /** Rejects when the thread ends. */
  readonly #ended: Promise<never>;
  #description: RunDescription | undefined;
  #terminated = false;

  constructor(name: string) {
    this.#worker = new Worker(new URL('./host-worker.js', import.meta.url), { name });
    this.#remote = remoteOf<HostApi>(this.#worker);
    this.#ended = new Promise<never>((_resolve, reject) => {
      this.#worker.once('error', (error) => {
        reject(new KhoError('KHO_EWORKER', `the thread of ${name} died: ${error.message}`, {}, { cause: error }));
      });
      this.#worker.once('exit', (code) => {
        reject(new KhoError('KHO_EWORKER', `the thread of ${name} exited with code ${code}`));
      });
    });
    this.#ended.catch(() => {}); // seen by whoever races it
  }

  get threadId(): number {
    return this.#worker.threadId;
  }

  async attach(description: RunDescription): Promise<void> {
    this.#description = description;
    const answer = await this.#call({ kind: 'attach', description });
    if (answer.failure !== undefined) throw KhoError.from(answer.failure.error);
  }

  async run(task: Task): Promise<TaskAnswer> {
    const answer = await this.#call(task);
    if (!answer.attached) {
      throw new KhoError('KHO_EWORKER', `the host's thread does not know run ${this.#description?.id ?? '(none)'}`);
    }
    return answer;
  }

  async terminate(): Promise<void> {
    if (this.#terminated) return;
    this.#terminated = true;
    release(this.#remote);
    await this.#worker.terminate();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate();
  }

  #call(task: Task): Promise<TaskAnswer> {
    return Promise.race([this.#remote.runTask(task), this.#ended]);
  }
}
