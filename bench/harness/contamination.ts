import { type LoadReading, TICK_MS } from './machine-load.js';

/** Whether others used the machine between two readings. `unknown` where /proc does not say. */
export type Verdict = 'clean' | 'contaminated' | 'unknown';

export interface Contamination {
  readonly verdict: Verdict;
  /** CPU time, in milliseconds, that was neither idle nor ours; undefined if unknown. */
  readonly others: number | undefined;
  /** How much of it is let pass. */
  readonly limit: number;
  /** Growth of `some total` of /proc/pressure/cpu in milliseconds. For the record: our own threads cause some of it. */
  readonly pressure: number | undefined;
}

/** Others may use this share of one CPU. */
const SHARE = 0.05;
/** Every CPU's idle time is cut to whole ticks at both ends, and the CPU time of running threads is a tick late. */
const SLACK_TICKS_PER_CPU = 1.5;

/**
 * A round is contaminated when others used the CPUs during it: processes that are not ours, the kernel on its own account,
 * or the hypervisor, which steals time for other machines.
 *
 *     others = wall time x CPUs - idle time - our CPU time
 *
 * That is more than 5 % of the wall time, plus what the granularity of /proc/stat can feign (1.5 ticks of 10 ms for each
 * CPU). Idle time is what the kernel knows best; time stolen from an idle CPU harms nobody and is not counted. Pressure
 * is no measure here, for our own threads press on each other wherever they are more than the CPUs.
 */
export function contamination(before: LoadReading, after: LoadReading): Contamination {
  const wall = after.wall - before.wall;
  const limit = SHARE * wall + SLACK_TICKS_PER_CPU * TICK_MS * after.cpus;
  const pressure =
    before.pressure === undefined || after.pressure === undefined ? undefined : after.pressure - before.pressure;
  if (before.idle === undefined || after.idle === undefined || after.cpus === 0) {
    return { verdict: 'unknown', others: undefined, limit, pressure };
  }
  const others = Math.max(0, wall * after.cpus - (after.idle - before.idle) - (after.own - before.own));
  return { verdict: others > limit ? 'contaminated' : 'clean', others, limit, pressure };
}
