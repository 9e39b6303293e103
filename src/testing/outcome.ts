import {
  type FailureRecord,
  type Handover,
  type PhaseSpan,
  type RollbackReport,
  type RunRecord,
  restoreFailures,
  type SuccessorReport,
  type Timeline,
} from '../coordinator/index.js';
import type { KhoError } from '../errors.js';

/** What came of a handover: it has one of two states, whatever happened. */
export type Outcome = HandedOver | RolledBack;

/** The host's memory is held until the outcome is disposed of, or the harness begins another handover. */
export interface HandedOver extends Disposable {
  readonly state: 'handed over';
  readonly handover: Handover;
  readonly record: RunRecord;
  readonly timeline: Timeline;
  /** What the successor says; absent if there was none, or it died. */
  readonly report?: SuccessorReport;
  /** What the successor found wrong: empty if every instance came back with the state that it had. */
  readonly failures: readonly FailureRecord[];
  /** Instances that came back with the state that they had, as `driver/instance`. */
  readonly restored: readonly string[];
  /** A finished blob by its name; the root FDT under `fdt`. */
  blob(name: string): Uint8Array | undefined;
}

export interface RolledBack extends Disposable {
  readonly state: 'rolled back';
  /** The first failure. Errors of rolling back are in its `cause`, and in the report. */
  readonly error: KhoError;
  /** Absent if nothing had begun that could be rolled back. */
  readonly rollback?: RollbackReport;
  /** The phases that there were, `cancel` too. */
  readonly phases: readonly PhaseSpan[];
}

/** The outcome of a handover that came about, with what the successor says of it. */
export function handedOver(
  handover: Handover,
  record: RunRecord,
  report: SuccessorReport | undefined,
  died?: KhoError,
): HandedOver {
  const failures = [
    ...(died === undefined ? [] : [{ code: died.code, message: died.message }]),
    ...(report === undefined ? [] : restoreFailures(record.instances, report)),
  ];
  const states = new Map(record.instances.map(({ driver, name, digest }) => [`${driver}/${name}`, digest]));
  const restored = (report?.restored ?? []).flatMap(({ driver, name, digest }) => {
    const key = `${driver}/${name}`;
    return states.get(key) === digest ? [key] : [];
  });
  return {
    state: 'handed over',
    handover,
    record,
    get timeline() {
      return handover.timeline;
    },
    ...(report && { report }),
    failures,
    restored,
    blob: (name) => handover.blob(name),
    [Symbol.dispose]: () => handover[Symbol.dispose](),
  };
}

export function rolledBack(
  error: KhoError,
  rollback: RollbackReport | undefined,
  phases: readonly PhaseSpan[],
): RolledBack {
  return { state: 'rolled back', error, ...(rollback && { rollback }), phases, [Symbol.dispose]() {} };
}
