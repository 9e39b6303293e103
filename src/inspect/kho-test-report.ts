import { type KhoTestData, khoTestCsum, readKhoTest, type Subtree } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE } from '../memblock/index.js';
import { type ContentState, type InspectContext, isHeld, mayRead, noteClaims } from './context.js';
import { claimVmalloc } from './vmalloc-claim.js';

/** What the kernel's own test handed over. */
export interface KhoTestReport {
  readonly folios: number;
  readonly bytes: number;
  readonly orders: Readonly<Record<number, number>>;
  /** The checksum that the blob has, in hexadecimal. */
  readonly csum: string;
  readonly content: ContentState;
  /** Whether the folios have that checksum, if they were read. */
  readonly verified?: boolean;
}

const OWNER = 'kho_test';

/** Reads the blob and its list, claims the folios, and checks their sum. KHO_EIMAGE or an FDT error if it is damaged. */
export function inspectKhoTest(context: InspectContext, { address, size }: Subtree): KhoTestReport {
  const data = readKhoTest(context.memory, address, size);
  claimVmalloc(context, OWNER, 'the folio list of kho_test', data.area);
  for (const [index, folio] of data.folios.entries()) {
    noteClaims(
      context,
      (claims) => claims.folio(OWNER, `folio ${index} of kho_test`, folio.address, folio.order),
      'kho_test',
    );
  }
  const orders: Record<number, number> = {};
  let bytes = 0;
  for (const { order } of data.folios) {
    orders[order] = (orders[order] ?? 0) + 1;
    bytes += PAGE_SIZE * 2 ** order;
  }
  return { folios: data.folios.length, bytes, orders, csum: hex(data.csum), ...contentOf(context, data, bytes) };
}

function contentOf(
  context: InspectContext,
  { folios, csum }: KhoTestData,
  bytes: number,
): { content: ContentState; verified?: boolean } {
  const { memory, findings, contents } = context;
  if (!contents) return { content: 'not asked for' };
  if (!folios.every(({ address, order }) => isHeld(memory, address, PAGE_SIZE * 2 ** order))) {
    return { content: 'not in this file' };
  }
  if (!mayRead(context, bytes)) return { content: 'too large' };
  const found = findings.attempt(() => khoTestCsum(memory, folios));
  if (found === undefined) return { content: 'damaged' };
  if (found !== csum) {
    const text = `the folios of kho_test have the checksum ${hex(found)}, the blob says ${hex(csum)}`;
    findings.error(new KhoError('KHO_EDIGEST', text));
  }
  return { content: 'read', verified: found === csum };
}
