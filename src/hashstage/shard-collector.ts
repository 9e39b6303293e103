import { KhoError } from '../errors.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_SAME,
  FRAGMENT_USED,
  NAMES_COUNT,
  NAMES_IDS,
  NAMES_NEXT,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_TEXT,
  type NodeRef,
  PROPERTY_NAME,
  SHARD_FIRST,
  SHARD_NAME_BYTES,
  SHARD_NAMES,
  SHARD_NODES,
  SHARD_SCATTERED,
  SHARD_UNUSED_NAMES,
  SHARD_USED_BYTES,
  SHARD_WORDS,
} from './layout.js';
import {
  LINK_CHILD,
  LINK_FIRST,
  LINK_LAST,
  LINK_LAST_CHILD,
  LINK_REF,
  LINK_SHARD,
  LINK_SIBLING,
  NodeLinks,
} from './node-links.js';
import { hasAtSign } from './packed-text.js';
import type { Stage } from './stage.js';
import { propertyWords } from './writer.js';

/** What shards wrote that stands below one node. */
export interface Collected {
  /** If all of it is in wire order: the first fragments of the shards, whose nodes are the top ones. */
  readonly chains: readonly number[] | undefined;
  /** Otherwise the links of the first of their top nodes, 0 for none; the others are its siblings. */
  readonly top: number;
  /** Words of all their nodes, in wire form. */
  readonly words: number;
  readonly nodes: number;
}

/** Words of a node without anything in it: BEGIN, the name with its NUL, END. */
export function nodeWords(nameLength: number): number {
  return 2 + (nameLength >>> 2) + 1;
}

/**
 * The finalizer's first pass: finds the order of the nodes, checks what only shows when all shards are seen together, and
 * adds up sizes. Single-threaded, after all writers are done.
 *
 * Shards in wire order that share no node need a few steps each. For others it takes one step a fragment, and links
 * fragments to nodes and nodes to parents in the order of the shards.
 */
export class ShardCollector {
  readonly links: NodeLinks;
  readonly #stage: Stage;
  readonly #words: Int32Array;
  /** By name id: the number of the FDT that uses it, or of the node that last had it. */
  readonly #stamps: Int32Array;
  #stamp = 0;
  #blob = 0;

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#words = stage.words;
    this.links = new NodeLinks(stage.words);
    this.#stamps = new Int32Array(stage.nameCount);
  }

  /** Begins another FDT: what was collected before is no part of it. */
  begin(): void {
    this.#blob++;
    this.links.clear();
  }

  /**
   * Finds the order of what these shards wrote below one node. KHO_EEXIST for a property that two of them gave one node;
   * KHO_EINVAL for siblings that libfdt could not tell apart.
   */
  collect(shards: readonly number[]): Collected {
    const words = this.#words;
    const chains: number[] = [];
    let bytes = 0;
    let nodes = 0;
    for (const shard of shards) {
      const record = this.#recordOf(shard);
      if (words[record + SHARD_SCATTERED] !== 0 || words[record + SHARD_UNUSED_NAMES] !== 0) return this.#link(shards);
      if (words[record + SHARD_FIRST] === 0) continue;
      chains.push(words[record + SHARD_FIRST]);
      bytes += words[record + SHARD_USED_BYTES] - words[record + SHARD_NAME_BYTES];
      nodes += words[record + SHARD_NODES];
    }
    return { chains, top: 0, words: bytes / 4, nodes };
  }

  /** The top nodes of what was collected. */
  topNodes({ chains, top }: Collected): NodeRef[] {
    if (chains !== undefined) return chains.map((fragment) => this.#words[fragment + FRAGMENT_NODE]);
    const nodes: NodeRef[] = [];
    const links = this.links.words;
    for (let at = top; at !== 0; at = links[at + LINK_SIBLING]) nodes.push(links[at + LINK_REF]);
    return nodes;
  }

  #recordOf(shard: number): number {
    return this.#stage.geometry.shardsAt + shard * SHARD_WORDS;
  }

  #link(shards: readonly number[]): Collected {
    const words = this.#words;
    const nodeLinks = this.links;
    let top = 0;
    let lastTop = 0;
    let size = 0;
    let nodes = 0;
    const sharedNodes: NodeRef[] = [];
    const unitAddresses: NodeRef[] = [];
    for (const shard of shards) {
      let fragment = words[this.#recordOf(shard) + SHARD_FIRST];
      for (; fragment !== 0; fragment = words[fragment + FRAGMENT_NEXT]) {
        const ref = words[fragment + FRAGMENT_NODE];
        size += words[fragment + FRAGMENT_USED];
        words[fragment + FRAGMENT_SAME] = 0;
        const known = nodeLinks.of(ref);
        if (known !== 0) {
          const links = nodeLinks.words;
          words[links[known + LINK_LAST] + FRAGMENT_SAME] = fragment;
          links[known + LINK_LAST] = fragment;
          if (links[known + LINK_SHARD] !== shard) {
            links[known + LINK_SHARD] = shard;
            sharedNodes.push(ref);
          }
          continue;
        }
        const at = nodeLinks.add(ref, fragment, shard);
        const links = nodeLinks.words;
        nodes++;
        const length = words[ref + NODE_LENGTH];
        size += nodeWords(length);
        // The parent was opened before, by the same shard. A driver's root is no node of the stage.
        const parent = words[ref + NODE_PARENT];
        if (parent > 0) {
          const above = nodeLinks.of(parent);
          if (links[above + LINK_CHILD] === 0) links[above + LINK_CHILD] = at;
          else links[links[above + LINK_LAST_CHILD] + LINK_SIBLING] = at;
          links[above + LINK_LAST_CHILD] = at;
        } else {
          if (top === 0) top = at;
          else links[lastTop + LINK_SIBLING] = at;
          lastTop = at;
        }
        if (hasAtSign(words, ref + NODE_TEXT, length)) unitAddresses.push(ref);
      }
    }
    this.#checkSiblings(unitAddresses, top);
    for (const ref of sharedNodes) this.#checkProperties(ref);
    return { chains: undefined, top, words: size, nodes };
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
      const record = this.#recordOf(shard);
      if (words[record + SHARD_UNUSED_NAMES] === 0) {
        for (let chunk = words[record + SHARD_NAMES]; chunk !== 0; chunk = words[chunk + NAMES_NEXT]) {
          for (let index = 0; index < words[chunk + NAMES_COUNT]; index++) use(words[chunk + NAMES_IDS + index]);
        }
        continue;
      }
      for (let at = words[record + SHARD_FIRST]; at !== 0; at = words[at + FRAGMENT_NEXT]) {
        const end = at + FRAGMENT_DATA + words[at + FRAGMENT_USED];
        for (let property = at + FRAGMENT_DATA; property < end; property += propertyWords(words, property)) {
          use(words[property + PROPERTY_NAME]);
        }
      }
    }
  }

  /** Finds a property that two shards gave the node; within one shard its writer saw to that. */
  #checkProperties(ref: NodeRef): void {
    const words = this.#words;
    const stamp = --this.#stamp; // below zero: blobs use the numbers above
    let fragment = this.links.words[this.links.of(ref) + LINK_FIRST];
    for (; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
      const end = fragment + FRAGMENT_DATA + words[fragment + FRAGMENT_USED];
      for (let at = fragment + FRAGMENT_DATA; at < end; at += propertyWords(words, at)) {
        const name = words[at + PROPERTY_NAME];
        if (this.#stamps[name] === stamp) {
          const path = this.#stage.nodePath(ref);
          const property = this.#stage.nameText(name);
          throw new KhoError('KHO_EEXIST', `two shards gave the node ${path} a property '${property}'`, {
            path,
            property,
          });
        }
        this.#stamps[name] = stamp;
      }
    }
  }

  /** `nodes` have unit addresses: none may have a sibling whose name is its own up to the '@'. */
  #checkSiblings(nodes: readonly NodeRef[], top: number): void {
    const words = this.#words;
    const plainNames = new Map<NodeRef, ReadonlySet<string>>();
    for (const ref of nodes) {
      const parent = Math.max(0, words[ref + NODE_PARENT]); // 0: below a driver's root
      const names = plainNames.get(parent) ?? this.#plainNames(parent, top);
      plainNames.set(parent, names);
      if (names.size === 0) continue;
      const [sibling = ''] = this.#stage.nodeName(ref).split('@');
      if (!names.has(sibling)) continue;
      const path = this.#stage.nodePath(ref);
      throw new KhoError(
        'KHO_EINVAL',
        `the node ${path} cannot stand beside '${sibling}': libfdt takes one for the other`,
        { path },
      );
    }
  }

  /** The names without a unit address of a node's children, or of the top nodes. */
  #plainNames(parent: NodeRef, top: number): ReadonlySet<string> {
    const words = this.#words;
    const links = this.links.words;
    const names = new Set<string>();
    let at = parent > 0 ? links[this.links.of(parent) + LINK_CHILD] : top;
    for (; at !== 0; at = links[at + LINK_SIBLING]) {
      const ref = links[at + LINK_REF];
      if (!hasAtSign(words, ref + NODE_TEXT, words[ref + NODE_LENGTH])) names.add(this.#stage.nodeName(ref));
    }
    return names;
  }
}
