/**
 * A peer: a shared hash table of *properties*, the design that the stage was chosen over. One slot for each property, keyed
 * by (node, name), published by one compare-and-swap after its record is filled. As good as it can simply be: plain probes,
 * an acquire only where a slot is taken, and the properties of one node begin to probe in one cache line.
 *
 * ```text
 *   word 0: arenas begin   word 1: slots, a power of two   word 16: next free arena   word 32: the lock of LockedTable
 *   slots: refs of property records, 0 = free
 *   arenas: node records [parent | length | text …], property records [node | name | low | high]
 * ```
 */
export const ARENAS_AT = 0;
export const SLOT_COUNT = 1;
export const ARENA_NEXT = 16;
export const LOCK = 32;
export const SLOTS_AT = 64;
const ARENA_WORDS = 16 * 1024;
/** A cache line of slots, where the properties of a node begin. */
const LINE = 16;

/** A table for this many properties, of nodes with at most `textWords` words of name; half of the slots stay free. */
export function createTable(properties: number, nodes: number, threads: number): SharedArrayBuffer {
  let slots = 1024;
  while (slots < properties * 2) slots *= 2;
  const arenasAt = Math.ceil((SLOTS_AT + slots) / ARENA_WORDS) * ARENA_WORDS;
  const recordWords = properties * 4 + nodes * 6;
  const words = arenasAt + (Math.ceil(recordWords / ARENA_WORDS) + threads + 1) * ARENA_WORDS;
  const table = new Int32Array(new SharedArrayBuffer(words * 4));
  table[ARENAS_AT] = arenasAt;
  table[SLOT_COUNT] = slots;
  clearTable(table);
  return table.buffer as SharedArrayBuffer;
}

/** Makes it empty again; its pages stay where they are. */
export function clearTable(table: Int32Array): void {
  const arenasAt = table[ARENAS_AT] as number;
  table.fill(0, SLOTS_AT, arenasAt);
  table[ARENA_NEXT] = arenasAt;
}

/** One thread's arena in the table. */
export class TableArena {
  readonly #words: Int32Array;
  #cursor = 0;
  #end = 0;

  constructor(words: Int32Array) {
    this.#words = words;
  }

  allocate(words: number): number {
    if (this.#cursor + words > this.#end) {
      this.#cursor = Atomics.add(this.#words, ARENA_NEXT, ARENA_WORDS);
      this.#end = this.#cursor + ARENA_WORDS;
      if (this.#end > this.#words.length) throw new Error('the table is full');
    }
    const ref = this.#cursor;
    this.#cursor += words;
    return ref;
  }

  /** A record of the node. A table of properties need not find nodes by name, so it costs no slot. */
  node(parent: number, name: string): number {
    const words = this.#words;
    const textWords = (name.length + 4) >>> 2;
    const ref = this.allocate(2 + textWords);
    words[ref] = parent;
    words[ref + 1] = name.length;
    for (let word = 0, at = 0; word < textWords; word++, at += 4) {
      let packed = at < name.length ? name.charCodeAt(at) : 0;
      if (at + 1 < name.length) packed |= name.charCodeAt(at + 1) << 8;
      if (at + 2 < name.length) packed |= name.charCodeAt(at + 2) << 16;
      if (at + 3 < name.length) packed |= name.charCodeAt(at + 3) << 24;
      words[ref + 2 + word] = packed;
    }
    return ref;
  }

  property(node: number, name: number, high: number, low: number): number {
    const words = this.#words;
    const ref = this.allocate(4);
    words[ref] = node;
    words[ref + 1] = name;
    words[ref + 2] = low;
    words[ref + 3] = high;
    return ref;
  }
}

/** Where the probes for a property begin: the node chooses a line of slots, the name a slot in it. */
export function homeSlot(node: number, name: number, mask: number): number {
  const hash = Math.imul(node, 0x9e3779b1);
  return (((hash ^ (hash >>> 15)) & mask & -LINE) + (name & (LINE - 1))) & mask;
}

/** One thread's writer of the table. */
export class PropertyTable {
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
    const ref = this.#arena.property(node, name, high, low);
    for (let slot = homeSlot(node, name, mask); ; slot = (slot + 1) & mask) {
      let found = words[SLOTS_AT + slot] as number;
      if (found === 0) {
        found = Atomics.compareExchange(words, SLOTS_AT + slot, 0, ref);
        if (found === 0) return;
      } else found = Atomics.load(words, SLOTS_AT + slot);
      if (words[found] === node && words[found + 1] === name) throw new Error('the property is there already');
    }
  }
}
