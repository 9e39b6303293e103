import { homeSlot, LOCK, SLOT_COUNT, SLOTS_AT, TableArena } from './property-table.js';

const FREE = 0;
const HELD = 1;
const CONTENDED = 2;
/** How often a thread looks before it parks. */
const SPINS = 1000;

/**
 * A peer: the same table of properties under one lock, which each insertion takes. The lock is a futex mutex that spins
 * for a while; under it the table needs no atomic operation.
 */
export class LockedTable {
  readonly #words: Int32Array;
  readonly #arena: TableArena;
  readonly #mask: number;

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
    this.#arena = new TableArena(this.#words);
    this.#mask = (this.#words[SLOT_COUNT] as number) - 1;
  }

  node(parent: number, name: string): number {
    return this.#arena.node(parent, name);
  }

  u64(node: number, name: number, high: number, low: number): void {
    const words = this.#words;
    const mask = this.#mask;
    // Filled before the lock is taken: arenas are private.
    const ref = this.#arena.property(node, name, high, low);
    if (Atomics.compareExchange(words, LOCK, FREE, HELD) !== FREE) this.#waitForLock();
    let slot = homeSlot(node, name, mask);
    for (let found = words[SLOTS_AT + slot] as number; found !== 0; found = words[SLOTS_AT + slot] as number) {
      if (words[found] === node && words[found + 1] === name) {
        this.#unlock();
        throw new Error('the property is there already');
      }
      slot = (slot + 1) & mask;
    }
    words[SLOTS_AT + slot] = ref;
    this.#unlock();
  }

  #unlock(): void {
    if (Atomics.exchange(this.#words, LOCK, FREE) === CONTENDED) Atomics.notify(this.#words, LOCK, 1);
  }

  #waitForLock(): void {
    const words = this.#words;
    for (let spin = 0; spin < SPINS; spin++) {
      if (words[LOCK] === FREE && Atomics.compareExchange(words, LOCK, FREE, HELD) === FREE) return;
    }
    while (Atomics.exchange(words, LOCK, CONTENDED) !== FREE) Atomics.wait(words, LOCK, CONTENDED);
  }
}
