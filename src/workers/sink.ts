import type { NodeRef } from '../hashstage/index.js';

/**
 * Where a shard's nodes go: the stage (mode `hash`) or the struct blocks of one thread (mode `sequential`).
 *
 * Nodes are small integers whose meaning is the sink's. Names are ids from {@link NodeSink.nameId}. Values are native
 * little-endian. All sinks charge the same bytes against the shard's bound and give the same errors.
 */
export interface NodeSink {
  /** The instance's node. */
  readonly root: NodeRef;
  /** Bytes charged so far. */
  readonly usedBytes: number;
  /** Bytes given back by remove and replace so far; whoever calls those counts them. */
  takenOut: number;
  open(parent: NodeRef, name: string): NodeRef;
  /** Whether the shard has this child. */
  has(parent: NodeRef, name: string): boolean;
  /** Takes the child, and all below it, out of the shard; false if it has none. Its bytes are given back, names' are not. */
  remove(parent: NodeRef, name: string): boolean;
  /** The child, emptied, in the place that it had; or a new one. */
  replace(parent: NodeRef, name: string): NodeRef;
  nameId(name: string): number;
  u32(node: NodeRef, name: number, value: number): void;
  u64(node: NodeRef, name: number, high: number, low: number): void;
  bytes(node: NodeRef, name: number, value: Uint8Array): void;
}
