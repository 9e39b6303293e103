import { KhoError } from '../errors.js';
import { MODES } from '../workers/index.js';
import type { CoordinatorOptions } from './coordinator-options.js';
import { BUDGETED_PHASES, LATE_WRITE_POLICIES, OVERRUN_POLICIES, SHUTDOWN_FAILURE_POLICIES, TRIGGERS } from './plan.js';

/**
 * KHO_EINVAL, with the field, for what types do not hold back: options of JavaScript, or of a file. A policy that is
 * misspelt must not mean another one, and a budget that is no time not be missed by every run.
 */
export function checkOptions(options: CoordinatorOptions): void {
  const { budget } = options;
  oneOf('mode', options.mode, ['auto', ...MODES]);
  oneOf('trigger', options.trigger, TRIGGERS);
  oneOf('onShutdownFailure', options.onShutdownFailure, SHUTDOWN_FAILURE_POLICIES);
  oneOf('lateWrites', options.lateWrites, LATE_WRITE_POLICIES);
  if (!(Number.isInteger(options.workers) && options.workers > 0 && options.workers <= 1024)) {
    throw invalid('workers', options.workers, 'a whole number from 1 to 1024');
  }
  if (!Number.isSafeInteger(options.seed)) throw invalid('seed', options.seed, 'a whole number');
  milliseconds('callbackLimit', options.callbackLimit);
  milliseconds('grace', options.grace);
  if (budget === undefined) return;
  if (typeof budget !== 'object' || budget === null) throw invalid('budget', budget, '{ blackout, onOverrun }');
  oneOf('budget.onOverrun', budget.onOverrun, OVERRUN_POLICIES);
  if (budget.onOverrun === undefined) throw invalid('budget.onOverrun', undefined, OVERRUN_POLICIES.join(' or '));
  milliseconds('budget.blackout', budget.blackout);
  for (const [phase, limit] of Object.entries(budget.phases ?? {})) {
    oneOf('a field of budget.phases', phase, BUDGETED_PHASES, 'budget.phases');
    milliseconds(`budget.phases.${phase}`, limit);
  }
}

function oneOf(what: string, value: string | undefined, values: readonly string[], field = what): void {
  if (value === undefined || values.includes(value)) return;
  throw new KhoError('KHO_EINVAL', `${what} is ${value}, expected one of ${values.join(', ')}`, { field });
}

function milliseconds(field: string, value: number | undefined): void {
  if (value === undefined || (typeof value === 'number' && value > 0)) return;
  throw invalid(field, value, 'milliseconds, more than 0');
}

function invalid(field: string, value: unknown, expected: string): KhoError {
  return new KhoError('KHO_EINVAL', `${field} is ${String(value)}, expected ${expected}`, { field });
}
