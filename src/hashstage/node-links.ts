import { NODE_NUMBER, type NodeRef } from './layout.js';

const INITIAL_NODES = 64;

/** Of a node's links: its ref. */
export const LINK_REF = 0;
/** Its first and its last fragment; those between follow by FRAGMENT_SAME. */
export const LINK_FIRST = 1;
export const LINK_LAST = 2;
/** The shard that last had it. */
export const LINK_SHARD = 3;
/** The links of its first and its last child, and of its next sibling; 0 for none. */
export const LINK_CHILD = 4;
export const LINK_LAST_CHILD = 5;
export const LINK_SIBLING = 6;
const LINK_WORDS = 8;

/**
 * What the finalizer knows of the nodes of one FDT whose order it must find: eight words a node in one array, so that a
 * node costs one cache line and no allocation. A node's links are named by where they stand; 0 is none.
 *
 * The node's record says where in NUMBER, which may be left from another FDT: so it counts only if the links there are
 * in use and say that they are that node's.
 */
export class NodeLinks {
  readonly #stage: Int32Array;
  #words = new Int32Array(LINK_WORDS * INITIAL_NODES);
  #end = LINK_WORDS;

  constructor(stage: Int32Array) {
    this.#stage = stage;
  }

  /** The links themselves: another array after {@link add}. */
  get words(): Int32Array {
    return this.#words;
  }

  clear(): void {
    this.#end = LINK_WORDS;
  }

  /** The links of a node, or 0. */
  of(ref: NodeRef): number {
    const at = this.#stage[ref + NODE_NUMBER];
    return at > 0 && at < this.#end && at % LINK_WORDS === 0 && this.#words[at + LINK_REF] === ref ? at : 0;
  }

  /** Links for a node that has none yet, with one fragment of a shard. */
  add(ref: NodeRef, fragment: number, shard: number): number {
    const at = this.#end;
    this.#end += LINK_WORDS;
    if (this.#end > this.#words.length) {
      const words = new Int32Array(this.#words.length * 2);
      words.set(this.#words);
      this.#words = words;
    }
    const words = this.#words;
    words[at + LINK_REF] = ref;
    words[at + LINK_FIRST] = fragment;
    words[at + LINK_LAST] = fragment;
    words[at + LINK_SHARD] = shard;
    words[at + LINK_CHILD] = 0;
    words[at + LINK_LAST_CHILD] = 0;
    words[at + LINK_SIBLING] = 0;
    this.#stage[ref + NODE_NUMBER] = at;
    return at;
  }
}
