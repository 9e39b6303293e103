/**
 * The clock that deadlines are kept by: budgets, limits of callbacks, the grace after an interrupt. Times in a timeline are
 * not: those are measured, by process.hrtime, on every thread.
 *
 * A test gives one that it advances itself (ManualClock of khorus/testing), so that hours pass without waiting.
 */
export interface Clock {
  /** Milliseconds since any point in the past; never goes back. */
  now(): number;
  /** Calls `callback` once, when `ms` milliseconds have passed, unless it is disposed of before. */
  timer(ms: number, callback: () => void): Disposable;
}

/** The longest delay of setTimeout(); a longer one would fire at once. */
const LONGEST_MS = 2 ** 31 - 1;

/** The machine's own. Its timers keep the process alive. */
export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  timer(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, LONGEST_MS));
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
};
