/**
 * The strings block while it grows: each property name once, at an offset that never changes.
 * A name within another (`reg` in `#reg`) is not shared, so that offsets depend on the order of names alone.
 */
export class StringTable {
  readonly #ids = new Map<string, number>();
  readonly #offsets: number[] = [];
  readonly #users: number[] = [];
  #size = 0;

  /** Bytes of the block. */
  get size(): number {
    return this.#size;
  }

  /** The id of a name, if the table has it. */
  find(name: string): number | undefined {
    return this.#ids.get(name);
  }

  /** The id of a name, which is appended unless the table has it. One byte per character. */
  add(name: string): number {
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    const id = this.#offsets.length;
    this.#ids.set(name, id);
    this.#offsets.push(this.#size);
    this.#users.push(0);
    this.#size += name.length + 1;
    return id;
  }

  /** Offset of a name in the block. */
  offset(id: number): number {
    return this.#offsets[id];
  }

  /** Whether the node of this number (1, 2, …) was the last to use the name. */
  usedBy(id: number, node: number): boolean {
    return this.#users[id] === node;
  }

  use(id: number, node: number): void {
    this.#users[id] = node;
  }

  /** Writes the block. */
  write(bytes: Uint8Array, at: number): void {
    let to = at;
    for (const name of this.#ids.keys()) {
      for (let i = 0; i < name.length; i++) bytes[to++] = name.charCodeAt(i);
      bytes[to++] = 0;
    }
  }
}
