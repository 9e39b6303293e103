import { KhoError } from '../errors.js';
import type { TaskPhase } from '../workers/index.js';
import type { Clock } from './clock.js';
import type { WorkGroup } from './work-group.js';

/** How often a limit is looked at while it lasts: a callback may run a quarter longer than it is allowed to. */
const LOOKS = 4;
/** Milliseconds between two looks, at least: the looking must not take the blackout's time. */
const SHORTEST_MS = 1;

/** A callback that runs longer than it may. */
export interface LateCallback {
  readonly group: WorkGroup;
  readonly slot: number;
  /** Its item's position in the group. */
  readonly position: number;
}

export interface CallbackWatchOptions {
  readonly clock: Clock;
  /** Milliseconds after which a callback has hung. */
  readonly limit: number;
  /** Milliseconds that a callback of a driver may take by its budget; undefined for no budget. */
  readonly budgetOf: (driver: number) => number | undefined;
  /** Milliseconds between two looks for whoever wants to know the progress; undefined if nobody does. */
  readonly progressEvery?: number | undefined;
  readonly onLook?: () => void;
  /** Called once for a callback that is over its budget. */
  readonly onOverBudget: (late: LateCallback) => void;
  /** Called once for a callback that has hung. */
  readonly onHung: (late: LateCallback) => void;
}

/**
 * Looks from time to time at what the threads of a phase are at. The main thread sees that a slot is at the same position
 * as before, by the deadlines' clock; the threads do nothing for it.
 */
export class CallbackWatch implements Disposable {
  readonly #options: CallbackWatchOptions;
  readonly #groups: readonly WorkGroup[];
  /** By group and slot: the position where it was, and since when. */
  readonly #seen = new Map<WorkGroup, { position: number; since: number; told: 'nothing' | 'budget' | 'hung' }[]>();
  #timer: Disposable | undefined;

  /** `groups` may grow meanwhile; `drivers` are those that take part. */
  constructor(groups: readonly WorkGroup[], drivers: readonly number[], options: CallbackWatchOptions) {
    this.#groups = groups;
    this.#options = options;
    const limits = drivers.flatMap((driver) => options.budgetOf(driver) ?? []);
    const every = Math.min(
      ...[options.limit, ...limits].map((limit) => limit / LOOKS),
      options.progressEvery ?? Infinity,
    );
    this.#next(Math.max(SHORTEST_MS, every));
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #next(every: number): void {
    this.#timer = this.#options.clock.timer(every, () => {
      this.#next(every);
      this.#look();
      this.#options.onLook?.();
    });
  }

  #look(): void {
    const { clock, limit, budgetOf, onHung, onOverBudget } = this.#options;
    const now = clock.now();
    for (const group of this.#groups) {
      const slots = this.#seen.get(group) ?? [];
      this.#seen.set(group, slots);
      for (let slot = 0; slot < group.slots; slot++) {
        const position = group.list.current(slot);
        const seen = slots[slot];
        if (position === undefined) {
          delete slots[slot];
        } else if (seen?.position !== position) {
          slots[slot] = { position, since: now, told: 'nothing' };
        } else if (now - seen.since >= limit && seen.told !== 'hung') {
          seen.told = 'hung';
          onHung({ group, slot, position });
        } else if (seen.told === 'nothing' && now - seen.since >= (budgetOf(group.driverOf(position)) ?? Infinity)) {
          seen.told = 'budget';
          onOverBudget({ group, slot, position });
        }
      }
    }
  }
}

/** What a callback that did not return within its limit is to its driver. */
export function hungError(phase: TaskPhase, instance: string, limit: number): KhoError {
  const text = `${phase} of ${instance} did not return within ${limit} ms, so its thread was ended`;
  return new KhoError('KHO_ETIMEDOUT', text, { call: phase });
}
