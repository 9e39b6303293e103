import {
  Coordinator,
  type CoordinatorOptions,
  type DriverRegistration,
  explainChoice,
  type Handover,
  Host,
  type Mode,
  type ModeChoice,
  type Phase,
  type Timeline,
  WorkerPool,
} from 'khorus';
import type { Load } from './load.js';

/**
 * How a coordinator works; mode `auto` has a calibration. The profile is kho-v4 unless it says another, and nobody looks for
 * late writes.
 */
export type ModePlan = Pick<CoordinatorOptions, 'mode' | 'workers' | 'calibration'> &
  Partial<Pick<CoordinatorOptions, 'profile' | 'lateWrites'>>;

/** `count` instances of a driver. */
export type Instances = Pick<DriverRegistration, 'module' | 'count' | 'options'>;

const LOAD_DRIVER = { url: new URL('./drivers/load-driver.js', import.meta.url).href, origin: 'load-driver' };

/** Instances of the load driver. */
export function loadInstances(load: Load, count: number): Instances {
  return { module: LOAD_DRIVER, count, options: load };
}

/** A host with so many bytes of memory. */
export function benchHost(memory = 512 * 2 ** 20): Host {
  const cmdline = 'kho=on kho_scratch=8M,16M,8M';
  return new Host({ arch: 'x86_64', memory, nodes: 1, cmdline, cpus: 2, release: '7.2.0-bench' });
}

/** The real path, again and again: a host, and a coordinator that keeps its threads. */
export class HandoverRunner {
  readonly #coordinator: Coordinator;
  /** How often mode `auto` chose each mode. */
  readonly #choices = new Map<Mode, number>();
  #lastChoice: ModeChoice | undefined;

  constructor(plan: ModePlan, instances: readonly Instances[], memory?: number) {
    const host = benchHost(memory);
    const pool = new WorkerPool({ threads: plan.workers });
    this.#coordinator = new Coordinator(host, { profile: 'kho-v4', lateWrites: 'off', ...plan, pool, seed: 1 });
    for (const entry of instances) this.#coordinator.register({ ...entry, after: [], priority: 0 });
  }

  /** Hands over, gives what came of it to `use`, and takes the memory back. */
  async handOver<T>(use: (handover: Handover) => T): Promise<T> {
    const handover = await this.#coordinator.handover();
    try {
      const { choice } = handover;
      if (choice !== undefined) this.#choices.set(choice.mode, (this.#choices.get(choice.mode) ?? 0) + 1);
      this.#lastChoice = choice;
      return use(handover);
    } finally {
      handover[Symbol.dispose]();
    }
  }

  /** What mode `auto` chose, if that is the mode. */
  choiceLines(): string[] {
    if (this.#lastChoice === undefined) return [];
    const counts = [...this.#choices].map(([mode, count]) => `${mode} in ${count}`);
    return [`chose ${counts.join(', ')} handovers, warm-up included`, `last: ${explainChoice(this.#lastChoice)}`];
  }
}

/** Where the time from the start of one phase to the end of another lies, in milliseconds since the handover began. */
export function phases(
  timeline: Timeline,
  first: Phase,
  last: Phase,
): { readonly start: number; readonly end: number } {
  const start = timeline.phases.find(({ phase }) => phase === first)?.start;
  const end = timeline.phases.find(({ phase }) => phase === last)?.end;
  if (start === undefined || end === undefined) throw new Error(`the timeline lacks ${first} or ${last}`);
  return { start, end };
}
