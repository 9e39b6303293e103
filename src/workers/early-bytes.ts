const EARLY = 0;
const ALL = 1;
const WORDS = 2;

/**
 * How much of its state each shard had written before the blackout.
 *
 * ```text
 *   [2 * s]      EARLY: bytes of FDT that shard s had when serialize began, and has not taken out again
 *   [2 * s + 1]  ALL: bytes that it had in the end
 * ```
 *
 * Both are written by the thread that ran the shard's serialize, and read by the main thread after its answer.
 */
export class EarlyBytes {
  readonly #words: Int32Array;

  private constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  static create(shards: number): EarlyBytes {
    return new EarlyBytes(new SharedArrayBuffer(Math.max(1, shards) * WORDS * 4));
  }

  static attach(buffer: SharedArrayBuffer): EarlyBytes {
    return new EarlyBytes(buffer);
  }

  get buffer(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer;
  }

  set(shard: number, early: number, all: number): void {
    this.#words[shard * WORDS + EARLY] = early;
    this.#words[shard * WORDS + ALL] = all;
  }

  of(shard: number): { readonly early: number; readonly all: number } {
    return { early: this.#words[shard * WORDS + EARLY] ?? 0, all: this.#words[shard * WORDS + ALL] ?? 0 };
  }
}
