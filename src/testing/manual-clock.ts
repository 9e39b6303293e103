import type { Clock } from '../coordinator/index.js';

interface ManualTimer {
  readonly due: number;
  readonly callback: () => void;
}

/**
 * A clock that stands still until it is told to go on: what deadlines are tested with, without waiting. It has the shape
 * that `CoordinatorOptions.clock` wants.
 */
export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<ManualTimer>();

  /** Milliseconds that it was told to go on. */
  now(): number {
    return this.#now;
  }

  /** Calls back once, when the clock has gone on by `ms`, unless it is disposed of before. */
  timer(ms: number, callback: () => void): Disposable {
    const timer: ManualTimer = { due: this.#now + Math.max(0, ms), callback };
    this.#timers.add(timer);
    return { [Symbol.dispose]: () => void this.#timers.delete(timer) };
  }

  /** Goes on by so many milliseconds, and calls back whoever waits for a moment until then, in the order of the moments. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.due <= end);
      if (due.length === 0) break;
      const next = due.reduce((first, timer) => (timer.due < first.due ? timer : first));
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.due);
      next.callback();
    }
    this.#now = end;
  }

  /** How many wait. */
  get pending(): number {
    return this.#timers.size;
  }
}
