import { KhoError } from '../errors.js';
import type { Budget } from './plan.js';

/**
 * What may end a run before its time: an AbortSignal, or the blackout's budget. The main thread only waits while
 * drivers work, so both are seen at once, whatever the drivers do.
 */
export class Interrupt implements Disposable {
  /** Rejects when the run is to end; never resolves. */
  readonly promise: Promise<never>;
  #reason: KhoError | undefined;
  #reject: (reason: KhoError) => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  readonly #signal: AbortSignal | undefined;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
    this.promise = new Promise<never>((_resolve, reject) => {
      this.#reject = reject;
    });
    this.promise.catch(() => {});
    signal?.addEventListener('abort', this.#aborted);
    if (signal?.aborted) this.#aborted();
  }

  /** Throws what ended the run, if something did. */
  check(): void {
    if (this.#reason !== undefined) throw this.#reason;
  }

  /** Starts the clock of a budget that is to cancel the run; one with `ignore` only counts. */
  startBudget(budget: Budget | undefined): void {
    if (budget?.onOverrun !== 'cancel') return;
    this.#timer = setTimeout(() => {
      const text = `the blackout took longer than its budget of ${budget.blackout} ms and was cancelled`;
      this.#end(new KhoError('KHO_ETIMEDOUT', text, { field: 'budget.blackout' }));
    }, budget.blackout);
  }

  /** The blackout is over on this side. */
  stopBudget(): void {
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    this.stopBudget();
    this.#signal?.removeEventListener('abort', this.#aborted);
  }

  readonly #aborted = (): void => {
    const reason: unknown = this.#signal?.reason;
    this.#end(
      reason instanceof KhoError
        ? reason
        : new KhoError('KHO_ECANCELED', 'the handover was aborted', {}, { cause: reason }),
    );
  };

  #end(reason: KhoError): void {
    this.#reason ??= reason;
    this.#reject(this.#reason);
  }
}
