/** Words of a cache line: each contended word has one to itself. */
const CACHE_LINE_WORDS = 16;
const THREADS = 0;
const STARTED = CACHE_LINE_WORDS;
const ROUNDS = 2 * CACHE_LINE_WORDS;
/** How long the main thread waits until all have started: a thread whose processor is taken by others starts later. */
const START_MS = 2;

/**
 * Where the threads of a crew wait for their next round.
 *
 * ```text
 *   [0]              THREADS: how many take part in the round          main thread, before it opens
 *   [16]             STARTED: how many of them have passed             0 by the main thread before it opens; Atomics.add
 *   [32 + 16 * s]    ROUND of slot s: one more for each round          main thread: Atomics.add; the slot's thread waits on it
 * ```
 *
 * The main thread raises every ROUND, but wakes slot 0 alone, and goes to sleep until all have started; each thread wakes two
 * more when it begins. For the kernel puts a thread that is woken while every processor is busy (the waking thread has one of
 * them) behind another one, and there it stays until the queues are balanced, some milliseconds later. In a chain, with the
 * main thread asleep, there is a processor free for each. Measured with two threads on two processors, Linux 6.18: the
 * second one starts after 3.9 ms (median) if the main thread wakes both, and else after 0.05.
 */
export class Gate {
  readonly #words: Int32Array;

  private constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  static create(slots: number): Gate {
    return new Gate(new SharedArrayBuffer((ROUNDS + slots * CACHE_LINE_WORDS) * 4));
  }

  static attach(buffer: SharedArrayBuffer): Gate {
    return new Gate(buffer);
  }

  get buffer(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer;
  }

  /**
   * Lets the threads of slots 0 to `threads` - 1 go on, and waits until they do, but no longer than 2 ms. With `wakeAll`
   * none relies on another one to be woken, and nobody waits: for when one may be dead, or when there is no hurry. Main
   * thread.
   */
  open(threads: number, wakeAll: boolean): void {
    const words = this.#words;
    Atomics.store(words, THREADS, threads);
    Atomics.store(words, STARTED, 0);
    for (let slot = 0; slot < threads; slot++) Atomics.add(words, roundOf(slot), 1);
    for (let slot = 0; slot < (wakeAll ? threads : 1); slot++) Atomics.notify(words, roundOf(slot));
    if (wakeAll) return;
    const deadline = performance.now() + START_MS;
    for (let started = 0; started < threads; started = Atomics.load(words, STARTED)) {
      const left = deadline - performance.now();
      if (left <= 0 || Atomics.wait(words, STARTED, started, left) === 'timed-out') return;
    }
  }

  /** Waits until round `seen` is over, wakes the threads that are this one's to wake, and returns the new round. */
  pass(slot: number, seen: number): number {
    const words = this.#words;
    const at = roundOf(slot);
    let round = Atomics.load(words, at);
    while (round === seen) {
      Atomics.wait(words, at, seen);
      round = Atomics.load(words, at);
    }
    const threads = Atomics.load(words, THREADS);
    for (const next of [2 * slot + 1, 2 * slot + 2]) if (next < threads) Atomics.notify(words, roundOf(next));
    // Nobody but the last one wakes the main thread, whose processor another thread may need.
    if (Atomics.add(words, STARTED, 1) + 1 === threads) Atomics.notify(words, STARTED);
    return round;
  }
}

function roundOf(slot: number): number {
  return ROUNDS + slot * CACHE_LINE_WORDS;
}
