import { KhoError } from '../errors.js';
import type { Clock } from './clock.js';
import type { Interrupt } from './interrupt.js';
import type { PhaseHistory } from './phase-times.js';
import type { Budget, BudgetedPhase } from './plan.js';
import { BLACKOUT_PHASES, type Phase } from './timeline.js';

/** How often progress is compared with the budget while that lasts. */
const LOOKS = 8;
/** What part of a phase must be done before its pace says anything. */
const TELLING_PART = 1 / 4;
/** By how much a forecast from the pace must miss the budget: what is left may be easier than what is done. */
const PACE_MARGIN = 1.25;

/** What comes of an overrun with the policy `cancel`. */
export const CANCELLED = '; it was cancelled, and everything rolled back';

/** What a blackout will come to. Milliseconds. */
export interface BlackoutForecast {
  /** Since it began. */
  readonly elapsed: number;
  /** What is still to come, at least, as far as earlier runs and the pace of this one tell. */
  readonly remaining: number;
  /** Of how many earlier runs that is the least; 0 if only the pace tells. */
  readonly runs: number;
}

interface DeadlineParts {
  readonly clock: Clock;
  readonly interrupt: Interrupt;
  readonly budget: Budget | undefined;
  /** By driver: milliseconds for one callback in the blackout. */
  readonly driverBudgets: readonly (number | undefined)[];
  readonly history: PhaseHistory;
}

/**
 * Watches over a run's budgets. With `cancel` it ends the run as soon as one of them is overrun, or the blackout's cannot be
 * met any more; with `ignore` it does nothing. Main thread.
 */
export class Deadline implements Disposable {
  readonly #parts: DeadlineParts;
  readonly #cancels: boolean;
  #begun: number | undefined;
  #blackout: Disposable | undefined;
  #phase: { readonly name: Phase; readonly start: number; done: number; total: number } | undefined;

  constructor(parts: DeadlineParts) {
    this.#parts = parts;
    // A driver may have a budget where the run has none.
    this.#cancels = parts.budget?.onOverrun !== 'ignore';
  }

  /** Milliseconds between two calls of {@link progress}, so that they come in time; undefined if nobody needs them. */
  get progressEvery(): number | undefined {
    const { blackout } = this.#parts.budget ?? {};
    return this.#cancels && this.#begun !== undefined && blackout !== undefined ? blackout / LOOKS : undefined;
  }

  /** Milliseconds that one callback of a driver may take now; undefined for no limit. */
  budgetOf(driver: number): number | undefined {
    return this.#cancels && this.#begun !== undefined ? this.#parts.driverBudgets[driver] : undefined;
  }

  /** The blackout begins, unless earlier runs say that its budget cannot be met: KHO_ETIMEDOUT, with nothing frozen. */
  begin(): void {
    const { clock, budget, history } = this.#parts;
    this.#begun = clock.now();
    if (!this.#cancels || budget?.blackout === undefined) return;
    const { blackout } = budget;
    const least = history.leastAfter();
    if (least > blackout) {
      const text = `the blackout's budget of ${blackout} ms cannot be met: ${ofRuns(history.runs)} took ${show(least)} ms at least`;
      throw this.#error(`${text}; nothing was frozen`, 'budget.blackout');
    }
    this.#blackout = clock.timer(blackout, () => this.#overrun(blackout, clock.now() - (this.#begun ?? 0)));
  }

  /** A phase begins; it ends when what this returns is disposed of. Throws if the run is over before. */
  phase(name: Phase): Disposable {
    const { clock, budget, interrupt } = this.#parts;
    this.#phase = { name, start: clock.now(), done: 0, total: 0 };
    this.#check();
    interrupt.check();
    const limit = this.#cancels ? budget?.phases?.[name as BudgetedPhase] : undefined;
    const timer =
      limit === undefined
        ? undefined
        : clock.timer(limit, () =>
            this.#end(`${name} took longer than its budget of ${limit} ms${CANCELLED}`, `budget.${name}`),
          );
    return {
      [Symbol.dispose]: () => {
        timer?.[Symbol.dispose]();
        // Work of the main thread's own lets no timer fire.
        if (limit !== undefined && this.#phase?.name === name && clock.now() - this.#phase.start > limit) {
          this.#end(`${name} took longer than its budget of ${limit} ms${CANCELLED}`, `budget.${name}`);
        }
        this.#phase = undefined;
      },
    };
  }

  /** How far the phase is. */
  progress(done: number, total: number): void {
    if (this.#phase === undefined) return;
    this.#phase.done = done;
    this.#phase.total = total;
    this.#check();
  }

  /** What the blackout will come to, from now; undefined if it has not begun. */
  forecast(): BlackoutForecast | undefined {
    if (this.#begun === undefined) return undefined;
    const { clock, history } = this.#parts;
    const now = clock.now();
    let remaining = history.leastAfter(this.#phase?.name);
    if (this.#phase !== undefined) {
      const { name, start, done, total } = this.#phase;
      const inPhase = now - start;
      const isTelling = done < total && done >= total * TELLING_PART;
      const pace = isTelling ? (inPhase * (total - done)) / done / PACE_MARGIN : 0;
      remaining += Math.max(pace, history.least(name) - inPhase);
    }
    return { elapsed: now - this.#begun, remaining, runs: history.runs };
  }

  /** The blackout is over on this side. */
  [Symbol.dispose](): void {
    this.#blackout?.[Symbol.dispose]();
    this.#blackout = undefined;
  }

  #check(): void {
    const blackout = this.#parts.budget?.blackout;
    const forecast = this.forecast();
    if (!this.#cancels || blackout === undefined || forecast === undefined || this.#phase === undefined) return;
    if (!BLACKOUT_PHASES.some((phase) => phase === this.#phase?.name)) return;
    const { elapsed, remaining, runs } = forecast;
    if (elapsed > blackout) {
      this.#overrun(blackout, elapsed);
    } else if (elapsed + remaining > blackout) {
      const why = runs === 0 ? 'at this pace' : `by ${ofRuns(runs)} and the pace of this one`;
      this.#end(
        `the blackout's budget of ${blackout} ms cannot be met any more: ${show(elapsed)} ms are gone, and ${why} ` +
          `${show(remaining)} ms are to come at least${CANCELLED}`,
        'budget.blackout',
      );
    }
  }

  #overrun(blackout: number, elapsed: number): void {
    this.#end(
      `the blackout had a budget of ${blackout} ms and took ${show(elapsed)} ms so far${CANCELLED}`,
      'budget.blackout',
    );
  }

  #end(text: string, field: string): void {
    this.#parts.interrupt.end(this.#error(text, field));
  }

  #error(text: string, field: string): KhoError {
    return new KhoError('KHO_ETIMEDOUT', text, { field, ...(this.#phase && { phase: this.#phase.name }) });
  }
}

function show(milliseconds: number): string {
  return String(Number(milliseconds.toPrecision(3)));
}

function ofRuns(runs: number): string {
  return runs === 1 ? 'an earlier run' : `${runs} earlier runs`;
}
