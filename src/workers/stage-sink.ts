import { driverRoot, type NodeRef, ShardWriter, type Stage } from '../hashstage/index.js';
import type { NodeSink } from './sink.js';

/** The sink of mode `hash`: a shard's writer on the shared stage. */
export class StageSink implements NodeSink {
  readonly root: NodeRef;
  takenOut = 0;
  readonly #stage: Stage;
  readonly #writer: ShardWriter;

  constructor(stage: Stage, shard: { index: number; driver: number; instance: string; maxBytes: number }) {
    this.#stage = stage;
    this.#writer = new ShardWriter(stage, shard.index, shard.maxBytes);
    this.root = this.#writer.open(driverRoot(shard.driver), shard.instance);
  }

  get usedBytes(): number {
    return this.#writer.usedBytes;
  }

  open(parent: NodeRef, name: string): NodeRef {
    return this.#writer.open(parent, name);
  }

  has(parent: NodeRef, name: string): boolean {
    return this.#writer.has(parent, name);
  }

  remove(parent: NodeRef, name: string): boolean {
    return this.#writer.remove(parent, name);
  }

  replace(parent: NodeRef, name: string): NodeRef {
    return this.#writer.replace(parent, name);
  }

  nameId(name: string): number {
    return this.#stage.nameId(name);
  }

  u32(node: NodeRef, name: number, value: number): void {
    this.#writer.u32(node, name, value);
  }

  u64(node: NodeRef, name: number, high: number, low: number): void {
    this.#writer.u64(node, name, high, low);
  }

  bytes(node: NodeRef, name: number, value: Uint8Array): void {
    this.#writer.bytes(node, name, value);
  }
}
