import type { ResourceLimits } from 'node:worker_threads';
import type { CoordinatorOptions, HostOptions, RunPlan } from '../coordinator/index.js';
import type { DriverToTest } from './driver-to-test.js';
import type { ManualClock } from './manual-clock.js';
import type { TestThreads } from './test-threads.js';

/** A small host that boots in a millisecond. */
const SMALL_HOST: HostOptions = {
  arch: 'x86_64',
  memory: 128 * 2 ** 20,
  nodes: 1,
  cmdline: 'kho=on kho_scratch=4M,8M,4M',
  cpus: 1,
  release: '7.2.0-testing',
};

/** Everything but the drivers has a default. */
export interface HarnessOptions
  extends Partial<
    Pick<RunPlan, 'workers' | 'profile' | 'seed' | 'fdtMax' | 'budget' | 'trigger' | 'onShutdownFailure' | 'lateWrites'>
  > {
  /** What differs from a host with 128 MiB on one node. */
  readonly host?: Partial<HostOptions>;
  /** Default `hash`. */
  readonly mode?: Exclude<CoordinatorOptions['mode'], 'auto'>;
  readonly drivers: readonly DriverToTest[];
  /** Threads to use, and to leave running; without them the harness starts its own. */
  readonly threads?: TestThreads;
  /** What deadlines go by; default one that stands still but for callbacks that hang. */
  readonly clock?: ManualClock;
  /** Limits of each thread's heap and stack; the fault `out of memory` needs some. */
  readonly resourceLimits?: ResourceLimits;
  /** Where the next kernel runs: a thread that is kept (the default), or a process each time, where no fault strikes. */
  readonly successor?: 'thread' | 'process';
}

export function hostOptions(options: Partial<HostOptions> = {}): HostOptions {
  return { ...SMALL_HOST, ...options };
}
