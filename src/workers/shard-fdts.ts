import { joinSubFdts } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { FdtReader } from '../fdt/index.js';
import type { RenderedFrame } from '../hashstage/index.js';
import type { PhysicalAddress, PreservedPages, SharedPhysicalMemory } from '../memblock/index.js';
import type { InstanceDescription, RunDescription } from './run-description.js';
import { ShardFdtTable } from './shard-fdt-table.js';

/** Where a shard's FDT is to lie. */
export interface ShardFdtRoom {
  readonly address: PhysicalAddress;
  /** Bytes. */
  readonly size: number;
}

/**
 * Mode `subfdt`: each shard's FDT is finished and preserved by the thread that serialized it. What only shows when all shards of an
 * instance are seen together is checked by the thread that finishes the last of them.
 */
export class ShardFdts {
  readonly #description: RunDescription;
  readonly #memory: SharedPhysicalMemory;
  readonly #preserved: PreservedPages;
  readonly #table: ShardFdtTable;

  constructor(
    description: RunDescription,
    table: SharedArrayBuffer,
    memory: SharedPhysicalMemory,
    preserved: PreservedPages,
  ) {
    this.#description = description;
    this.#memory = memory;
    this.#preserved = preserved;
    this.#table = ShardFdtTable.attach(table, description.shards.length);
  }

  /**
   * Has the FDT rendered into the shard's room. KHO_EEXIST for a property that two shards gave one node, KHO_EINVAL for
   * siblings that libfdt could not tell apart, and the errors of `render`.
   */
  finish(shard: number, render: (room: ShardFdtRoom) => RenderedFrame): void {
    const { instance: item } = this.#description.shards[shard] as { instance: number };
    const instance = this.#description.instances[item] as InstanceDescription;
    const room = this.#room(shard);
    const blob = render(room);
    this.#preserved.preserveBlob(room.address, blob.size);
    const { firstShard, shardCount } = instance;
    if (!this.#table.finish(shard, blob, { item, shardCount }) || shardCount === 1) return;
    const fdts = Array.from({ length: shardCount }, (_, index) => this.#open(firstShard + index));
    // Nearly always the shards have nothing in common but the instance's node, and then this is all there is to check.
    if (haveDistinctParts(fdts)) return;
    try {
      joinSubFdts(instance.name, fdts);
    } catch (error) {
      // Whichever thread finds it, it is told in the same way.
      throw KhoError.from(error).with({ shard: shardCount - 1 });
    }
  }

  #open(shard: number): FdtReader {
    return FdtReader.open(this.#memory.read(this.#room(shard).address, this.#table.blob(shard).size));
  }

  #room(shard: number): ShardFdtRoom {
    const room = this.#description.shards[shard]?.fdt;
    if (room === undefined) throw new KhoError('KHO_EINVAL', `shard ${shard} has no room for an FDT`);
    return room;
  }
}

/** Whether no two of them give the instance's node the same property, the same child, or children that conflict. */
function haveDistinctParts(fdts: readonly FdtReader[]): boolean {
  const properties = new Set<string>();
  const children = new Set<string>();
  for (const fdt of fdts) {
    for (const node of fdt.root.children()) {
      for (const { name } of node.properties()) {
        if (properties.has(name)) return false;
        properties.add(name);
      }
      for (const { name } of node.children()) {
        if (children.has(name)) return false;
        children.add(name);
      }
    }
  }
  const plain = new Set([...children].filter((name) => !name.includes('@')));
  for (const name of children) {
    const at = name.indexOf('@');
    if (at >= 0 && plain.has(name.slice(0, at))) return false;
  }
  return true;
}
