/** The gate's bits: closed for good, and how many writes are under way above it. */
const CLOSED = 1;
const ONE_WRITE = 2;
/** How often the closing thread looks whether the last writes are done: some hundred microseconds. */
const SPINS = 50_000;

/**
 * Whether a run still holds its memory, for devices that write to it at any time (DmaWindow): one word in shared memory.
 *
 * ```text
 *   bit 0       the memory is given back, or about to be    set once, by the main thread
 *   bits 1..31  writes under way                            each writer adds one and takes it off
 * ```
 *
 * A writer that has added itself before the gate was closed ends its write first: then pages go back to the allocator.
 * A thread that dies in a write never ends it, and is not waited for longer than some hundred microseconds.
 */
export class DmaGate {
  readonly handle: SharedArrayBuffer;
  readonly #word: Int32Array;

  private constructor(handle: SharedArrayBuffer) {
    this.handle = handle;
    this.#word = new Int32Array(handle);
  }

  static create(): DmaGate {
    return new DmaGate(new SharedArrayBuffer(4));
  }

  static attach(handle: SharedArrayBuffer): DmaGate {
    return new DmaGate(handle);
  }

  /** Begins a write; false if the gate is closed. After true comes {@link leave}. */
  enter(): boolean {
    if ((Atomics.add(this.#word, 0, ONE_WRITE) & CLOSED) === 0) return true;
    this.leave();
    return false;
  }

  leave(): void {
    Atomics.sub(this.#word, 0, ONE_WRITE);
  }

  /** Lets nobody write any more, and waits for those that do. */
  close(): void {
    Atomics.or(this.#word, 0, CLOSED);
    for (let spin = 0; spin < SPINS && Atomics.load(this.#word, 0) !== CLOSED; spin++);
  }
}
