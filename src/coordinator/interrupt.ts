import { KhoError } from '../errors.js';

/**
 * What may end a run before its time: an AbortSignal, a deadline, or a call of cancel(). The main thread only waits while
 * drivers work, so all are seen at once, whatever the drivers do.
 */
export class Interrupt implements Disposable {
  /** Rejects when the run is to end; never resolves. */
  readonly promise: Promise<never>;
  #reason: KhoError | undefined;
  #reject: (reason: KhoError) => void = () => {};
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

  /** Ends the run for this reason, unless it ended for another one before. */
  end(reason: KhoError): void {
    this.#reason ??= reason;
    this.#reject(this.#reason);
  }

  [Symbol.dispose](): void {
    this.#signal?.removeEventListener('abort', this.#aborted);
  }

  readonly #aborted = (): void => {
    const reason: unknown = this.#signal?.reason;
    this.end(
      reason instanceof KhoError
        ? reason
        : new KhoError('KHO_ECANCELED', 'the handover was aborted', {}, { cause: reason }),
    );
  };
}
