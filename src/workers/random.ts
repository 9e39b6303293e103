/**
 * A small deterministic generator (sfc32) for simulated state. Not for cryptography.
 *
 * The same seed gives the same sequence on every thread, platform and release: what is handed over depends on it.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `seed` is any text; different texts give unrelated sequences. */
  constructor(seed: string) {
    // xmur3-style mixing of the text into three words.
    let hash = 1779033703 ^ seed.length;
    for (let index = 0; index < seed.length; index++) {
      hash = Math.imul(hash ^ seed.charCodeAt(index), 3432918353);
      hash = (hash << 13) | (hash >>> 19);
    }
    const next = () => {
      hash = Math.imul(hash ^ (hash >>> 16), 2246822507);
      hash = Math.imul(hash ^ (hash >>> 13), 3266489909);
      hash ^= hash >>> 16;
      return hash;
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    for (let round = 0; round < 12; round++) this.u32();
  }

  /** A 32-bit word, 0 to 2^32-1. */
  u32(): number {
    const sum = (this.#a + this.#b + this.#counter++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return sum >>> 0;
  }

  /** A 64-bit word. */
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** An integer in [0, limit), limit up to 2^32. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit);
  }

  /** True once in `times` draws, on average. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  /** One of the values. */
  pick<T>(values: readonly [T, ...T[]]): T {
    return values[this.below(values.length)] as T;
  }

  /** `length` bytes. */
  bytes(length: number): Uint8Array {
    const words = new Uint32Array((length + 3) >>> 2);
    for (let index = 0; index < words.length; index++) words[index] = this.u32();
    return new Uint8Array(words.buffer, 0, length);
  }
}
