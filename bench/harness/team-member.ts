import { parentPort, type TransferListItem, workerData } from 'node:worker_threads';
import { Barrier } from './barrier.js';

export interface MemberData {
  readonly barrier: SharedArrayBuffer;
  readonly threads: number;
}

export type ToMember = { readonly kind: 'prepare'; readonly job: unknown } | { readonly kind: 'go' };

export type FromMember =
  | { readonly kind: 'ready' }
  | { readonly kind: 'data'; readonly data: unknown }
  | { readonly kind: 'done'; readonly began: bigint; readonly ended: bigint; readonly answer: unknown };

/** A prepared job. `run` is what is measured; with `send` it gives data to the main thread on the way. */
export interface PreparedJob {
  run(send: (data: unknown, transfer?: readonly TransferListItem[]) => void): void;
  /** After the measurement: what the main thread gets. */
  answer?(): unknown;
}

/** The loop of a thread of a team: prepares each job, meets the other threads, runs it. */
export function serveTeam<Job>(prepare: (job: Job) => PreparedJob): void {
  const port = parentPort;
  if (port === null) throw new Error('a thread of a team must be a worker thread');
  const { barrier: buffer, threads } = workerData as MemberData;
  const barrier = new Barrier(buffer, threads);
  const post = (message: FromMember, transfer: readonly TransferListItem[] = []): void =>
    port.postMessage(message, transfer);
  let prepared: PreparedJob = { run: () => {} };
  port.on('message', (message: ToMember) => {
    if (message.kind === 'prepare') {
      prepared = prepare(message.job as Job);
      post({ kind: 'ready' });
      return;
    }
    barrier.wait();
    const began = process.hrtime.bigint();
    prepared.run((data, transfer) => post({ kind: 'data', data }, transfer));
    const ended = process.hrtime.bigint();
    post({ kind: 'done', began, ended, answer: prepared.answer?.() });
    prepared = { run: () => {} };
  });
}
