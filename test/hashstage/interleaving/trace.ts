/** Which thread made each access of the present schedule. */
export class Trace {
  readonly #threads: string[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(thread: string): void {
    this.#threads[this.#length++] = thread;
  }

  /** Forgets what came after the first `length` accesses. */
  cut(length: number): void {
    this.#length = length;
  }

  /** Such as "w1 x5, w2 x3". */
  toString(): string {
    const runs: string[] = [];
    for (let from = 0, to = 0; from < this.#length; from = to) {
      while (to < this.#length && this.#threads[to] === this.#threads[from]) to++;
      runs.push(`${this.#threads[from]} x${to - from}`);
    }
    return runs.join(', ');
  }
}
