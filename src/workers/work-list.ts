/** Words of a cache line: each contended word has one to itself. */
const CACHE_LINE_WORDS = 16;

/** What another thread needs to take part; structured-cloneable, shares the memory. */
export interface WorkListHandle {
  readonly buffer: SharedArrayBuffer;
  readonly length: number;
}

/**
 * A list of work that several threads share: each takes the next position as soon as it is free, so no thread waits while
 * there is work, and one message a thread starts it all. (A message costs about 150 µs, taking a position less than 0.1.)
 *
 * ```text
 *   [0]           NEXT: the first position that nobody has taken    Atomics.add; set to the length to close the list
 *   [16 * (1+s)]  CURRENT of slot s: its position + 1, 0 for none   written by the slot's thread, before it begins
 *   [.. + 1]      THREAD of slot s: Node's id of that thread        written by it before CURRENT
 *   bytes         DONE of each position: 1 once its work succeeded  written by the thread that took it
 * ```
 *
 * A slot belongs to one thread at a time. CURRENT is what tells whose work it was when a thread dies, and THREAD which one
 * to end when its callback does not return; DONE tells what it had done before, since its answer went with it.
 */
export class WorkList {
  readonly length: number;
  readonly #words: Int32Array;
  readonly #done: Uint8Array;

  private constructor({ buffer, length }: WorkListHandle) {
    this.#words = new Int32Array(buffer);
    this.#done = new Uint8Array(buffer, buffer.byteLength - doneBytes(length), length);
    this.length = length;
  }

  /** A list of `length` positions for so many threads. */
  static create(length: number, slots: number): WorkList {
    const words = (1 + slots) * CACHE_LINE_WORDS;
    return new WorkList({ buffer: new SharedArrayBuffer(words * 4 + doneBytes(length)), length });
  }

  static attach(handle: WorkListHandle): WorkList {
    return new WorkList(handle);
  }

  get handle(): WorkListHandle {
    return { buffer: this.#words.buffer as SharedArrayBuffer, length: this.length };
  }

  /** The thread `threadId` has the slot from now on. Before it takes anything. */
  enter(slot: number, threadId: number): void {
    Atomics.store(this.#words, (1 + slot) * CACHE_LINE_WORDS + 1, threadId);
  }

  /** Node's id of the thread that has or had a slot; 0 if none did. Any thread. */
  threadOf(slot: number): number {
    return Atomics.load(this.#words, (1 + slot) * CACHE_LINE_WORDS + 1);
  }

  /** The next position, which is the slot's own now; undefined when there is none. */
  take(slot: number): number | undefined {
    const position = Atomics.add(this.#words, 0, 1);
    const mine = position < this.length;
    Atomics.store(this.#words, (1 + slot) * CACHE_LINE_WORDS, mine ? position + 1 : 0);
    return mine ? position : undefined;
  }

  /** What a slot took last and has not left behind by taking again; undefined for none. Any thread. */
  current(slot: number): number | undefined {
    const current = Atomics.load(this.#words, (1 + slot) * CACHE_LINE_WORDS);
    return current === 0 ? undefined : current - 1;
  }

  /** The callback of a position that the calling thread has taken succeeded. */
  finish(position: number): void {
    Atomics.store(this.#done, position, 1);
  }

  /** Whether the callback of a position succeeded, whatever became of its thread. Any thread. */
  isFinished(position: number): boolean {
    return Atomics.load(this.#done, position) === 1;
  }

  /** The slot's thread is gone, and somebody knows what it was at. */
  leave(slot: number): void {
    Atomics.store(this.#words, (1 + slot) * CACHE_LINE_WORDS, 0);
  }

  /** How many positions were taken, or given up by closing. Any thread. */
  get taken(): number {
    return Math.min(this.length, Atomics.load(this.#words, 0));
  }

  /** Lets nobody take more. Any thread; what is taken goes on. */
  close(): void {
    Atomics.store(this.#words, 0, this.length);
  }
}

/** Whole words, so that the buffer is a multiple of them. */
function doneBytes(length: number): number {
  return Math.ceil(length / 4) * 4;
}
