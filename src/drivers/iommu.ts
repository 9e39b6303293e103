/**
 * iommu: a translation domain whose multi-level page tables the hardware goes on walking during the handover.
 *
 * ```dts
 * iommu0 {
 *     domain = <17>;
 *     address-width = <48>;
 *     root = <u64>;                          // physical address of the level-4 table
 *     device0 { requester = <0x3b00>; };     // bus, device, function that the domain is attached to
 *     faults { count = <u64>; last-iova = <u64>; };
 * };
 * ```
 *
 * Preserved memory: each table as one page, and the pages that the leaves lead to, 4 KiB or a 2 MiB folio. (In a kernel
 * those belong to the guest's memfd. Here they are the domain's own, so that the successor can prove each translation:
 * every mapping ends in a stamp, which must be found by its I/O virtual address.)
 *
 * ```text
 *   root --> table per region --> table --.--> 2 MiB folio                                 stamp|
 *                                         '--> table --> page      stamp|  page      stamp| ...
 * ```
 *
 * The tables themselves say what else is preserved, so the root is all that `prepare` passes on: serialize writes it,
 * cancel and restore walk from it.
 */
import * as z from 'zod';
import {
  after,
  defineDriver,
  type Folio,
  KhoError,
  PAGE_SIZE,
  type PageRange,
  type PhysicalAddress,
  physicalAddress,
  type Random,
} from '../driver.js';
import { fdtBytes } from './fdt-bound.js';
import {
  coverage,
  LEVELS,
  type Mapping,
  map,
  newTable,
  SUPERPAGE_SIZE,
  translate,
  type Visit,
  walk,
} from './iommu-page-table.js';
import { requiredProperty } from './required-property.js';

const SUPERPAGE_ORDER = 9;
const STAMP_SIZE = 8;

const options = z.strictObject({
  regions: z.int().min(1).max(64).default(2).describe('Regions of the guest that devices may reach; 512 GiB apart'),
  pages: z.int().min(1).max(512).default(48).describe('4 KiB mappings of each region'),
  superpages: z.int().min(0).max(64).default(1).describe('2 MiB mappings in all, spread over the regions'),
  devices: z.int().min(0).max(256).default(4).describe('Attached devices'),
});
type Options = z.infer<typeof options>;

/** A mapping as devices see it: the physical address is left out, because it may be any. */
interface Translation extends Pick<Mapping, 'iova' | 'size' | 'write'> {
  /** The last 8 bytes that a device finds there. */
  readonly stamp: bigint;
}

interface State {
  readonly domain: number;
  readonly requesters: readonly number[];
  readonly faults: { readonly count: bigint; readonly lastIova: number };
  /** In ascending order of I/O virtual addresses. */
  readonly translations: readonly Translation[];
}

interface Prepared {
  readonly root: PhysicalAddress;
}

export default defineDriver<Options, State, Prepared>({
  name: 'iommu',
  compatible: 'iommu-v1',
  options,

  shards: ({ regions, pages, superpages, devices }) => [
    {
      // The root; for each region a table of levels 3, 2 and 1; what the leaves lead to.
      pages: 1 + regions * (LEVELS - 1) + regions * pages + superpages * 2 ** SUPERPAGE_ORDER,
      maxBytes: fdtBytes([
        { name: '', properties: { domain: 4, 'address-width': 4, root: 8 } },
        { name: 'device255', count: devices, properties: { requester: 4 } },
        { name: 'faults', properties: { count: 8, 'last-iova': 8 } },
      ]),
    },
  ],

  create(ctx) {
    const random = ctx.random();
    const { devices } = ctx.options;
    const translations = makeTranslations(random, ctx.options);
    return {
      domain: random.below(65536),
      requesters: Array.from({ length: devices }, () => random.below(65536)),
      faults: { count: random.u64() >> 50n, lastIova: random.u32() * PAGE_SIZE },
      translations,
    };
  },

  prepare(ctx) {
    const { memory, state } = ctx;
    // Largest first: a shard's pages are naturally aligned, and so nothing is lost between the folios.
    const addresses = new Map<Translation, PhysicalAddress>();
    for (const translation of [...state.translations].sort((a, b) => b.size - a.size)) {
      const target = translation.size === SUPERPAGE_SIZE ? ctx.allocFolio(SUPERPAGE_ORDER) : ctx.alloc(1);
      ctx.preserve(target);
      memory.fill(target.address, translation.size, 0);
      memory.writeU64(after(target.address, translation.size - STAMP_SIZE), translation.stamp);
      addresses.set(translation, target.address);
    }
    const allocateTable = (): PhysicalAddress => {
      const table = ctx.alloc(1);
      ctx.preserve(table);
      return table.address;
    };
    const root = newTable(memory, allocateTable());
    for (const [translation, address] of addresses) map(memory, root, { ...translation, address }, allocateTable);
    // Neither the root nor what is attached changes any more, so both can be written before the blackout.
    ctx.root.u32('domain', state.domain).u32('address-width', 48).u64('root', root);
    for (const [index, requester] of state.requesters.entries()) {
      ctx.node(`device${index}`).u32('requester', requester);
    }
    return { root };
  },

  serialize(ctx) {
    const { count, lastIova } = ctx.state.faults;
    ctx.node('faults').u64('count', count).u64('last-iova', lastIova);
  },

  cancel(ctx) {
    if (ctx.prepared === undefined) return;
    // The whole walk first: freed tables cannot be read.
    for (const object of Array.from(walk(ctx.memory, ctx.prepared.root), preservedObject)) {
      ctx.unpreserve(object);
      ctx.free(object);
    }
  },

  restore(ctx) {
    const { node, memory } = ctx;
    const root = physicalAddress(requiredProperty(node, 'root').number64('little'));
    const translations: Translation[] = [];
    for (const visit of walk(memory, root)) {
      ctx.claim(preservedObject(visit));
      if (visit.kind === 'table') continue;
      const { iova, size, write } = visit;
      // As a device would: from the root, by an address inside of the page.
      const at = translate(memory, root, iova + size - STAMP_SIZE);
      if (at === undefined) throw new KhoError('KHO_EFAULT', `${node.path}: no translation`, { path: node.path });
      translations.push({ iova, size, write, stamp: memory.readU64(at) });
    }
    const requesters: number[] = [];
    for (const child of node.children()) {
      if (child.name.startsWith('device')) requesters.push(requiredProperty(child, 'requester').u32('little'));
    }
    const faults = node.get('faults');
    return {
      domain: requiredProperty(node, 'domain').u32('little'),
      requesters,
      faults: {
        count: requiredProperty(faults, 'count').u64('little'),
        lastIova: requiredProperty(faults, 'last-iova').number64('little'),
      },
      translations,
    };
  },

  snapshot: (state) => state,
});

/** What a table or a leaf's page occupies, as prepare preserved it. */
function preservedObject(visit: Visit): PageRange | Folio {
  const { address } = visit;
  if (visit.kind === 'mapping' && visit.size === SUPERPAGE_SIZE) return { address, order: SUPERPAGE_ORDER };
  return { address, pages: 1 };
}

/**
 * A region lies in a gigabyte of its own, in 512 GiB that no other region has: superpages first, then one level-1 table
 * with pages at random places. So the number of tables is known from the options alone.
 */
function makeTranslations(random: Random, { regions, pages, superpages }: Options): Translation[] {
  const translations: Translation[] = [];
  for (const [region, slot] of distinct(random, regions, 512).entries()) {
    const base = slot * coverage(4) + random.below(512) * coverage(3);
    const large = Math.floor(superpages / regions) + (region < superpages % regions ? 1 : 0);
    for (let index = 0; index < large; index++) {
      translations.push(translation(random, base + index * SUPERPAGE_SIZE, SUPERPAGE_SIZE));
    }
    for (const index of distinct(random, pages, 512)) {
      translations.push(translation(random, base + large * SUPERPAGE_SIZE + index * PAGE_SIZE, PAGE_SIZE));
    }
  }
  return translations;
}

function translation(random: Random, iova: number, size: number): Translation {
  return { iova, size, write: !random.oneIn(4), stamp: random.u64() };
}

/** `count` different integers in [0, limit), ascending. */
function distinct(random: Random, count: number, limit: number): number[] {
  const chosen: number[] = [];
  // Each integer is taken with the chance that fills the rest exactly.
  for (let value = 0; chosen.length < count; value++) {
    if (random.below(limit - value) < count - chosen.length) chosen.push(value);
  }
  return chosen;
}
