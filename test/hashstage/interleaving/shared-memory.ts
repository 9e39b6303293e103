/**
 * The memory of the simulated machine: what the threads share, and who touched which word when.
 *
 * Happens-before is kept with vector clocks, as ECMA-262 defines it (Memory Model: agent order, and SeqCst reads that
 * synchronize with the SeqCst write they read from). Two accesses of one word race if at least one writes, at least one
 * is plain, and neither happens before the other. Two threads that touch different bytes of one word count as touching
 * the same word: stricter than the language, and a stage should not do that either.
 *
 * Everything that changes lies in one Int32Array with an undo log, so that a search can go back to any earlier state:
 *
 * ```text
 *  heap words | clocks: T x T | of each heap word: T last clocks of PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE,
 *             |               |                    and the clock of the atomic write whose value it holds (T)
 * ```
 */

/** What an access is to the memory model. An update is an atomic read and write in one (add, a successful CAS, ...). */
export const PLAIN_READ = 0;
export const PLAIN_WRITE = 1;
export const ATOMIC_READ = 2;
export const ATOMIC_WRITE = 3;
export const ATOMIC_UPDATE = 4;
export type AccessKind = 0 | 1 | 2 | 3 | 4;

/** By kind: the earlier kinds that it may race with; and the kind that it is remembered as. */
const RACES_WITH: readonly (readonly AccessKind[])[] = [
  [PLAIN_WRITE, ATOMIC_WRITE],
  [PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE],
  [PLAIN_WRITE],
  [PLAIN_READ, PLAIN_WRITE],
  [PLAIN_READ, PLAIN_WRITE],
];
const REMEMBERED_AS: readonly AccessKind[] = [PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE, ATOMIC_WRITE];
/** Where the clock of the last atomic write stands, behind the four remembered kinds. */
const SYNCHRONIZES = 4;
const CLOCKS_PER_WORD = 5;

/** True if the access changes the word. */
export function writes(kind: AccessKind): boolean {
  return kind !== PLAIN_READ && kind !== ATOMIC_READ;
}

/** True if the two kinds, on one word and unordered, are a race. */
export function conflict(a: AccessKind, b: AccessKind): boolean {
  return RACES_WITH[a].includes(REMEMBERED_AS[b]);
}

export class SharedMemory {
  /** The heap's bytes, for typed arrays over it; it starts at byte 0. */
  readonly buffer: ArrayBuffer;
  readonly #cells: Int32Array;
  readonly #heapWords: number;
  readonly #threads: number;
  readonly #wordClocksAt: number;
  #reserved = 0;
  #trail = new Int32Array(4096);
  #trailLength = 0;

  constructor(threads: number, heapWords: number) {
    this.#threads = threads;
    this.#heapWords = heapWords;
    this.#wordClocksAt = heapWords + threads * threads;
    this.buffer = new ArrayBuffer((this.#wordClocksAt + heapWords * CLOCKS_PER_WORD * threads) * 4);
    this.#cells = new Int32Array(this.buffer);
    // A clock of 0 would make a thread's first accesses look as if everybody knew of them.
    for (let thread = 0; thread < threads; thread++) this.#cells[heapWords + thread * threads + thread] = 1;
  }

  /** Room for a shared buffer; returns its first byte. */
  reserve(bytes: number): number {
    const at = this.#reserved;
    this.#reserved += Math.ceil(bytes / 8) * 8;
    if (this.#reserved > this.#heapWords * 4) {
      throw new Error(`the program reserves more than the ${this.#heapWords * 4} bytes of the simulated machine`);
    }
    return at;
  }

  /** A mark for {@link rollback}. */
  checkpoint(): number {
    return this.#trailLength;
  }

  /** Makes everything as it was when `mark` was taken. */
  rollback(mark: number): void {
    const trail = this.#trail;
    const cells = this.#cells;
    for (let at = this.#trailLength; at > mark; ) {
      at -= 2;
      cells[trail[at]] = trail[at + 1];
    }
    this.#trailLength = mark;
  }

  /** Must be called before the word's value changes. */
  save(word: number): void {
    if (this.#trailLength === this.#trail.length) {
      const trail = new Int32Array(this.#trail.length * 2);
      trail.set(this.#trail);
      this.#trail = trail;
    }
    this.#trail[this.#trailLength++] = word;
    this.#trail[this.#trailLength++] = this.#cells[word];
  }

  /** All that `other` did so far happens before what `thread` does next: a message, or the start of a thread. */
  join(thread: number, other: number): void {
    this.#joinClock(this.#clockAt(thread), this.#clockAt(other));
  }

  /**
   * Notes an access. Returns the thread with whose earlier access it races, or -1.
   *
   * An access synchronizes before it is checked: what the value it reads was released with is ordered.
   */
  access(thread: number, kind: AccessKind, word: number): number {
    const threads = this.#threads;
    const cells = this.#cells;
    const clock = this.#clockAt(thread);
    const ofWord = this.#wordClocksAt + word * CLOCKS_PER_WORD * threads;
    const synchronizes = ofWord + SYNCHRONIZES * threads;
    if (kind === ATOMIC_READ || kind === ATOMIC_UPDATE) this.#joinClock(clock, synchronizes);
    let racing = -1;
    const against = RACES_WITH[kind];
    for (let other = 0; other < threads; other++) {
      if (other === thread) continue;
      const known = cells[clock + other];
      for (let index = 0; index < against.length; index++) {
        if (cells[ofWord + against[index] * threads + other] > known) racing = other;
      }
    }
    this.#set(ofWord + REMEMBERED_AS[kind] * threads + thread, cells[clock + thread]);
    if (kind === ATOMIC_WRITE || kind === ATOMIC_UPDATE) {
      for (let other = 0; other < threads; other++) this.#set(synchronizes + other, cells[clock + other]);
      this.#set(clock + thread, cells[clock + thread] + 1);
    } else if (kind === PLAIN_WRITE) {
      // Who reads this value synchronizes with nobody.
      for (let other = 0; other < threads; other++) this.#set(synchronizes + other, 0);
    }
    return racing;
  }

  #clockAt(thread: number): number {
    return this.#heapWords + thread * this.#threads;
  }

  #joinClock(into: number, from: number): void {
    const cells = this.#cells;
    for (let thread = 0; thread < this.#threads; thread++) {
      if (cells[from + thread] > cells[into + thread]) this.#set(into + thread, cells[from + thread]);
    }
  }

  #set(cell: number, value: number): void {
    if (this.#cells[cell] === value) return;
    this.save(cell);
    this.#cells[cell] = value;
  }
}
