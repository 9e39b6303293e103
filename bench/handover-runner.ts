import { Coordinator, type Handover, Host, type Mode, type Timeline, type WorkerPool } from 'khorus';
import { INSTANCES, type Load } from './load.js';

const MODULE = { url: new URL('./drivers/load-driver.js', import.meta.url).href, origin: 'load-driver' };

/** A host with room for one handover of a few million properties. */
export function loadHost(): Host {
  return new Host({
    arch: 'x86_64',
    memory: 512 * 2 ** 20,
    nodes: 1,
    cmdline: 'kho=on kho_scratch=8M,16M,8M',
    cpus: 2,
    release: '7.2.0-bench',
  });
}

/** The real path, again and again: one coordinator that keeps its threads, with instances of the load driver. */
export class HandoverRunner implements AsyncDisposable {
  readonly #coordinator: Coordinator;

  constructor(host: Host, plan: { mode: Mode; pool: WorkerPool; load: Load; instances?: number }) {
    const { mode, pool, load, instances = INSTANCES } = plan;
    this.#coordinator = new Coordinator(host, { mode, workers: pool.threads, pool, seed: 1, profile: 'kho-v4' });
    this.#coordinator.register({ module: MODULE, count: instances, options: load, after: [], priority: 0 });
  }

  /** Hands over, gives what came of it to `use`, and takes the memory back. */
  async handOver<T>(use: (handover: Handover) => T): Promise<T> {
    const handover = await this.#coordinator.handover();
    try {
      return use(handover);
    } finally {
      handover[Symbol.dispose]();
    }
  }

  /** From the first callback's dispatch to the finished blobs, in nanoseconds. */
  serializeAndFinalize(): Promise<number> {
    return this.handOver(({ timeline }) => between(timeline, 'serialize', 'finalize') * 1e6);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#coordinator[Symbol.asyncDispose]();
  }
}

/** Milliseconds from the start of one phase to the end of another. */
export function between(timeline: Timeline, first: string, last: string): number {
  const start = timeline.phases.find(({ phase }) => phase === first)?.start;
  const end = timeline.phases.find(({ phase }) => phase === last)?.end;
  if (start === undefined || end === undefined) throw new Error(`the timeline lacks ${first} or ${last}`);
  return end - start;
}
