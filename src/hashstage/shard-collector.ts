import { KhoError } from '../errors.js';
import { siblingsConflict } from '../fdt/index.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_SAME,
  FRAGMENT_USED,
  NAMES_COUNT,
  NAMES_IDS,
  NAMES_NEXT,
  NODE_ID,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_TEXT,
  type NodeRef,
  PROPERTY_NAME,
  SHARD_FIRST,
  SHARD_NAMES,
  SHARD_UNUSED_NAMES,
  SHARD_WORDS,
} from './layout.js';
import type { Stage } from './stage.js';
import { propertyWords } from './writer.js';

const AT_SIGN = '@'.charCodeAt(0);

/** What shards wrote that stand below one node. */
export interface Collected {
  /** The first of their top nodes, 0 for none; the others follow by their links. */
  readonly top: NodeRef;
  /** Words of all their nodes, in wire form. */
  readonly words: number;
  readonly nodes: number;
}

/** Words of a node without anything in it: BEGIN, the name with its NUL, END. */
export function nodeWords(nameLength: number): number {
  return 2 + (nameLength >>> 2) + 1;
}

/**
 * The finalizer's first pass: takes one step a fragment, links fragments to nodes and nodes to parents in the order of the
 * shards, checks what only shows when all shards are seen together, and adds up sizes. Single-threaded, after all writers
 * are done.
 *
 * Links are kept in arrays by node id, and nothing is allocated for a node.
 */
export class ShardCollector {
  /** By name id. */
  readonly names: readonly (string | undefined)[];
  /** By node id: its first fragment; the others follow by FRAGMENT_SAME. */
  readonly first: Int32Array;
  /** By node id: the first child, and the next sibling; refs of nodes, 0 for none. */
  readonly child: Int32Array;
  readonly sibling: Int32Array;
  readonly #stage: Stage;
  readonly #words: Int32Array;
  /** By name id: the number of the FDT that uses it, or of the node that last had it. */
  readonly #stamps: Int32Array;
  #stamp = 0;
  /** By node id: the number of the FDT that has it, its last fragment, its shard, its last child. */
  readonly #blobs: Int32Array;
  readonly #last: Int32Array;
  readonly #shards: Int32Array;
  readonly #lastChild: Int32Array;
  #blob = 0;

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#words = stage.words;
    this.names = stage.settledNames();
    this.#stamps = new Int32Array(this.names.length);
    const byNode = (): Int32Array => new Int32Array(stage.nodeCount);
    [this.first, this.child, this.sibling] = [byNode(), byNode(), byNode()];
    [this.#blobs, this.#last, this.#shards, this.#lastChild] = [byNode(), byNode(), byNode(), byNode()];
  }

  /** Begins another FDT: what was collected before is no part of it. */
  begin(): void {
    this.#blob++;
  }

  /**
   * Links what these shards wrote below one node. KHO_EEXIST for a property that two of them gave one node; KHO_EINVAL for
   * siblings that libfdt could not tell apart.
   */
  collect(shards: readonly number[]): Collected {
    const words = this.#words;
    const blob = this.#blob;
    const [blobs, first, last, child, lastChild, sibling] = [
      this.#blobs,
      this.first,
      this.#last,
      this.child,
      this.#lastChild,
      this.sibling,
    ];
    let top = 0;
    let lastTop = 0;
    let size = 0;
    let nodes = 0;
    const sharedNodes: NodeRef[] = [];
    const unitAddresses: NodeRef[] = [];
    for (const shard of shards) {
      let fragment = words[this.#stage.geometry.shardsAt + shard * SHARD_WORDS + SHARD_FIRST];
      for (; fragment !== 0; fragment = words[fragment + FRAGMENT_NEXT]) {
        const ref = words[fragment + FRAGMENT_NODE];
        if (ref === 0) continue;
        const id = words[ref + NODE_ID];
        size += words[fragment + FRAGMENT_USED];
        words[fragment + FRAGMENT_SAME] = 0;
        if (blobs[id] === blob) {
          words[last[id] + FRAGMENT_SAME] = fragment;
          last[id] = fragment;
          if (this.#shards[id] !== shard) {
            this.#shards[id] = shard;
            sharedNodes.push(ref);
          }
          continue;
        }
        blobs[id] = blob;
        first[id] = fragment;
        last[id] = fragment;
        child[id] = 0;
        sibling[id] = 0;
        this.#shards[id] = shard;
        nodes++;
        const length = words[ref + NODE_LENGTH];
        size += nodeWords(length);
        // The parent was opened before, by the same shard. A driver's root is no node of the stage.
        const parent = words[ref + NODE_PARENT];
        if (parent > 0) {
          const parentId = words[parent + NODE_ID];
          if (child[parentId] === 0) child[parentId] = ref;
          else sibling[words[lastChild[parentId] + NODE_ID]] = ref;
          lastChild[parentId] = ref;
        } else {
          if (top === 0) top = ref;
          else sibling[words[lastTop + NODE_ID]] = ref;
          lastTop = ref;
        }
        if (this.#hasUnitAddress(ref, length)) unitAddresses.push(ref);
      }
    }
    for (const ref of unitAddresses) this.#checkSiblings(ref, top);
    for (const ref of sharedNodes) this.#checkProperties(ref);
    return { top, words: size, nodes };
  }

  /** Adds the ids of the names that properties of these shards have: from the shards' lists, or from the properties. */
  useNames(shards: readonly number[], used: number[]): void {
    const words = this.#words;
    const stamps = this.#stamps;
    const blob = this.#blob;
    const use = (name: number): void => {
      if (stamps[name] === blob) return;
      stamps[name] = blob;
      used.push(name);
    };
    for (const shard of shards) {
      const record = this.#stage.geometry.shardsAt + shard * SHARD_WORDS;
      if (words[record + SHARD_UNUSED_NAMES] === 0) {
        for (let chunk = words[record + SHARD_NAMES]; chunk !== 0; chunk = words[chunk + NAMES_NEXT]) {
          for (let index = 0; index < words[chunk + NAMES_COUNT]; index++) use(words[chunk + NAMES_IDS + index]);
        }
        continue;
      }
      for (let at = words[record + SHARD_FIRST]; at !== 0; at = words[at + FRAGMENT_NEXT]) {
        if (words[at + FRAGMENT_NODE] === 0) continue;
        const end = at + FRAGMENT_DATA + words[at + FRAGMENT_USED];
        for (let property = at + FRAGMENT_DATA; property < end; property += propertyWords(words, property)) {
          use(words[property + PROPERTY_NAME]);
        }
      }
    }
  }

  /** Whether a property of what was collected since {@link begin} has this name, once {@link useNames} was told of it. */
  uses(name: string): boolean {
    const id = this.names.indexOf(name);
    return id >= 0 && this.#stamps[id] === this.#blob;
  }

  /** Finds a property that two shards gave the node; within one shard its writer saw to that. */
  #checkProperties(ref: NodeRef): void {
    const words = this.#words;
    const stamp = --this.#stamp; // below zero: blobs use the numbers above
    let fragment = this.first[words[ref + NODE_ID]];
    for (; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
      const end = fragment + FRAGMENT_DATA + words[fragment + FRAGMENT_USED];
      for (let at = fragment + FRAGMENT_DATA; at < end; at += propertyWords(words, at)) {
        const name = words[at + PROPERTY_NAME];
        if (this.#stamps[name] === stamp) {
          const path = this.#stage.nodePath(ref);
          const property = this.names[name] ?? '';
          throw new KhoError('KHO_EEXIST', `two shards gave the node ${path} a property '${property}'`, {
            path,
            property,
          });
        }
        this.#stamps[name] = stamp;
      }
    }
  }

  #hasUnitAddress(ref: NodeRef, length: number): boolean {
    const start = (ref + NODE_TEXT) * 4;
    const { bytes } = this.#stage;
    for (let index = 0; index < length; index++) if (bytes[start + index] === AT_SIGN) return true;
    return false;
  }

  /** Names with a unit address are rare, so only they pay for a comparison with their siblings. */
  #checkSiblings(ref: NodeRef, top: NodeRef): void {
    const words = this.#words;
    const name = this.#stage.nodeName(ref);
    const parent = words[ref + NODE_PARENT];
    let other = parent > 0 ? this.child[words[parent + NODE_ID]] : top;
    for (; other !== 0; other = this.sibling[words[other + NODE_ID]]) {
      if (words[other + NODE_LENGTH] >= name.length) continue;
      const sibling = this.#stage.nodeName(other);
      if (sibling.includes('@') || !siblingsConflict(name, sibling)) continue;
      const path = this.#stage.nodePath(ref);
      throw new KhoError(
        'KHO_EINVAL',
        `the node ${path} cannot stand beside '${sibling}': libfdt takes one for the other`,
        { path },
      );
    }
  }
}
