const INITIAL_CAPACITY = 64;

/**
 * Which nodes a shard has, and their first fragments: an open-addressed map of refs, two words a slot, for one thread.
 * It takes the place of a Map of objects, which costs a shard of many small nodes more than its properties.
 * A ref of 0 is a free slot.
 */
export class OpenNodes {
  #slots = new Int32Array(2 * INITIAL_CAPACITY);
  #mask = INITIAL_CAPACITY - 1;
  /** Slots that are not free. */
  #used = 0;

  /** The first fragment of node `ref`, or 0. */
  get(ref: number): number {
    const slots = this.#slots;
    for (let slot = slotOf(ref) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const found = slots[slot * 2];
      if (found === ref) return slots[slot * 2 + 1];
      if (found === 0) return 0;
    }
  }

  set(ref: number, fragment: number): void {
    if (this.#used * 2 > this.#mask) this.#grow();
    const slots = this.#slots;
    let slot = slotOf(ref) & this.#mask;
    while (slots[slot * 2] !== 0 && slots[slot * 2] !== ref) slot = (slot + 1) & this.#mask;
    if (slots[slot * 2] === 0) this.#used++;
    slots[slot * 2] = ref;
    slots[slot * 2 + 1] = fragment;
  }

  clear(): void {
    this.#slots.fill(0);
    this.#used = 0;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(old.length * 2);
    this.#mask = this.#slots.length / 2 - 1;
    this.#used = 0;
    for (let at = 0; at < old.length; at += 2) if (old[at] !== 0) this.set(old[at], old[at + 1]);
  }
}

/** Refs are word offsets, a few words apart: multiplied so that neighbours spread. */
function slotOf(ref: number): number {
  return Math.imul(ref, 0x9e3779b1) >>> 8;
}
