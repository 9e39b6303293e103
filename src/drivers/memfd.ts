/**
 * memfd: the memory of a guest, most of what there is to hand over.
 *
 * ```dts
 * memfd0 {
 *     size = <u64>;                          // of the file, in bytes
 *     seals = <0x6>;                         // F_SEAL_SHRINK | F_SEAL_GROW
 *     folios = <u64 u64 ...>;                // pairs: physical address | order, page index in the file
 * };
 * ```
 *
 * A file of page cache: holes, which were never touched, and folios of 1 to 512 pages, each naturally aligned in the
 * file and in memory, and each preserved as one object of its order. An address is a multiple of 4096, so the order fits
 * below it, as in the kernel's own records of a memfd.
 *
 * ```text
 *   file     | order 9          | hole  |1|1| order 1 | order 2 | hole ...
 *   memory   ... | order 2 |        | order 9        |  |1|    | order 1 |  |1| ...
 * ```
 *
 * The guest runs while `prepare` copies; one page is dirty until the end, and `freeze` writes its last content.
 */
import * as z from 'zod';
import {
  after,
  defineDriver,
  type Folio,
  KhoError,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
  Random,
} from '../driver.js';
import { fdtBytes } from './fdt-bound.js';
import { memorySize } from './memory-size.js';
import { requiredProperty } from './required-property.js';

const MAX_ORDER = 9;
const F_SEAL_SHRINK = 0x2;
const F_SEAL_GROW = 0x4;

const options = z.strictObject({
  size: memorySize({ min: PAGE_SIZE, max: 2 ** 36 })
    .default(6 * 2 ** 20)
    .describe('Size of the file: bytes, or 6M'),
});
type Options = z.output<typeof options>;

/** A folio of the file, without its place in memory. */
interface FileFolio {
  /** In pages from the beginning of the file; a multiple of 2^order. */
  readonly index: number;
  readonly order: number;
}

interface State {
  readonly size: number;
  readonly seals: number;
  /** In ascending order of indices. */
  readonly folios: readonly FileFolio[];
  /** The content of the page with this index in the file, which is in a folio. Made when it is asked for. */
  readonly page: (index: number) => Uint8Array;
}

/** Where each folio is, by its position in `folios`. */
type Prepared = readonly PhysicalAddress[];

export default defineDriver<Options, State, Prepared>({
  name: 'memfd',
  compatible: 'memfd-v1',
  options,

  // Which part is holes and how the rest is split depends on the seed, hence the bound is a file full of single pages.
  shards: ({ size }) => [
    {
      pages: size / PAGE_SIZE,
      maxBytes: fdtBytes([{ name: '', properties: { size: 8, seals: 4, folios: (size / PAGE_SIZE) * 16 } }]),
    },
  ],

  create(ctx) {
    const { size } = ctx.options;
    const random = ctx.random();
    const seed = random.u64();
    const folios = makeFolios(random, size / PAGE_SIZE);
    return {
      size,
      seals: F_SEAL_SHRINK | F_SEAL_GROW,
      folios,
      page: (index) => new Random(`${seed}/${index}`).bytes(PAGE_SIZE),
    };
  },

  prepare(ctx) {
    const { memory, state } = ctx;
    const { folios } = state;
    const addresses = new Array<PhysicalAddress>(folios.length);
    // Largest first: a shard's pages are naturally aligned, and so nothing is lost between the folios.
    const bySize = [...folios.keys()].sort((a, b) => folios[b].order - folios[a].order);
    for (const position of bySize) {
      const { index, order } = folios[position];
      const { address } = ctx.allocFolio(order);
      ctx.preserve({ address, order });
      for (let page = 0; page < 2 ** order; page++) {
        memory.write(after(address, page * PAGE_SIZE), state.page(index + page));
      }
      addresses[position] = address;
    }
    memory.fill(dirtyPage(folios, addresses).address, PAGE_SIZE, 0);
    return addresses;
  },

  freeze({ state, prepared, memory }) {
    const { address, index } = dirtyPage(state.folios, prepared);
    memory.write(address, state.page(index));
  },

  serialize({ root, state, prepared }) {
    const pairs = state.folios.flatMap(({ index, order }, position) => [prepared[position] + order, index]);
    root.u64('size', state.size).u32('seals', state.seals).u64s('folios', pairs);
  },

  cancel(ctx) {
    const { folios } = ctx.state;
    for (const [position, address] of (ctx.prepared ?? []).entries()) {
      const folio = { address, order: folios[position].order };
      ctx.unpreserve(folio);
      ctx.free(folio);
    }
  },

  restore(ctx) {
    const pairs = requiredProperty(ctx.node, 'folios').number64s('little');
    const folios: FileFolio[] = [];
    const pages = new Map<number, Uint8Array>();
    for (let at = 0; at + 1 < pairs.length; at += 2) {
      const order = pairs[at] % PAGE_SIZE;
      const folio: Folio = { address: physicalAddress(pairs[at] - order), order };
      ctx.claim(folio);
      const index = pairs[at + 1];
      folios.push({ index, order });
      const content = ctx.memory.read(folio.address, PAGE_SIZE * 2 ** order);
      for (let page = 0; page < 2 ** order; page++) {
        pages.set(index + page, content.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
      }
    }
    return {
      size: requiredProperty(ctx.node, 'size').number64('little'),
      seals: requiredProperty(ctx.node, 'seals').u32('little'),
      folios,
      page(index) {
        const page = pages.get(index);
        if (page === undefined) throw new KhoError('KHO_ENOENT', `page ${index} of the file is in no folio`);
        return page;
      },
    };
  },

  snapshot: ({ size, seals, folios, page }) => ({
    size,
    seals,
    folios: folios.map(({ index, order }) => ({
      index,
      order,
      pages: Array.from({ length: 2 ** order }, (_, offset) => page(index + offset)),
    })),
  }),
});

/** Splits a file into folios and holes, both naturally aligned; it begins with a folio as large as possible. */
function makeFolios(random: Random, pages: number): FileFolio[] {
  const folios: FileFolio[] = [];
  for (let index = 0; index < pages; ) {
    let largest = 0;
    while (largest < MAX_ORDER && index % 2 ** (largest + 1) === 0 && index + 2 ** (largest + 1) <= pages) largest++;
    const order = index === 0 || random.oneIn(2) ? largest : random.below(largest + 1);
    if (index === 0 || !random.oneIn(5)) folios.push({ index, order });
    index += 2 ** order;
  }
  return folios;
}

/** The page that the guest writes to until it is frozen: the last of the last folio. */
function dirtyPage(folios: readonly FileFolio[], addresses: readonly PhysicalAddress[]) {
  const position = folios.length - 1;
  const { index, order } = folios[position];
  const page = 2 ** order - 1;
  return { index: index + page, address: after(addresses[position], page * PAGE_SIZE) };
}
