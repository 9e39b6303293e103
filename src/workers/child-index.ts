import { hashName, sameName } from './packed-name.js';

/** Slots are two words: the hash of (parent, name), and the child's ref; 0, the root's, is a free slot. */
const SLOT_WORDS = 2;
const FIRST_SLOTS = 16;

/**
 * The nodes of one shard by parent and name: an open-addressed map, since a Map of strings would cost a node more than its
 * properties do. It serves one shard at a time and keeps its room for the next.
 */
export class ChildIndex {
  #slots = new Int32Array(FIRST_SLOTS * SLOT_WORDS);
  #mask = FIRST_SLOTS - 1;
  #used = 0;
  /** By ref: where the packed name stands. */
  #names = new Int32Array(64);
  /** What the last {@link find} did not find, for the {@link insert} that follows it. */
  #hash = 0;
  #slot = 0;

  /** Forgets everything but how large the last shard was: the next is often as large. */
  clear(): void {
    while (this.#mask >= FIRST_SLOTS && this.#used * 4 <= this.#mask) this.#mask >>>= 1;
    this.#used = 0;
    this.#slots.fill(0, 0, (this.#mask + 1) * SLOT_WORDS);
  }

  /** The child of `parent` whose name is the one packed at `name`; 0 if there is none. */
  find(words: Int32Array, parent: number, name: number): number {
    const hash = hashName(words, name, parent);
    const slots = this.#slots;
    const mask = this.#mask;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const ref = slots[slot * SLOT_WORDS + 1];
      if (ref === 0) {
        this.#hash = hash;
        this.#slot = slot;
        return 0;
      }
      // With one name, every parent has another hash, so the parent need not be compared.
      if (slots[slot * SLOT_WORDS] === hash && sameName(words, this.#names[ref], name)) return ref;
    }
  }

  /** Adds the child that {@link find} has just not found. */
  insert(ref: number, name: number): void {
    if (ref >= this.#names.length) this.#names = enlarged(this.#names, ref + 1);
    this.#names[ref] = name;
    this.#slots[this.#slot * SLOT_WORDS] = this.#hash;
    this.#slots[this.#slot * SLOT_WORDS + 1] = ref;
    if (++this.#used * 2 > this.#mask) this.#grow();
  }

  #grow(): void {
    const size = (this.#mask + 1) * SLOT_WORDS;
    const old = this.#slots.slice(0, size);
    if (this.#slots.length < size * 2) this.#slots = new Int32Array(size * 2);
    else this.#slots.fill(0, 0, size * 2);
    this.#mask = this.#mask * 2 + 1;
    const slots = this.#slots;
    for (let at = 0; at < size; at += SLOT_WORDS) {
      if (old[at + 1] === 0) continue;
      let slot = old[at] & this.#mask;
      while (slots[slot * SLOT_WORDS + 1] !== 0) slot = (slot + 1) & this.#mask;
      slots[slot * SLOT_WORDS] = old[at];
      slots[slot * SLOT_WORDS + 1] = old[at + 1];
    }
  }
}

/** A copy with room for at least `length` words. */
export function enlarged(words: Int32Array<ArrayBuffer>, length: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(Math.max(length, words.length * 2));
  larger.set(words);
  return larger;
}
