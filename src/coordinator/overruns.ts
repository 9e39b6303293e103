import { BUDGETED_PHASES } from './plan.js';
import type { RunRecord } from './run-record.js';
import { BLACKOUT_PHASES, blackoutDuration, phaseDuration } from './timeline.js';

/** A budget that a run did not keep. Milliseconds. */
export interface Overrun {
  /** What had the budget: `blackout`, a phase, or `driver instance phase` of the callback that took longest. */
  readonly what: string;
  readonly budget: number;
  readonly took: number;
}

/** Every budget of a finished run that was overrun; with `onOverrun: ignore` nothing else comes of it. */
export function overruns({ budget, drivers, timeline }: Pick<RunRecord, 'budget' | 'drivers' | 'timeline'>): Overrun[] {
  const found: Overrun[] = [];
  const blackout = blackoutDuration(timeline);
  if (budget?.blackout !== undefined && blackout > budget.blackout) {
    found.push({ what: 'blackout', budget: budget.blackout, took: blackout });
  }
  for (const phase of BUDGETED_PHASES) {
    const limit = budget?.phases?.[phase];
    const took = phaseDuration(timeline, phase);
    if (limit !== undefined && took > limit) found.push({ what: phase, budget: limit, took });
  }
  for (const { name, budget: limit } of drivers) {
    if (limit === undefined) continue;
    let longest: Overrun | undefined;
    for (const { driver, instance, phase, start, end } of timeline.spans) {
      if (driver !== name || !BLACKOUT_PHASES.some((one) => one === phase) || phase === 'restore') continue;
      const took = end - start;
      if (took <= limit || took <= (longest?.took ?? 0)) continue;
      longest = { what: `${phase} of ${instance ?? driver}`, budget: limit, took };
    }
    if (longest !== undefined) found.push(longest);
  }
  return found;
}
