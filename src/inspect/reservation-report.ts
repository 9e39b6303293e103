import {
  MEMBLOCK_COMPATIBLE,
  MEMBLOCK_SUBTREE_NAME,
  type NamedReservation,
  type Profile,
  readReservation,
  readReserveMemMap,
  SERIES_V4,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import type { FdtNode, FdtReader } from '../fdt/index.js';
import { PAGE_SIZE, physicalAddress, preservedPages } from '../memblock/index.js';
import { type ContentState, type InspectContext, isHeld, mayRead, noteClaims, sha256Of } from './context.js';

/** A `reserve_mem=` area that is handed over. */
export interface ReservationReport {
  readonly name: string;
  readonly address: number;
  readonly size: number;
  readonly content: ContentState;
  /** SHA-256 of its whole pages, if they were read: a part of a page at the end is not preserved. */
  readonly sha256?: string;
}

/** Reads the memblock sub-FDT, node by node, and claims the pages. KHO_EIMAGE for another compatible. */
export function inspectReservations(context: InspectContext, { root }: FdtReader): ReservationReport[] {
  const compatible = root.property('compatible')?.string();
  if (compatible !== MEMBLOCK_COMPATIBLE) {
    const text = `the ${MEMBLOCK_SUBTREE_NAME} blob is '${compatible}', expected '${MEMBLOCK_COMPATIBLE}'`;
    throw new KhoError('KHO_EIMAGE', text);
  }
  return reservationsOf(context, root, readReservation);
}

/** Reads the node with the reservations in the one FDT of a patch series: `memblock`, or `reserve_mem`. */
export function inspectReservationNodes(context: InspectContext, node: FdtNode, profile: Profile): ReservationReport[] {
  return reservationsOf(context, node, profile === SERIES_V4 ? readReserveMemMap : readReservation);
}

function reservationsOf(
  context: InspectContext,
  parent: FdtNode,
  read: (node: FdtNode) => NamedReservation,
): ReservationReport[] {
  return [...parent.children()].flatMap((node) => {
    const area = context.findings.attempt(() => read(node));
    if (area === undefined) return [];
    const { name, address, size } = area;
    const { address: first, pages } = preservedPages(area);
    const owner = `reserve_mem '${name}'`;
    noteClaims(context, (claims) => claims.pages(owner, owner, first, pages), 'reserve_mem');
    return [{ name, address, size, ...contentOf(context, address, pages * PAGE_SIZE) }];
  });
}

function contentOf(context: InspectContext, address: number, size: number): { content: ContentState; sha256?: string } {
  const { memory, findings, contents } = context;
  if (!contents) return { content: 'not asked for' };
  if (!isHeld(memory, address, size)) return { content: 'not in this file' };
  if (!mayRead(context, size)) return { content: 'too large' };
  const sha256 = findings.attempt(() => sha256Of(memory, physicalAddress(address), size));
  return sha256 === undefined ? { content: 'damaged' } : { content: 'read', sha256 };
}
