import {
  encodeMemfd,
  encodeMemfdFolios,
  type KhoVmalloc,
  MEMFD_FOLIO_DIRTY,
  MEMFD_FOLIO_SIZE,
  MEMFD_FOLIO_UPTODATE,
  MEMFD_POS_AT,
  type Memfd,
  memfdSha256,
  readMemfd,
} from '../abi/index.js';
import {
  after,
  type CancelContext,
  type FreezeContext,
  type MemoryWriter,
  PAGE_SIZE,
  type PhysicalAddress,
  type RestoreContext,
  type ShardAccess,
} from '../driver.js';
import { type FileShape, layOutFile } from './memfd-layout.js';
import { preservePage, unpreservePage } from './preserved-page.js';
import type { MemfdState, SimulatedMemfd } from './simulated-memfd.js';
import { discardVmalloc, preserveVmalloc, unpreserveVmalloc, vmallocPages } from './vmalloc.js';

/** Where a memfd lies until the handover is over. */
export interface PreservedMemfd {
  /** The page of its memfd_luo_ser. */
  readonly address: PhysicalAddress;
  /** The last page of its last folio, if it has one: the guest writes to it until it is frozen. */
  readonly lastPage: PhysicalAddress | undefined;
}

const NO_FOLIOS: KhoVmalloc = { first: undefined, totalPages: 0, flags: 0, order: 0 };
/** Linux marks every folio as both. */
const FOLIO_FLAGS = MEMFD_FOLIO_DIRTY | MEMFD_FOLIO_UPTODATE;

/** Pages that a memfd takes: its folios, their list, its structure. */
export function memfdPages(shape: FileShape): number {
  const folios = layOutFile(shape);
  const content = folios.reduce((sum, { order }) => sum + 2 ** order, 0);
  const list = folios.length === 0 ? 0 : vmallocPages(folios.length * MEMFD_FOLIO_SIZE);
  return content + list + 1;
}

/**
 * Hands over the memfds of a session while the guest runs: all of their content but the last page of each, which is dirty,
 * and the file position, which moves on.
 */
export function preserveMemfds(
  shard: ShardAccess,
  memory: MemoryWriter,
  memfds: readonly SimulatedMemfd[],
): PreservedMemfd[] {
  const places = memfds.map(({ folios }) => new Array<PhysicalAddress>(folios.length));
  // Largest first: a shard's pages are naturally aligned, and so nothing is lost between the folios.
  const wanted = memfds.flatMap(({ folios }, file) => folios.map((folio, position) => ({ ...folio, file, position })));
  for (const { order, file, position } of wanted.sort((a, b) => b.order - a.order)) {
    const folio = shard.allocFolio(order);
    shard.preserve(folio);
    places[file][position] = folio.address;
  }
  return memfds.map((memfd, file) => {
    const { size, seals, folios } = memfd;
    const addresses = places[file];
    for (const [position, { index, order }] of folios.entries()) {
      for (let page = 0; page < 2 ** order; page++) {
        memory.write(after(addresses[position], page * PAGE_SIZE), memfd.page(index + page));
      }
    }
    const last = folios.at(-1);
    const lastPage =
      last === undefined ? undefined : after(addresses[folios.length - 1], PAGE_SIZE * (2 ** last.order - 1));
    if (lastPage !== undefined) memory.fill(lastPage, PAGE_SIZE, 0);

    const list = folios.map(({ index }, position) => ({ address: addresses[position], flags: FOLIO_FLAGS, index }));
    const descriptor = list.length === 0 ? NO_FOLIOS : preserveVmalloc(shard, memory, encodeMemfdFolios(list));
    const address = preservePage(shard, memory);
    memory.write(address, encodeMemfd({ pos: 0n, size, seals, folioCount: folios.length, folios: descriptor }));
    return { address, lastPage };
  });
}

/** What changed until now. */
export function freezeMemfd(
  { memory }: Pick<FreezeContext<unknown, unknown, unknown>, 'memory'>,
  { address, lastPage }: PreservedMemfd,
  memfd: SimulatedMemfd,
): void {
  memory.writeU64(after(address, MEMFD_POS_AT), memfd.pos);
  const last = memfd.folios.at(-1);
  if (lastPage !== undefined && last !== undefined)
    memory.write(lastPage, memfd.page(last.index + 2 ** last.order - 1));
}

/** Takes a memfd back. Where its folios are, its own list says. */
export function cancelMemfd(
  ctx: CancelContext<unknown, unknown, unknown>,
  { address }: PreservedMemfd,
  memfd: SimulatedMemfd,
): void {
  const { folios, area } = readMemfd(ctx.memory, address);
  for (const [position, folio] of folios.entries()) {
    const { order } = memfd.folios[position];
    ctx.unpreserve({ address: folio.address, order });
    ctx.free({ address: folio.address, order });
  }
  if (area !== undefined) unpreserveVmalloc(ctx, area);
  unpreservePage(ctx, address);
}

/** Takes a memfd over in the successor: its folios are the new file's, its list and structure are given back. */
export function restoreMemfd(ctx: RestoreContext, token: bigint, memfd: Memfd): MemfdState {
  const orders = new Map<PhysicalAddress, number>();
  const folios = memfd.folios.map(({ address, index }) => {
    const { order } = ctx.claimFolio(address);
    orders.set(address, order);
    return { index, order };
  });
  const sha256 = memfdSha256(ctx.memory, memfd, (address) => orders.get(address));
  if (memfd.area !== undefined) discardVmalloc(ctx, memfd.area);
  ctx.discard({ address: memfd.address, order: 0 });
  return { token, pos: memfd.pos, size: memfd.size, seals: memfd.seals, folios, sha256 };
}
