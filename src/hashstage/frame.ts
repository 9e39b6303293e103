/**
 * The part of an FDT that is known before it is rendered: its root, nodes of the core and of drivers, and where the nodes
 * that shards wrote come in. Structured-cloneable. A `TreeNode` of khorus/fdt is one too.
 */
export interface FdtFrame {
  /** The node's name, '' for the root. */
  readonly name: string;
  /** In order; each value as its bytes. */
  readonly properties: ReadonlyMap<string, Uint8Array>;
  /** By name, in order. */
  readonly children: ReadonlyMap<string, FdtFrame>;
  /** Shards whose top nodes stand below this node, behind its children. */
  readonly shards?: readonly number[];
  /** A property that is put into some of those top nodes, before their own. */
  readonly insert?: InsertedProperty;
}

/** Only the core may give nodes a property of this name: if a shard has one, of any node, that is KHO_EEXIST. */
export interface InsertedProperty {
  readonly name: string;
  /** By name of the top node. */
  readonly values: ReadonlyMap<string, Uint8Array>;
}

/** What a finished FDT, or a part of one, came to. */
export interface RenderedBlob {
  /** Bytes; of a part those in the structure block. */
  readonly size: number;
  readonly nodes: number;
  readonly properties: number;
}

/** A finished FDT. */
export interface RenderedFrame extends RenderedBlob {
  /** The nodes of the frame that have shards, by name. */
  readonly parts: ReadonlyMap<string, RenderedBlob>;
}

const encoder = new TextEncoder();

/** A node with this compatible and what these shards wrote: a driver's, or with the name '' the root of an FDT of its own. */
export function shardFrame(name: string, compatible: string, shards: readonly number[]): FdtFrame {
  const properties = new Map([['compatible', encoder.encode(`${compatible}\0`)]]);
  return { name, properties, children: new Map(), shards };
}
