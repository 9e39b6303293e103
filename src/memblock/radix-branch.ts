import { KhoError } from '../errors.js';
import { after, hex, PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { SharedPhysicalMemory } from './physical-memory.js';
import { ROOT_LEVEL, tableIndex } from './radix-key.js';

/**
 * The tables of a radix tree as one thread sees them: it follows their entries, and hangs new branches in. Any number of
 * threads may do both at once, each with a `RadixBranches` of its own.
 *
 * A thread whose descent meets an empty entry makes all that is missing below it in pages that nobody else knows, and
 * then shows the whole branch with one compare-and-swap. So the tree is whole at any moment: there is never a table that
 * leads nowhere, and when pages run out nothing has been linked. (The kernel links page by page under a mutex, and on
 * ENOMEM unlinks what it made at the place where it began.)
 *
 * ```text
 *   thread A: set(a)               the tree                 thread B: set(b)
 *
 *   reads entry = 0 ─────────────▶ │ 0 │ ◀───────────────── reads entry = 0
 *   takes pages, zeroes them,                              takes pages, zeroes them,
 *   links P1 ▸ P2 ▸ leaf                                   links Q1 ▸ Q2 ▸ leaf
 *   CAS(entry, 0, P1): was 0 ────▶ │ P1 │ ◀─────────────── CAS(entry, 0, Q1): was P1, lost
 *   sets a's bit in its leaf                               unlinks Q1 Q2 leaf, keeps them, zero as they are, as spares
 *                                                          goes on below P1, with spares for what is missing there
 * ```
 *
 * An entry has two states: 0, and the page that it leads to for ever. Every access to a linked entry is one atomic 64-bit
 * access: two 32-bit words could be halves of different states. Whoever reads the page out of an entry also sees that
 * it was zeroed, and the entries that it was given before the compare-and-swap; of entries and bits that came later each is
 * seen or not.
 */
export class RadixBranches {
  readonly #memory: SharedPhysicalMemory;
  readonly #root: PhysicalAddress;
  #allocate: (() => PhysicalAddress) | undefined;
  /** Pages, zero and linked nowhere. */
  readonly #spares: PhysicalAddress[] = [];
  readonly #linked: PhysicalAddress[] = [];

  /** Without `root` a tree is begun. Without `allocate` no page can be made. */
  constructor(memory: SharedPhysicalMemory, allocate: (() => PhysicalAddress) | undefined, root?: PhysicalAddress) {
    this.#memory = memory;
    this.#allocate = allocate;
    if (root === undefined) this.#linked.push(...this.#take(1));
    this.#root = root ?? this.#linked[0];
  }

  get root(): PhysicalAddress {
    return this.#root;
  }

  get canGrow(): boolean {
    return this.#allocate !== undefined;
  }

  /** No page is made any more. */
  seal(): void {
    this.#allocate = undefined;
  }

  /** The pages that were linked here, in the order of their allocation. */
  get linked(): readonly PhysicalAddress[] {
    return this.#linked;
  }

  /** Gives away the pages that were taken and are linked nowhere. */
  takeSpares(): PhysicalAddress[] {
    return this.#spares.splice(0);
  }

  /** The page of a leaf; undefined if no path leads there. */
  find(leaf: number): PhysicalAddress | undefined {
    let page = this.#root;
    for (let level = ROOT_LEVEL; level > 0; level--) {
      const { array, index } = this.#memory.longs(after(page, tableIndex(leaf, level) * 8));
      page = Number(Atomics.load(array, index)) as PhysicalAddress;
      if (page === 0) return undefined;
    }
    return page;
  }

  /** The page of a leaf, with a path that is made if there was none. What the allocator throws passes through. */
  grow(leaf: number): PhysicalAddress {
    let page = this.#root;
    for (let level = ROOT_LEVEL; level > 0; level--) {
      const { array, index } = this.#memory.longs(after(page, tableIndex(leaf, level) * 8));
      page = Number(Atomics.load(array, index)) as PhysicalAddress;
      if (page !== 0) continue;
      const branch = this.#take(level);
      this.#chain(branch, leaf, true);
      const winner = Atomics.compareExchange(array, index, 0n, BigInt(branch[0]));
      if (winner === 0n) {
        for (const linked of branch) this.#linked.push(linked);
        return branch[level - 1];
      }
      this.#chain(branch, leaf, false);
      this.#spares.push(...branch);
      page = Number(winner) as PhysicalAddress;
    }
    return page;
  }

  /** Links the pages of a branch, which end in the leaf, below each other; or takes that back. Nobody else sees them. */
  #chain(branch: readonly PhysicalAddress[], leaf: number, link: boolean): void {
    for (let position = 0; position < branch.length - 1; position++) {
      const entry = after(branch[position], tableIndex(leaf, branch.length - 1 - position) * 8);
      this.#memory.writeU64(entry, link ? branch[position + 1] : 0);
    }
  }

  /** So many zero pages, or none: what is there when the allocator fails stays a spare. */
  #take(count: number): PhysicalAddress[] {
    while (this.#spares.length < count) this.#spares.push(this.#newPage());
    return this.#spares.splice(0, count);
  }

  #newPage(): PhysicalAddress {
    if (this.#allocate === undefined) {
      throw new KhoError('KHO_EPERM', 'a radix tree without an allocator cannot grow', { call: 'ensure' });
    }
    const page = this.#allocate();
    if (page % PAGE_SIZE !== 0) {
      throw new KhoError('KHO_EINVAL', `the table page at ${hex(page)} is not aligned to a page`, { address: page });
    }
    this.#memory.fill(page, PAGE_SIZE, 0);
    return page;
  }
}
