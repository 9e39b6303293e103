import {
  MEMFD_SEALS,
  type Memfd,
  type MemfdPlace,
  memfdPlaces,
  memfdSha256,
  readMemfd,
  readMemfdHeader,
  type UntrustedMemory,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import { type ContentState, type InspectContext, isHeld, mayRead, noteClaims } from './context.js';
import { claimVmalloc } from './vmalloc-claim.js';

/** A preserved memfd. */
export interface MemfdReport {
  /** The page of its memfd_luo_ser. */
  readonly address: number;
  readonly size: number;
  readonly pos: string;
  /** By their names in lower case: `shrink`, `grow`. */
  readonly seals: readonly string[];
  readonly folios: number;
  /** Number of folios by order; absent where the tracker or the list is damaged. */
  readonly orders?: Readonly<Record<number, number>>;
  /** Bytes of the file, in whole pages, that no folio holds: they read as zeros. */
  readonly holeBytes?: number;
  readonly content: ContentState;
  /** SHA-256 of the whole content, if it was read. */
  readonly sha256?: string;
}

/**
 * Reads a memfd and claims its pages; `where` says whose it is, `memory` what was read before. Undefined if nothing of it can
 * be read.
 */
export function inspectMemfd(
  context: InspectContext,
  memory: UntrustedMemory,
  where: string,
  address: PhysicalAddress,
): MemfdReport | undefined {
  const { findings } = context;
  const owner = `memfd ${where}`;
  noteClaims(context, (claims) => claims.folio(owner, `the memfd of ${where}`, address, 0), 'memfds');
  const memfd = findings.attempt(() => withWhere(where, () => readMemfd(memory, address)));
  if (memfd === undefined) return headerOnly(context, address);
  if (memfd.area !== undefined) claimVmalloc(context, owner, `the folio list of ${where}`, memfd.area);
  const base = { ...headerOf(memfd), folios: memfd.folios.length };
  const { claims } = context;
  if (claims === undefined) return { ...base, content: 'damaged' };
  for (const folio of memfd.folios) {
    const what = `the folio at index ${folio.index} of ${where}`;
    for (const problem of claims.folio(owner, what, folio.address)) findings.error(problem, 'folios of memfds');
  }
  const places = findings.attempt(() => withWhere(where, () => [...memfdPlaces(memfd, claims.orderAt)]));
  if (places === undefined) return { ...base, content: 'damaged' };
  const orders: Record<number, number> = {};
  let held = 0;
  for (const { order } of places) {
    orders[order] = (orders[order] ?? 0) + 1;
    held += PAGE_SIZE * 2 ** order;
  }
  const pages = Math.ceil(memfd.size / PAGE_SIZE) * PAGE_SIZE;
  const holeBytes = Math.max(0, pages - held);
  return { ...base, orders, holeBytes, ...contentOf(context, where, memfd, places, claims.orderAt) };
}

function contentOf(
  context: InspectContext,
  where: string,
  memfd: Memfd,
  places: readonly MemfdPlace[],
  orderAt: (address: PhysicalAddress) => number | undefined,
): { content: ContentState; sha256?: string } {
  const { memory, findings, contents } = context;
  if (!contents) return { content: 'not asked for' };
  const readable = places.every(({ address, order, offset }) =>
    isHeld(memory, address, Math.min(PAGE_SIZE * 2 ** order, memfd.size - offset)),
  );
  if (!readable) return { content: 'not in this file' };
  if (!mayRead(context, memfd.size)) return { content: 'too large' };
  const sha256 = findings.attempt(() => withWhere(where, () => memfdSha256(memory, memfd, orderAt)));
  return sha256 === undefined ? { content: 'damaged' } : { content: 'read', sha256 };
}

/** What the structure says by itself, where its list of folios is damaged. */
function headerOnly({ memory }: InspectContext, address: PhysicalAddress): MemfdReport | undefined {
  try {
    const { folioCount, ...header } = readMemfdHeader(memory, address);
    return { ...headerOf({ address, ...header }), folios: folioCount, content: 'damaged' };
  } catch (error) {
    if (error instanceof KhoError) return undefined; // found already, with the list
    throw error;
  }
}

function headerOf({ address, size, pos, seals }: Pick<Memfd, 'address' | 'size' | 'pos' | 'seals'>) {
  const names = Object.entries(MEMFD_SEALS).flatMap(([name, seal]) => ((seals & seal) === 0 ? [] : [name]));
  return { address, size, pos: `${pos}`, seals: names };
}

function withWhere<T>(where: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof KhoError)) throw cause;
    throw new KhoError(cause.code, `${where}: ${cause.message}`, cause.details, { cause });
  }
}
