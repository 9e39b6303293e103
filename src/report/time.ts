import { KEXEC_LOAD_STEPS, type Phase, phaseDuration } from '../coordinator/timeline.js';
import { type BlackoutReport, blackoutLine, blackoutReport, type TimedRun } from './blackout-line.js';
import { type EarlyState, earlyLine, earlyState } from './early-state.js';
import { formatDuration } from './format.js';

/** What `khorus time --json` prints. Milliseconds, not rounded. */
export interface TimeReport {
  readonly prepare: number;
  /** The part of prepare in which a kernel was loaded; absent if none was. */
  readonly kexecLoad?: number;
  readonly blackout: BlackoutReport;
  readonly finish: number;
  /** How much of the drivers' state was written before the blackout; bytes. */
  readonly early: { readonly bytes: number; readonly of: number };
  /** Prepare, blackout and finish. */
  readonly total: number;
  /** Phases that are part of neither: digests for the check of the result, and the way back of a cancelled run. */
  readonly notCounted: readonly { readonly phase: Phase; readonly duration: number }[];
}

/** Why a phase is outside of the sum. */
const NOT_COUNTED: readonly { readonly phase: Phase; readonly why: string }[] = [
  { phase: 'update', why: 'early state was brought up to date, the machines ran' },
  { phase: 'early freeze', why: 'before the blackout; only what was frozen stood still' },
  { phase: 'snapshot', why: 'digests of the states, taken to check the result' },
  { phase: 'cancel', why: 'rolling the handover back' },
];

export function timeReport(run: TimedRun & EarlyState): TimeReport {
  const { timeline } = run;
  const blackout = blackoutReport(run);
  const prepare = phaseDuration(timeline, 'prepare');
  const finish = phaseDuration(timeline, 'finish');
  const steps: readonly string[] = KEXEC_LOAD_STEPS;
  const loads = timeline.spans.filter(({ phase, step = '' }) => phase === 'prepare' && steps.includes(step));
  const kexecLoad = loads.reduce((sum, { start, end }) => sum + (end - start), 0);
  return {
    prepare,
    ...(loads.length > 0 && { kexecLoad }),
    blackout,
    finish,
    early: earlyState(run),
    total: prepare + blackout.total + finish,
    notCounted: NOT_COUNTED.filter(({ phase }) => timeline.phases.some((span) => span.phase === phase)).map(
      ({ phase }) => ({ phase, duration: phaseDuration(timeline, phase) }),
    ),
  };
}

/** Where the time went, as `systemd-analyze time` tells it: the whole, the blackout, and what counts as neither. */
export function timeLines(run: TimedRun & EarlyState): string[] {
  const report = timeReport(run);
  const lines = [
    `Handover finished in ${formatDuration(report.prepare)} (prepare) + ${formatDuration(report.blackout.total)} (blackout) + ` +
      `${formatDuration(report.finish)} (finish) = ${formatDuration(report.total)}`,
    blackoutLine(run),
  ];
  if (report.kexecLoad !== undefined) {
    lines.push(`Prepare loaded the kernel in ${formatDuration(report.kexecLoad)}; the blackout has no part of it`);
  }
  if (report.early.bytes > 0) lines.push(earlyLine(report.early));
  for (const { phase, why } of NOT_COUNTED) {
    const found = report.notCounted.find((counted) => counted.phase === phase);
    if (found) lines.push(`Not counted: ${phase} ${formatDuration(found.duration)} (${why})`);
  }
  return lines;
}
