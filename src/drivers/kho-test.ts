/**
 * kho-test: what the kernel's own test, lib/test_kho.c of Linux 7.2, hands over to itself: folios of all orders with random
 * content, and their checksum. A kernel with CONFIG_TEST_KEXEC_HANDOVER restores them and says
 * `test_kho: KHO restore succeeded`.
 *
 * ```text
 *   kho_test blob (an FDT) ─▶ list of folios, in a vmalloc area ─▶ folios
 *
 *   memory   | order 10 | order 7 | order 7 | order 3 |1|0|0| …     side by side: nothing between them
 * ```
 *
 * Each folio is preserved at its order, although neighbours could be one object: the kernel looks for a mark on each.
 */
import { createHash } from 'node:crypto';
import * as z from 'zod';
import {
  csumPartial,
  encodeKhoTestFolios,
  KHO_TEST_COMPATIBLE,
  KHO_TEST_FOLIO_INFO_SIZE,
  KHO_TEST_SUBTREE_NAME,
  type KhoVmalloc,
  readKhoTest,
  readKhoVmalloc,
  writeKhoTestFdt,
} from '../abi/index.js';
import { defineDriver, hex, KhoError, PAGE_SIZE, type PhysicalAddress, Random, type SubBlob } from '../driver.js';
import { memorySize } from './memory-size.js';
import { preservePage, unpreservePage } from './preserved-page.js';
import { discardVmalloc, preserveVmalloc, unpreserveVmalloc, vmallocPages } from './vmalloc.js';

/** The largest order of the kernel's page allocator. */
const MAX_ORDER = 10;
/** The kernel's own default: two blocks of the largest order. */
const DEFAULT_SIZE = 2 * PAGE_SIZE * 2 ** MAX_ORDER;
const MAX_SIZE = 2 ** 28;

const options = z
  .strictObject({
    size: memorySize({ min: PAGE_SIZE, max: MAX_SIZE })
      .optional()
      .describe('Size of all folios, of random orders; default 8M'),
    orders: z.array(z.int().min(0).max(MAX_ORDER)).min(1).max(2048).optional().describe('Orders of the folios'),
  })
  .refine(({ size, orders }) => size === undefined || orders === undefined, {
    error: "'size' and 'orders' cannot both be given: orders add up to a size",
  });
type Options = z.output<typeof options>;

interface State {
  readonly orders: readonly number[];
  /** The content of a folio, by its position. */
  readonly content: (position: number) => Uint8Array;
}

interface Prepared {
  readonly blob: SubBlob;
  readonly foliosInfo: KhoVmalloc;
  readonly csum: number;
  /** Where each folio is, by its position. */
  readonly addresses: readonly PhysicalAddress[];
}

export default defineDriver<Options, State, Prepared>({
  name: KHO_TEST_SUBTREE_NAME,
  compatible: KHO_TEST_COMPATIBLE,
  blob: 'raw',
  options,

  // Without `orders` their number depends on the seed; the list is longest if all are single pages.
  shards({ size = DEFAULT_SIZE, orders }) {
    const pages = orders === undefined ? size / PAGE_SIZE : orders.reduce((sum, order) => sum + 2 ** order, 0);
    const folios = orders?.length ?? pages;
    return [{ pages: 1 + pages + vmallocPages(folios * KHO_TEST_FOLIO_INFO_SIZE) }];
  },

  create(ctx) {
    const { size = DEFAULT_SIZE, orders } = ctx.options;
    const random = ctx.random();
    const seed = random.u64();
    const drawn = orders ?? drawOrders(random, size / PAGE_SIZE);
    return {
      orders: drawn,
      content: (position) => new Random(`${seed}/${position}`).bytes(PAGE_SIZE * 2 ** drawn[position]),
    };
  },

  prepare(ctx) {
    const { memory, state } = ctx;
    const { orders } = state;
    const addresses = new Array<PhysicalAddress>(orders.length);
    // Largest first: a shard's pages are naturally aligned, and so the folios lie side by side.
    for (const position of [...orders.keys()].sort((a, b) => orders[b] - orders[a])) {
      const folio = ctx.allocFolio(orders[position]);
      ctx.preserve(folio);
      addresses[position] = folio.address;
    }
    let csum = 0;
    for (const [position, address] of addresses.entries()) {
      const content = state.content(position);
      memory.write(address, content);
      csum = csumPartial(content, csum);
    }
    const list = addresses.map((address, position) => ({ address, order: orders[position] }));
    const foliosInfo = preserveVmalloc(ctx, memory, encodeKhoTestFolios(list));
    const address = preservePage(ctx, memory);
    const { length: size } = blobOf(orders.length, foliosInfo, csum);
    return { blob: { address, size }, foliosInfo, csum, addresses };
  },

  serialize({ memory, prepared: { blob, foliosInfo, csum, addresses } }) {
    memory.write(blob.address, blobOf(addresses.length, foliosInfo, csum));
  },

  cancel(ctx) {
    if (ctx.prepared === undefined) return;
    const { orders } = ctx.state;
    const { blob, foliosInfo, addresses } = ctx.prepared;
    for (const [position, address] of addresses.entries()) {
      const folio = { address, order: orders[position] };
      ctx.unpreserve(folio);
      ctx.free(folio);
    }
    unpreserveVmalloc(ctx, readKhoVmalloc(ctx.memory, foliosInfo, 'the folio list'));
    unpreservePage(ctx, blob.address);
  },

  restore(ctx) {
    const { folios, csum, area } = readKhoTest(ctx.memory, ctx.blob.address, ctx.blob.size);
    const contents = folios.map((folio) => {
      ctx.discard(folio); // the test looks at them and lets them go
      return ctx.memory.read(folio.address, PAGE_SIZE * 2 ** folio.order);
    });
    discardVmalloc(ctx, area);
    const found = contents.reduce((sum, content) => csumPartial(content, sum), 0);
    if (found !== csum) {
      throw new KhoError('KHO_EDIGEST', `the folios' checksum is ${hex(found)}, and ${hex(csum)} was handed over`);
    }
    return { orders: folios.map(({ order }) => order), content: (position) => contents[position] };
  },

  snapshot: ({ orders, content }) => ({
    orders,
    contents: orders.map((_, position) => createHash('sha256').update(content(position)).digest('hex')),
  }),
});

/** As the kernel draws them: each of any order, the last ones cut to what is left. */
function drawOrders(random: Random, pages: number): number[] {
  const orders: number[] = [];
  for (let left = pages; left > 0; left -= 2 ** (orders.at(-1) ?? 0)) {
    orders.push(Math.min(random.below(MAX_ORDER + 1), Math.floor(Math.log2(left))));
  }
  return orders;
}

function blobOf(folioCount: number, foliosInfo: KhoVmalloc, csum: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  return page.subarray(0, writeKhoTestFdt(page, { folioCount, foliosInfo, csum }));
}
