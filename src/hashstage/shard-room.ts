import { KhoError } from '../errors.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_ROOM,
  FRAGMENT_USED,
  FREE_LISTS,
  LEAST_ROOM_POWER,
  SHARD_FREE,
  SHARD_REUSE_WORDS,
} from './layout.js';
import type { Stage } from './stage.js';

const LEAST_ROOM = 2 ** LEAST_ROOM_POWER;
/** What a shard may always have for content that replaces other content, beside twice what it declared. */
const REUSE_BASE_WORDS = 1024;

/**
 * The room of fragments that a shard took out, and where it is used again: lists of free fragments, by powers of two. For the
 * thread whose shard it is.
 *
 * A request takes a fragment of its own power of two, or of the next one, so that what a node holds is in proportion to
 * what it has; the number of fragments of each power is bounded by how many were needed at once. A shard whose nodes ever
 * change their shape could still need more and more up to a point: it is refused before it takes the room of others.
 */
export class ShardRoom {
  readonly #stage: Stage;
  readonly #words: Int32Array;
  readonly #record: number;
  readonly #maxWords: number;

  constructor(stage: Stage, record: number, maxBytes: number) {
    this.#stage = stage;
    this.#words = stage.words;
    this.#record = record;
    this.#maxWords = maxBytes / 2 + REUSE_BASE_WORDS;
  }

  /**
   * A fragment with ROOM for `count` words at least, in no list; the caller fills in the rest of its header. It may be as large
   * as `before`, the words of the node's fragment before it, so that a large node has few.
   */
  take(count: number, before: number): number {
    const words = this.#words;
    const power = powerFor(count);
    const highest = Math.max(power, powerFor(before)) + 1;
    for (let at = power; at <= highest; at++) {
      const list = this.#listOf(at);
      const fragment = words[list];
      if (fragment === 0 || words[fragment + FRAGMENT_ROOM] < count) continue;
      words[list] = words[fragment + FRAGMENT_NEXT];
      return fragment;
    }
    return this.#make(Math.max(count, 2 ** Math.max(power, powerFor(before))), count);
  }

  /** Empties a fragment. Room beyond the least becomes a free fragment. Returns the bytes that were used. */
  empty(fragment: number): number {
    const words = this.#words;
    const used = words[fragment + FRAGMENT_USED];
    const room = Math.max(words[fragment + FRAGMENT_ROOM], used);
    words[fragment + FRAGMENT_USED] = 0;
    const left = room - FRAGMENT_DATA;
    words[fragment + FRAGMENT_ROOM] = left < LEAST_ROOM ? room : 0;
    if (left >= LEAST_ROOM) {
      const rest = fragment + FRAGMENT_DATA;
      words[rest + FRAGMENT_USED] = 0;
      words[rest + FRAGMENT_ROOM] = left;
      this.#add(rest);
    }
    return used * 4;
  }

  /** Frees a fragment that is in no chain any more. Returns the bytes that were used. */
  free(fragment: number): number {
    const words = this.#words;
    const used = words[fragment + FRAGMENT_USED];
    words[fragment + FRAGMENT_ROOM] = Math.max(words[fragment + FRAGMENT_ROOM], used);
    words[fragment + FRAGMENT_USED] = 0;
    // Smaller ones were made before the shard took anything out: no more of them come.
    if (words[fragment + FRAGMENT_ROOM] >= LEAST_ROOM) this.#add(fragment);
    return used * 4;
  }

  #add(fragment: number): void {
    const words = this.#words;
    const list = this.#listOf(31 - Math.clz32(words[fragment + FRAGMENT_ROOM]));
    words[fragment + FRAGMENT_NODE] = 0;
    words[fragment + FRAGMENT_NEXT] = words[list];
    words[list] = fragment;
  }

  #listOf(power: number): number {
    return this.#record + SHARD_FREE + Math.min(power - LEAST_ROOM_POWER, FREE_LISTS - 1);
  }

  #make(room: number, count: number): number {
    const words = this.#words;
    const taken = words[this.#record + SHARD_REUSE_WORDS] + FRAGMENT_DATA + room;
    if (taken > this.#maxWords) {
      throw new KhoError(
        'KHO_ENOSPC',
        `the shard replaced its nodes by ever larger and smaller ones; for these it has ${Math.floor(this.#maxWords) * 4} bytes of the stage, of which none fits ${count * 4}`,
        { size: count * 4 },
      );
    }
    const fragment = this.#stage.allocate(FRAGMENT_DATA + room);
    words[this.#record + SHARD_REUSE_WORDS] = taken;
    words[fragment + FRAGMENT_ROOM] = room;
    return fragment;
  }
}

/** The power of two that is no less than `count`, and no less than the least room. */
function powerFor(count: number): number {
  return count <= LEAST_ROOM ? LEAST_ROOM_POWER : 32 - Math.clz32(count - 1);
}
