import type { RunRecord } from '../coordinator/run-record.js';
import { PHASES, type Phase, type TimelineSpan } from '../coordinator/timeline.js';
import { type Column, columns } from './columns.js';
import { formatDuration } from './format.js';

/** What blame reads of a run. */
export type BlamedRun = Pick<RunRecord, 'timeline'>;

/** What one driver, or one instance, took. Milliseconds, not rounded. */
export interface BlameEntry {
  readonly driver: string;
  readonly instance?: string;
  /** Time in its callbacks, summed over all threads; so it may be more than the wall clock shows. */
  readonly own: number;
  /** Time in which a callback could have run but had no thread; no driver's fault. */
  readonly waiting: number;
  /** Threads that ran its callbacks. */
  readonly threads: number;
  /** Own time by phase, in the order of the handover; only phases in which it ran. */
  readonly phases: readonly { readonly phase: Phase; readonly own: number }[];
}

/**
 * Drivers, or with `instances` each of their instances, the slowest first. Steps of the coordinator itself are not in
 * it: no driver is to blame for them.
 */
export function blame(run: BlamedRun, options: { instances?: boolean } = {}): BlameEntry[] {
  const groups = new Map<string, TimelineSpan[]>();
  for (const span of run.timeline.spans) {
    if (span.driver === undefined || (options.instances && span.instance === undefined)) continue;
    const key = options.instances ? `${span.driver}\0${span.instance}` : span.driver;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [span]);
    else group.push(span);
  }
  return [...groups.values()]
    .map((spans) => entryOf(spans, options.instances === true))
    .sort((a, b) => b.own - a.own || compare(a.driver, b.driver) || compare(a.instance ?? '', b.instance ?? ''));
}

/** {@link blame} as aligned columns; a phase in which nobody ran has no column. */
export function blameLines(run: BlamedRun, options: { instances?: boolean } = {}): string[] {
  const entries = blame(run, options);
  if (entries.length === 0) return ['No driver ran.'];
  const phases = PHASES.filter((phase) => entries.some((entry) => entry.phases.some((own) => own.phase === phase)));
  const right = (heading: string): Column => ({ heading, align: 'right' });
  const rows = entries.map((entry) => [
    formatDuration(entry.own),
    formatDuration(entry.waiting),
    String(entry.threads),
    ...phases.map((phase) => {
      const own = entry.phases.find((candidate) => candidate.phase === phase);
      return own === undefined ? '-' : formatDuration(own.own);
    }),
    entry.instance === undefined ? entry.driver : `${entry.driver}/${entry.instance}`,
  ]);
  return columns(
    [
      ...['OWN', 'WAITING', 'THREADS', ...phases.map((phase) => phase.toUpperCase())].map(right),
      { heading: options.instances ? 'INSTANCE' : 'DRIVER', align: 'left' },
    ],
    rows,
  );
}

function entryOf(spans: readonly TimelineSpan[], withInstance: boolean): BlameEntry {
  const [{ driver = '', instance }] = spans;
  const byPhase = new Map<Phase, number>();
  let waiting = 0;
  for (const span of spans) {
    byPhase.set(span.phase, (byPhase.get(span.phase) ?? 0) + span.end - span.start);
    waiting += Math.max(0, span.start - span.queued);
  }
  const phases = PHASES.filter((phase) => byPhase.has(phase)).map((phase) => ({
    phase,
    own: byPhase.get(phase) ?? 0,
  }));
  return {
    driver,
    ...(withInstance && instance !== undefined && { instance }),
    own: phases.reduce((sum, { own }) => sum + own, 0),
    waiting,
    threads: new Set(spans.map(({ thread }) => thread)).size,
    phases,
  };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
