const ARRIVED = 0;
const GENERATION = 1;

/** About 170 us of Atomics.load: longer than threads that do the same work come apart. */
const SPINS = 20_000;

/** Where threads wait for each other: they spin for a while, then park. Any number of times. */
export class Barrier {
  readonly #words: Int32Array;
  readonly #threads: number;

  /** `buffer` is shared by all threads, and zero at first; see {@link Barrier.BYTES}. */
  constructor(buffer: SharedArrayBuffer, threads: number) {
    this.#words = new Int32Array(buffer);
    this.#threads = threads;
  }

  static readonly BYTES = 8;

  /** Returns when every thread has arrived. */
  wait(): void {
    const words = this.#words;
    const generation = Atomics.load(words, GENERATION);
    if (Atomics.add(words, ARRIVED, 1) === this.#threads - 1) {
      Atomics.store(words, ARRIVED, 0);
      Atomics.add(words, GENERATION, 1);
      Atomics.notify(words, GENERATION);
      return;
    }
    for (let spin = 0; spin < SPINS; spin++) if (Atomics.load(words, GENERATION) !== generation) return;
    while (Atomics.load(words, GENERATION) === generation) Atomics.wait(words, GENERATION, generation);
  }
}
