import { BLACKOUT_PHASES, type Phase, phaseDuration, type Timeline } from './timeline.js';

/** How many earlier runs count. */
const RUNS = 5;

/** Milliseconds by phase of one run. */
export type PhaseTimes = Partial<Record<Phase, number>>;

/** How long the phases of a run took; those that did not happen are left out. */
export function phaseTimes(timeline: Timeline): PhaseTimes {
  return Object.fromEntries(
    [...new Set(timeline.phases.map(({ phase }) => phase))].map((phase) => [phase, phaseDuration(timeline, phase)]),
  );
}

/**
 * What earlier runs took, phase by phase. What disturbs a run makes it longer, never shorter: the least time of the last
 * runs is what a phase will take at least.
 */
export class PhaseHistory {
  #runs: readonly PhaseTimes[];

  constructor(earlier: readonly PhaseTimes[] = []) {
    this.#runs = earlier.slice(-RUNS);
  }

  get runs(): number {
    return this.#runs.length;
  }

  add(times: PhaseTimes): void {
    this.#runs = [...this.#runs, times].slice(-RUNS);
  }

  /** Forgets all: the runs to come have other drivers. */
  clear(): void {
    this.#runs = [];
  }

  /** Milliseconds that a phase took at least; 0 if no run had it. */
  least(phase: Phase): number {
    const times = this.#runs.flatMap((run) => run[phase] ?? []);
    return times.length === 0 ? 0 : Math.min(...times);
  }

  /** Milliseconds that the phases of the blackout after `phase` took at least; all of them without one. */
  leastAfter(phase?: Phase): number {
    const phases: readonly Phase[] = BLACKOUT_PHASES;
    const index = phase === undefined ? -1 : phases.indexOf(phase);
    return BLACKOUT_PHASES.slice(index + 1).reduce((sum, later) => sum + this.least(later), 0);
  }
}
