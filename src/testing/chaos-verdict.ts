import type { KhoErrorCode } from '../errors.js';
import { endsInCancel, NOT_REFUSED } from './chaos-path.js';
import { type ChaosKind, type ChaosPlan, OUTER_FAULTS } from './chaos-plan.js';
import { NOT_STOPPED } from './commit-fault.js';
import { DEADLY_KINDS, type Fault, type FaultKind, ROLLBACK_CALLBACKS, SUCCESSOR_CALLBACKS } from './fault.js';
import type { HandedOver, Outcome, RolledBack } from './outcome.js';

/** A planned fault, with how often it struck. */
export type StruckFault = Fault & { readonly struck: number };

/** What a fault's error may be, where it is not a driver's own. */
const CODES: Partial<Record<FaultKind, readonly KhoErrorCode[]>> = {
  throw: ['KHO_EDRIVER'],
  reject: ['KHO_EDRIVER'],
  hang: ['KHO_ETIMEDOUT'],
  never: ['KHO_ETIMEDOUT', 'KHO_EWORKER'],
  exit: ['KHO_EWORKER'],
  terminate: ['KHO_EWORKER'],
  rejection: ['KHO_EWORKER'],
  uncaught: ['KHO_EWORKER'],
  'out of memory': ['KHO_EWORKER'],
  abort: ['KHO_ECANCELED'],
  'too many bytes': ['KHO_ENOSPC'],
  'too many nodes': ['KHO_ENOSPC'],
  'too many pages': ['KHO_ENOMEM'],
  'foreign free': ['KHO_EPERM'],
  'foreign unpreserve': ['KHO_EPERM'],
  'foreign write': ['KHO_EPERM'],
  'late write': ['KHO_EDIGEST'],
  // What they write may also be more than the driver then has room for.
  collision: ['KHO_EEXIST', 'KHO_ENOSPC'],
  'sibling names': ['KHO_EINVAL', 'KHO_ENOSPC'],
  'not cloneable': ['KHO_EINVAL'],
};

/**
 * Faults that may be told by another driver's name. An abort is nobody's; while one hangs the clock runs on, and what a busy
 * machine has made wait is late by it as well.
 */
const ANYBODY: ReadonlySet<FaultKind> = new Set(['abort', 'hang', 'never']);

/** Faults that may do no harm: an abort that comes too late, a restore that claims nothing anyway. */
const MAY_PASS: ReadonlySet<FaultKind> = new Set(['abort', 'unclaimed', 'double claim']);

/** What is wrong with how a handover with faults ended; empty if nothing is. Its leaks are another matter. */
export function judge(outcome: Outcome, faults: readonly StruckFault[], plan: ChaosPlan): string[] {
  const struck = faults.filter((fault) => fault.struck > 0);
  return outcome.state === 'rolled back' ? judgeRollback(outcome, struck, plan) : judgeHandover(outcome, struck, plan);
}

function judgeRollback({ error }: RolledBack, struck: readonly StruckFault[], { outer, path }: ChaosPlan): string[] {
  const { code, message, details } = error;
  const found = `${code} ${message} (${[details.driver, details.instance, details.phase].join(', ')})`;
  if (message.includes(NOT_REFUSED)) return [message];
  if (code === 'KHO_ECANCELED' && endsInCancel(path)) return [];
  if (message.includes(NOT_STOPPED)) return [`a fault was let through: ${found}`];
  if (outer === 'host out of pages') return code === 'KHO_ENOMEM' ? [] : [`expected KHO_ENOMEM, found ${found}`];
  const unfreezes = path !== 'handover' && path.some((step) => 'call' in step && step.call === 'unfreeze');
  const isCause = ({ callback }: Fault): boolean =>
    !SUCCESSOR_CALLBACKS.has(callback) && (!ROLLBACK_CALLBACKS.has(callback) || (unfreezes && callback === 'unfreeze'));
  const causes = struck.filter(isCause);
  if (causes.length === 0) return [`rolled back for no fault: ${found}`];
  const explains = ({ fault, driver }: Fault): boolean =>
    (CODES[fault]?.includes(code) ?? false) && (ANYBODY.has(fault) || details.driver === driver);
  if (causes.some(explains)) return [];
  return [`no fault explains ${found}`];
}

function judgeHandover(outcome: HandedOver, struck: readonly StruckFault[], plan: ChaosPlan): string[] {
  const proceeds = plan.harness.onShutdownFailure === 'proceed';
  const swallowed = struck.filter(({ callback, fault, driver }) => {
    if (SUCCESSOR_CALLBACKS.has(callback) || MAY_PASS.has(fault)) return false;
    const isTold = (outcome.record.shutdownFailures ?? []).some((failure) => failure.driver === driver);
    return !(callback === 'shutdown' && proceeds && isTold);
  });
  const problems = swallowed.map(({ fault, callback, driver }) => `swallowed: '${fault}' in ${callback} of ${driver}`);
  const inSuccessor = struck.filter(({ callback }) => SUCCESSOR_CALLBACKS.has(callback));
  const harmful = inSuccessor.filter(({ fault }) => !MAY_PASS.has(fault));
  const gone = plan.outer === undefined || plan.outer === 'host out of pages' ? undefined : plan.outerDriver?.name;
  const expected = new Set([...harmful.map(({ driver }) => driver), ...(gone === undefined ? [] : [gone])]);
  for (const driver of expected) {
    const named = outcome.failures.some((failure) => failure.driver === driver || failure.message.includes(driver));
    const died = outcome.report === undefined && inSuccessor.some(({ fault }) => DEADLY_KINDS.has(fault));
    if (!named && !died) problems.push(`the successor does not tell of ${driver}, whose restore failed`);
  }
  if (outcome.report === undefined && !inSuccessor.some(({ fault }) => DEADLY_KINDS.has(fault))) {
    problems.push(`the successor failed for no fault: ${outcome.failures.map(({ message }) => message).join('; ')}`);
  }
  const touched = new Set([...inSuccessor.map(({ driver }) => driver), gone]);
  const missing = outcome.record.instances.filter(
    ({ driver, name }) => !touched.has(driver) && !outcome.restored.includes(`${driver}/${name}`),
  );
  if (outcome.report !== undefined) {
    for (const { driver, name } of missing)
      problems.push(`${driver} ${name} was not restored, though nothing struck it`);
  }
  return problems;
}

/** The kinds that struck. */
export function kindsStruck(faults: readonly StruckFault[], { outer }: ChaosPlan): ChaosKind[] {
  const kinds: ChaosKind[] = faults.flatMap(({ fault, struck }) => (struck > 0 ? [fault] : []));
  return OUTER_FAULTS.some((kind) => kind === outer) && outer !== undefined ? [...kinds, outer] : kinds;
}
