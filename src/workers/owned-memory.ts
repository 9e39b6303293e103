import { KhoError } from '../errors.js';
import {
  after,
  hex,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
  type ShardExtents,
} from '../memblock/index.js';
import type { CallbackScope } from './callback-scope.js';
import type { MemoryWriter } from './driver.js';
import type { FrozenMemory } from './frozen-memory.js';

/** The memory, and what of it an instance may write to. */
export interface OwnedPages {
  readonly memory: PhysicalMemory;
  readonly shards: readonly { readonly extents: ShardExtents; readonly guest?: ShardExtents }[];
  /** Which of them is tried first. */
  readonly ownShard: number;
}

/** Memory as an instance may use it: reads anywhere, writes only to pages that were granted to it. */
export class OwnedMemory implements MemoryWriter {
  readonly #scope: CallbackScope;
  readonly #pages: OwnedPages;

  constructor(scope: CallbackScope, pages: OwnedPages) {
    this.#scope = scope;
    this.#pages = pages;
  }

  read(address: PhysicalAddress, length: number): Uint8Array {
    this.#scope.check('memory.read');
    return this.#pages.memory.read(address, length);
  }

  readU64(address: PhysicalAddress): bigint {
    this.#scope.check('memory.read');
    return this.#pages.memory.readU64(address);
  }

  readAddress(address: PhysicalAddress): PhysicalAddress {
    this.#scope.check('memory.read');
    return physicalAddress(this.#pages.memory.readU64Number(address));
  }

  write(address: PhysicalAddress, bytes: Uint8Array): void {
    this.ownerOf(address, bytes.length);
    this.#pages.memory.write(address, bytes);
  }

  writeU64(address: PhysicalAddress, value: bigint | number): void {
    this.ownerOf(address, 8);
    this.#pages.memory.writeU64(address, value);
  }

  fill(address: PhysicalAddress, length: number, byte: number): void {
    this.ownerOf(address, length);
    this.#pages.memory.fill(address, length, byte);
  }

  /** Number of the shard that the bytes belong to. KHO_EPERM unless they may be written, KHO_EFAULT for guest memory. */
  protected ownerOf(address: PhysicalAddress, length: number): number {
    this.#scope.check('memory.write');
    const { shards, ownShard } = this.#pages;
    const owner = ownerOf(shards, ownShard, address, length);
    if (owner !== undefined) return owner.shard;
    if (shards.some(({ guest }) => guest !== undefined && covers(guest, address, length / PAGE_SIZE))) {
      throw new KhoError('KHO_EFAULT', `${hex(address)} is unbacked: memory of a guest`, { address, size: length });
    }
    throw new KhoError(
      'KHO_EPERM',
      `memory.write: ${length} bytes at ${hex(address)} are not all in pages of this instance`,
      { call: 'memory.write', address, size: length },
    );
  }
}

/** The same in serialize, when the pages are frozen: writes keep their digests true. */
export class FrozenOwnedMemory extends OwnedMemory {
  readonly #frozen: FrozenMemory;

  constructor(scope: CallbackScope, pages: OwnedPages, frozen: FrozenMemory) {
    super(scope, pages);
    this.#frozen = frozen;
  }

  override write(address: PhysicalAddress, bytes: Uint8Array): void {
    this.#frozen.shard(this.ownerOf(address, bytes.length)).write(address, bytes);
  }

  override writeU64(address: PhysicalAddress, value: bigint | number): void {
    this.#frozen.shard(this.ownerOf(address, 8)).writeU64(address, value);
  }

  override fill(address: PhysicalAddress, length: number, byte: number): void {
    this.#frozen.shard(this.ownerOf(address, length)).fill(address, length, byte);
  }
}

/** The shard whose pages hold all of the bytes. Mostly `likely`; an instance may have thousands of shards. */
export function ownerOf(
  shards: readonly { readonly extents: ShardExtents }[],
  likely: number,
  address: PhysicalAddress,
  length: number,
): ShardExtents | undefined {
  const first = (address - (address % PAGE_SIZE)) as PhysicalAddress;
  const pages = Math.ceil((address + length - first) / PAGE_SIZE);
  const own = shards[likely]?.extents;
  if (own !== undefined && covers(own, first, pages)) return own;
  return shards.find(({ extents }) => covers(extents, first, pages))?.extents;
}

/** Whether all of the pages were granted to a shard, in a row. */
export function covers(extents: ShardExtents, address: PhysicalAddress, pages: number): boolean {
  const end = after(address, pages * PAGE_SIZE);
  return extents.ranges.some((range) => address >= range.base && end <= range.base + range.pages * PAGE_SIZE);
}
