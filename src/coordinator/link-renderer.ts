import { type SubFdtLink, subFdtProperties } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { FdtWriter } from '../fdt/index.js';
import type { FdtFrame, RenderedFrame } from '../hashstage/index.js';
import type { SharedPhysicalMemory } from '../memblock/index.js';
import type { InstanceDescription, ShardFdtTable } from '../workers/index.js';
import type { Registry } from './registry.js';
import type { Renderer, RenderJob, RenderTarget } from './renderer.js';
import type { BlobRoom } from './reservations.js';
import type { TimelineRecorder } from './timeline.js';

/** Mode `subfdt`: the state is in FDTs already, a shard each; what is left is the links to them, on the main thread. */
export class LinkRenderer implements Renderer {
  stateBytes = 0;
  readonly #memory: SharedPhysicalMemory;
  readonly #registry: Registry;
  readonly #rooms: readonly (BlobRoom | undefined)[];
  readonly #table: ShardFdtTable;
  readonly #recorder: TimelineRecorder;

  constructor(parts: {
    readonly memory: SharedPhysicalMemory;
    readonly registry: Registry;
    /** By shard. */
    readonly rooms: readonly (BlobRoom | undefined)[];
    readonly table: ShardFdtTable;
    readonly recorder: TimelineRecorder;
  }) {
    this.#memory = parts.memory;
    this.#registry = parts.registry;
    this.#rooms = parts.rooms;
    this.#table = parts.table;
    this.#recorder = parts.recorder;
  }

  /** Nodes and properties are those of the tree that the links lead to; bytes those of the FDT that links. */
  render(jobs: readonly RenderJob[]): RenderedFrame[] {
    return jobs.map(({ frame, target, what }) =>
      this.#recorder.step('finalize', `link ${what}`, () => this.#link(frame, target)),
    );
  }

  #link({ properties, shards = [] }: FdtFrame, { address, size }: RenderTarget): RenderedFrame {
    const strings = [...new Set([...properties.keys(), ...subFdtProperties([]).keys()])].sort();
    // Made elsewhere and copied: it is small, and its room may lie across two segments of memory.
    const writer = new FdtWriter({ into: new Uint8Array(size), strings });
    const total = { nodes: 1, properties: properties.size };
    writer.beginNode('');
    for (const [name, value] of properties) writer.property(name, value);
    for (let index = 0; index < shards.length; ) {
      const { name, firstShard, shardCount } = this.#instanceOf(shards[index] as number);
      const links: SubFdtLink[] = [];
      total.nodes++;
      for (let shard = firstShard; shard < firstShard + shardCount; shard++) {
        const room = this.#rooms[shard];
        if (room === undefined) throw new KhoError('KHO_EINVAL', `shard ${shard} has no room for an FDT`);
        const blob = this.#table.blob(shard);
        links.push({ address: room.address, size: blob.size });
        this.stateBytes += blob.size;
        // Without the root and the instance's node, and the root's compatible.
        total.nodes += blob.nodes - 2;
        total.properties += blob.properties - properties.size;
      }
      writer.beginNode(name);
      for (const [property, value] of subFdtProperties(links)) writer.property(property, value);
      writer.endNode();
      index += shardCount;
    }
    writer.endNode();
    const blob = writer.finish();
    this.#memory.write(address, blob);
    return { size: blob.length, ...total, parts: new Map() };
  }

  #instanceOf(shard: number): InstanceDescription {
    const instance = this.#registry.instances[this.#registry.shards[shard]?.instance ?? -1];
    if (instance === undefined) throw new KhoError('KHO_EINVAL', `there is no shard ${shard}`);
    return instance;
  }
}
