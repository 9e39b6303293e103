import { type TransferListItem, Worker } from 'node:worker_threads';
import { Barrier } from './barrier.js';
import type { FromMember, MemberData, ToMember } from './team-member.js';

/** When a run of a team began and ended, in nanoseconds of the machine's monotonic clock, which all threads share. */
export interface TeamRun {
  /** When the main thread told the threads to go. */
  readonly told: bigint;
  /** When the first thread began, after all had met. */
  readonly began: bigint;
  /** When the last thread was done. */
  readonly ended: bigint;
  /** When the main thread had everything that they sent. */
  readonly received: bigint;
  /** What each thread's job gave back. */
  readonly answers: readonly unknown[];
}

export interface TeamJob<Job> {
  readonly job: Job;
  readonly transfer?: readonly TransferListItem[];
}

/** Threads that stay, and do jobs together. The module is one that calls `serveTeam`. */
export class ThreadTeam<Job> implements AsyncDisposable {
  readonly threads: number;
  readonly #workers: readonly Worker[];

  constructor(module: URL, threads: number) {
    this.threads = threads;
    const barrier = new SharedArrayBuffer(Barrier.BYTES);
    const workerData: MemberData = { barrier, threads };
    this.#workers = Array.from({ length: threads }, () => new Worker(module, { workerData }));
  }

  /**
   * Gives each thread its job, waits until all have prepared theirs, and lets them go at the same moment.
   * `onData` gets what the jobs send while they run, on the main thread, before the run counts as received.
   */
  async run(jobs: readonly TeamJob<Job>[], onData: (data: unknown) => void = () => {}): Promise<TeamRun> {
    const members = this.#workers.map((worker, index) => {
      const { job, transfer = [] } = jobs[index] ?? {};
      const message: ToMember = { kind: 'prepare', job };
      worker.postMessage(message, transfer);
      return this.#next(worker, 'ready', onData);
    });
    await Promise.all(members);
    const told = process.hrtime.bigint();
    const done = this.#workers.map((worker) => {
      const message: ToMember = { kind: 'go' };
      worker.postMessage(message);
      return this.#next(worker, 'done', onData);
    });
    const ends = await Promise.all(done);
    const received = process.hrtime.bigint();
    return {
      told,
      began: ends.reduce((first, { began }) => (began < first ? began : first), received),
      ended: ends.reduce((last, { ended }) => (ended > last ? ended : last), 0n),
      received,
      answers: ends.map(({ answer }) => answer),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #next<Kind extends FromMember['kind']>(
    worker: Worker,
    kind: Kind,
    onData: (data: unknown) => void,
  ): Promise<Extract<FromMember, { kind: Kind }>> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        worker.off('message', onMessage);
        worker.off('error', onError);
      };
      const onMessage = (message: FromMember): void => {
        if (message.kind === 'data') {
          onData(message.data);
          return;
        }
        stop();
        if (message.kind === kind) resolve(message as Extract<FromMember, { kind: Kind }>);
        else reject(new Error(`a thread of the bench sent '${message.kind}', expected '${kind}'`));
      };
      const onError = (error: unknown): void => {
        stop();
        reject(error);
      };
      worker.on('message', onMessage);
      worker.on('error', onError);
    });
  }
}
