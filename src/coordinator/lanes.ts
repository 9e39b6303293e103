import type { ResourceLimits } from 'node:worker_threads';
import { DriverHost, type Mode, WorkerPool } from '../workers/index.js';
import type { Registry } from './registry.js';
import type { RunnerLane } from './work-group.js';

/** The threads of a coordinator, which live until it is disposed of. Each is started when it is first asked for. */
export class Lanes implements AsyncDisposable {
  readonly #workers: number;
  /** A pool of the embedder's, which is used and left running. */
  readonly #lent: WorkerPool | undefined;
  #pool: RunnerLane | undefined;
  #sequential: RunnerLane | undefined;
  readonly #hosts = new Map<string, RunnerLane>();

  readonly #limits: ResourceLimits | undefined;

  constructor(options: {
    readonly workers: number;
    readonly pool?: WorkerPool;
    readonly resourceLimits?: ResourceLimits;
  }) {
    const { workers, pool, resourceLimits } = options;
    this.#workers = workers;
    this.#limits = resourceLimits;
    this.#lent = pool;
  }

  /** Mode `sequential`: one thread for everything; else the pool. */
  main(mode: Mode | 'auto'): RunnerLane {
    if (mode === 'sequential') {
      this.#sequential ??= { runner: new DriverHost('sequential', this.#limits), threads: 1, role: 'worker' };
      return this.#sequential;
    }
    if (this.#pool === undefined) {
      const runner =
        this.#lent ?? new WorkerPool({ threads: this.#workers, ...(this.#limits && { resourceLimits: this.#limits }) });
      this.#pool = { runner, threads: runner.threads, role: 'worker' };
    }
    return this.#pool;
  }

  /** Where a driver's callbacks run: a hosted driver has a thread to itself, unless all share one. */
  of(registry: Registry, index: number, mode: Mode): RunnerLane {
    const driver = registry.drivers[index];
    if (driver === undefined || !driver.hosted || mode === 'sequential') return this.main(mode);
    let lane = this.#hosts.get(driver.name);
    if (lane === undefined) {
      lane = { runner: new DriverHost(driver.name, this.#limits), threads: 1, role: 'host', driver: driver.name };
      this.#hosts.set(driver.name, lane);
    }
    return lane;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const lanes = [...this.#hosts.values()];
    if (this.#sequential !== undefined) lanes.push(this.#sequential);
    if (this.#pool !== undefined && this.#pool.runner !== this.#lent) lanes.push(this.#pool);
    this.#hosts.clear();
    this.#pool = undefined;
    this.#sequential = undefined;
    await Promise.all(lanes.map(({ runner }) => runner[Symbol.asyncDispose]()));
  }
}
