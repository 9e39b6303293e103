import type { RunRecord } from '../coordinator/run-record.js';
import { BLACKOUT_PHASES, blackoutDuration, phaseDuration } from '../coordinator/timeline.js';
import { apportion } from './apportion.js';

/** What the reports of time read of a run. */
export type TimedRun = Pick<RunRecord, 'budget' | 'timeline'>;

export type BlackoutPhase = (typeof BLACKOUT_PHASES)[number];

/** The blackout in numbers, for `--json`. Milliseconds, not rounded. */
export interface BlackoutReport {
  readonly phases: readonly { readonly phase: BlackoutPhase; readonly duration: number }[];
  readonly total: number;
  readonly budget?: number;
  /** What is left of the budget; negative when it was overrun. */
  readonly left?: number;
}

/** Blackouts from here on are told in seconds with three decimals; shorter ones, whatever the budget, in milliseconds with one. */
const SECONDS_FROM = 10_000;

/** The phases of the blackout that happened, their sum, and what is left of the budget. */
export function blackoutReport({ budget, timeline }: TimedRun): BlackoutReport {
  const happened = new Set(timeline.phases.map(({ phase }) => phase));
  const phases = BLACKOUT_PHASES.filter((phase) => happened.has(phase)).map((phase) => ({
    phase,
    duration: phaseDuration(timeline, phase),
  }));
  const total = blackoutDuration(timeline);
  const limit = budget?.blackout;
  return { phases, total, ...(limit !== undefined && { budget: limit, left: limit - total }) };
}

/**
 * The blackout as one line that adds up, exactly as it is printed:
 * `Blackout: freeze 1.2ms + serialize 8.4ms + … = 53.0ms (budget 500.0ms, 447.0ms left)`.
 *
 * The whole line has one unit. A phase that did not happen is not in it.
 */
export function blackoutLine(run: TimedRun): string {
  const report = blackoutReport(run);
  if (report.phases.length === 0) return 'Blackout: none, the run did not get to the freeze';

  const seconds = report.total >= SECONDS_FROM;
  const unit = seconds ? 1 : 0.1;
  const print = (units: number) => (seconds ? `${(units / 1000).toFixed(3)}s` : `${(units / 10).toFixed(1)}ms`);

  const { parts, total } = apportion(
    report.phases.map(({ duration }) => duration),
    unit,
  );
  const sum = report.phases.map(({ phase }, index) => `${phase} ${print(parts[index])}`).join(' + ');
  return `Blackout: ${sum} = ${print(total)}${budgetRest(report, total, unit, print)}`;
}

function budgetRest(report: BlackoutReport, total: number, unit: number, print: (units: number) => string): string {
  if (report.budget === undefined || report.left === undefined) return '';
  const budget = Math.round(report.budget / unit);
  // Whether it was overrun is decided on the exact times, as the exit code is, and told even where rounding hides it.
  if (report.left >= 0) return ` (budget ${print(budget)}, ${print(budget - total)} left)`;
  const over = total > budget ? print(total - budget) : `less than ${print(1)}`;
  return ` (budget ${print(budget)}, ${over} over)`;
}
