import { KhoError } from '../errors.js';
import { FrozenTable, hex, type SharedPhysicalMemory, writeFrozenFile } from '../memblock/index.js';
import type { LateWrite, RunDescription } from '../workers/index.js';
import type { LateWritePolicy } from './plan.js';
import { type Registry, shardOwner } from './registry.js';
import type { Reservations } from './reservations.js';
import type { FailureRecord, LateWriteRecord, LateWriteSource } from './run-record.js';

/**
 * What a run knows of memory that changes after its driver was frozen. Pages are digested on the threads that freeze them;
 * here are the table, and what was found. Main thread only.
 */
export class LateWrites {
  readonly policy: Exclude<LateWritePolicy, 'off'>;
  readonly #registry: Registry;
  readonly #table: FrozenTable;
  /** By shard. */
  readonly #found = new Map<number, readonly LateWrite[]>();

  private constructor(policy: Exclude<LateWritePolicy, 'off'>, registry: Registry) {
    this.policy = policy;
    this.#registry = registry;
    this.#table = FrozenTable.create(registry.shards);
  }

  /** Undefined if nobody looks for them. */
  static of(policy: LateWritePolicy, registry: Registry): LateWrites | undefined {
    return policy === 'off' ? undefined : new LateWrites(policy, registry);
  }

  /** What the threads are told. */
  get description(): NonNullable<RunDescription['lateWrites']> {
    return { table: this.#table.handle, report: this.policy === 'report' };
  }

  /** In prepare: so that no page of the table is committed in the blackout. */
  touch(): void {
    this.#table.touch();
  }

  note(shard: number, found: readonly LateWrite[] | undefined): void {
    if (found !== undefined) this.#found.set(shard, found);
  }

  /** KHO_EDIGEST, naming the first page of the first shard, if there are any and that is an error. */
  check(): void {
    const [first, ...others] = this.found;
    if (first === undefined || this.policy === 'report') return;
    const { driver, instance, shard, address, offset } = first;
    const more = others.length === 0 ? '' : `, and ${others.length} more pages changed`;
    throw new KhoError('KHO_EDIGEST', `${lateWriteText(first)}${more}`, {
      ...{ driver, instance, shard, address, offset },
      phase: 'jump',
    });
  }

  /** In the order of shards, by address. */
  get found(): LateWriteRecord[] {
    return [...this.#found]
      .sort(([a], [b]) => a - b)
      .flatMap(([shard, late]) =>
        late.map(({ address, offset }) => ({
          found: 'jump' as const,
          ...shardOwner(this.#registry, shard),
          address,
          offset,
        })),
      );
  }

  /** Writes the digests of all that is handed over to a new file, for the successor. */
  async writeDigests(file: string, memory: SharedPhysicalMemory, { extents, tracker }: Reservations): Promise<void> {
    const shards = this.#registry.shards.map((_, shard) => ({
      frozen: this.#table.shard(memory, extents.extent(shard), false),
      owner: shardOwner(this.#registry, shard),
    }));
    await writeFrozenFile<LateWriteSource>(file, shards, tracker);
  }
}

/** `nic nic0 wrote to the page at 0x8000, at offset 0x40, after it was frozen` */
export function lateWriteText({ found, driver, instance, address, offset }: LateWriteRecord): string {
  const when = found === 'jump' ? 'after it was frozen' : 'after the jump';
  return `${driver} ${instance} wrote to the page at ${hex(address)}, at offset ${hex(offset)}, ${when}`;
}

/** A late write as the failure that it is. */
export function lateWriteFailure(late: LateWriteRecord): FailureRecord {
  const { driver, instance, address, offset } = late;
  return { code: 'KHO_EDIGEST', message: lateWriteText(late), driver, instance, address, offset };
}
