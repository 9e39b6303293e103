import type { RenderedBlob } from '../hashstage/index.js';

const SIZE = 0;
const NODES = 1;
const PROPERTIES = 2;
const SHARD_WORDS = 3;

/**
 * Mode `subfdt`: what the FDTs of the shards came to, in shared memory.
 *
 * ```text
 *   [3 * shard]            SIZE in bytes, 0 until it is rendered | NODES | PROPERTIES    written by the shard's thread
 *   [3 * shards + item]    DONE: how many shards of the instance are rendered            Atomics.add, after the words above
 * ```
 *
 * The thread that brings DONE to the number of shards may read the words of all of them, and the main thread after the
 * phase.
 */
export class ShardFdtTable {
  readonly #words: Int32Array;
  readonly #shards: number;

  private constructor(buffer: SharedArrayBuffer, shards: number) {
    this.#words = new Int32Array(buffer);
    this.#shards = shards;
  }

  static create(shards: number, instances: number): ShardFdtTable {
    return new ShardFdtTable(new SharedArrayBuffer((shards * SHARD_WORDS + instances) * 4), shards);
  }

  static attach(buffer: SharedArrayBuffer, shards: number): ShardFdtTable {
    return new ShardFdtTable(buffer, shards);
  }

  get buffer(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer;
  }

  /** Notes a shard's FDT; true for the last of its instance. */
  finish(shard: number, blob: RenderedBlob, { item, shardCount }: { item: number; shardCount: number }): boolean {
    const at = shard * SHARD_WORDS;
    this.#words[at + SIZE] = blob.size;
    this.#words[at + NODES] = blob.nodes;
    this.#words[at + PROPERTIES] = blob.properties;
    return Atomics.add(this.#words, this.#shards * SHARD_WORDS + item, 1) + 1 === shardCount;
  }

  blob(shard: number): RenderedBlob {
    const at = shard * SHARD_WORDS;
    return {
      size: this.#words[at + SIZE] as number,
      nodes: this.#words[at + NODES] as number,
      properties: this.#words[at + PROPERTIES] as number,
    };
  }
}
