/** Words of a cache line: each contended word has one to itself. */
const CACHE_LINE_WORDS = 16;
/** How long a thread looks for the next round before it sleeps. A wake-up takes longer than what the main thread does between phases. */
const SPIN_MS = 0.3;
/** How often it looks between two looks at the clock. */
const POLLS = 200;

/**
 * Where the threads of a crew wait for their next round.
 *
 * ```text
 *   [0]              THREADS: how many take part in the round          main thread, before it opens
 *   [16 * (1 + s)]   ROUND of slot s: one more for each round          main thread: Atomics.add; the slot's thread waits on it
 * ```
 *
 * The main thread raises every ROUND, but wakes slot 0 alone: each thread wakes two more when it begins. A thread that is
 * woken while all processors are busy (the waking thread has one of them) is put behind another one by the kernel, and
 * stays there until it balances its queues, some milliseconds later; a thread that is woken by one that goes on running,
 * while the main thread sleeps already, gets the processor that is free. Measured with two threads on two processors,
 * Linux 6.18: the second begins after 3.9 ms (median) if the main thread wakes both, 0.05 ms in a chain.
 */
export class Gate {
  readonly #words: Int32Array;

  private constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  static create(slots: number): Gate {
    return new Gate(new SharedArrayBuffer((1 + slots) * CACHE_LINE_WORDS * 4));
  }

  static attach(buffer: SharedArrayBuffer): Gate {
    return new Gate(buffer);
  }

  get buffer(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer;
  }

  /**
   * Lets the threads of slots 0 to `threads` - 1 go on. With `wakeAll` none relies on another one to be woken: for when one
   * may be dead, or when there is no hurry. Main thread.
   */
  open(threads: number, wakeAll: boolean): void {
    Atomics.store(this.#words, 0, threads);
    for (let slot = 0; slot < threads; slot++) Atomics.add(this.#words, roundOf(slot), 1);
    for (let slot = 0; slot < (wakeAll ? threads : 1); slot++) Atomics.notify(this.#words, roundOf(slot));
  }

  /**
   * Waits until round `seen` is over, and returns the new one; with `spin` it stays awake for a while, because the next
   * round is near. The slot's thread.
   */
  pass(slot: number, seen: number, spin: boolean): number {
    const at = roundOf(slot);
    const deadline = spin ? performance.now() + SPIN_MS : 0;
    let round = Atomics.load(this.#words, at);
    while (round === seen && performance.now() < deadline) {
      for (let poll = 0; poll < POLLS && round === seen; poll++) round = Atomics.load(this.#words, at);
    }
    while (round === seen) {
      Atomics.wait(this.#words, at, seen);
      round = Atomics.load(this.#words, at);
    }
    return round;
  }

  /** Wakes the threads that are this one's to wake. The slot's thread, whenever it has found that a round is open. */
  wakeNext(slot: number): void {
    const threads = Atomics.load(this.#words, 0);
    for (const next of [2 * slot + 1, 2 * slot + 2]) if (next < threads) Atomics.notify(this.#words, roundOf(next));
  }
}

function roundOf(slot: number): number {
  return (1 + slot) * CACHE_LINE_WORDS;
}
