import {
  type FrozenShard,
  FrozenTable,
  type PhysicalAddress,
  type RadixTree,
  type ShardExtents,
  type SharedPhysicalMemory,
} from '../memblock/index.js';
import type { InstanceDescription, RunDescription } from './run-description.js';

/** A line of a page that is not as it was when its driver was frozen. */
export interface LateWrite {
  /** Address of the page. */
  readonly address: PhysicalAddress;
  /** Bytes from there to the line, the first one that differs; a line has 64 bytes. */
  readonly offset: number;
}

/** The digests of frozen pages as one thread sees them, instance by instance and shard by shard. */
export class FrozenMemory {
  readonly #description: Pick<RunDescription, 'instances' | 'shards'>;
  readonly #table: FrozenTable;
  /** Whether what was found is no error: then each page is found once. */
  readonly #report: boolean;
  readonly #memory: SharedPhysicalMemory;
  readonly #tracker: RadixTree;
  readonly #extentsOf: (shard: number) => ShardExtents;
  readonly #shards = new Map<number, FrozenShard>();
  /** Shards that have allocated since they were frozen. */
  readonly #grown = new Set<number>();

  constructor(
    description: Pick<RunDescription, 'instances' | 'shards'>,
    lateWrites: NonNullable<RunDescription['lateWrites']>,
    views: {
      readonly memory: SharedPhysicalMemory;
      readonly tracker: RadixTree;
      readonly extentsOf: (shard: number) => ShardExtents;
    },
  ) {
    this.#description = description;
    this.#table = FrozenTable.attach(lateWrites.table);
    this.#report = lateWrites.report;
    this.#memory = views.memory;
    this.#tracker = views.tracker;
    this.#extentsOf = views.extentsOf;
  }

  /** The digests of one shard's pages. */
  shard(shard: number): FrozenShard {
    let frozen = this.#shards.get(shard);
    if (frozen === undefined) {
      const instance = this.#description.instances[this.#description.shards[shard]?.instance ?? 0];
      frozen = this.#table.shard(this.#memory, this.#extentsOf(shard), (instance?.shardCount ?? 1) > 1);
      this.#shards.set(shard, frozen);
    }
    return frozen;
  }

  /** After `freeze`: digests all that the instance's shards have allocated. */
  freeze(instance: InstanceDescription): void {
    this.#each(instance, (frozen, extents) => {
      for (const { address, pages } of extents.allocated()) frozen.freeze(address, pages);
    });
  }

  /** Before `unfreeze`. */
  forget(instance: InstanceDescription): void {
    this.#each(instance, (frozen) => frozen.forgetAll());
  }

  /** A shard has allocated in serialize: its new pages may be written to until {@link serialized}. */
  allocated(shard: number): void {
    this.#grown.add(shard);
  }

  /** After `serialize` of a shard: what it has allocated there is frozen now, too. */
  serialized(shard: number): void {
    if (!this.#grown.delete(shard)) return;
    const frozen = this.shard(shard);
    for (const { address, pages } of this.#extentsOf(shard).allocated()) frozen.freezeOpen(address, pages);
  }

  /** Compares every frozen page of a shard that is handed over; undefined if all are as they should be. */
  check(shard: number): LateWrite[] | undefined {
    let found: LateWrite[] | undefined;
    const frozen = this.shard(shard);
    frozen.eachPreserved(this.#tracker, (address) => {
      const offset = frozen.firstDifference(address);
      if (offset < 0) return;
      found ??= [];
      found.push({ address, offset });
      if (this.#report) frozen.freeze(address, 1);
    });
    return found;
  }

  #each({ firstShard, shardCount }: InstanceDescription, work: (frozen: FrozenShard, extents: ShardExtents) => void) {
    for (let shard = firstShard; shard < firstShard + shardCount; shard++) {
      const extents = this.#extentsOf(shard);
      if (extents.declaredPages > 0) work(this.shard(shard), extents);
    }
  }
}
