/**
 * guest-memory: the RAM of a guest in the huge pages of a real host. It is tracked and handed over, and its content is
 * nobody's business: the model has none, so that a host of terabytes fits into any machine.
 *
 * ```dts
 * guest-memory0 {
 *     size = <u64>;                // in bytes
 *     page-order = <9>;            // of each folio: 9 is 2 MiB, 18 is 1 GiB
 *     folios = <u64 u64 ...>;      // physical addresses, in the order of the guest's memory
 * };
 * ```
 *
 * The host must have as much `guestMemory`. What the digest of the state covers is what can be known: size and order of
 * the folios. Their addresses stand in the FDT, whose pages have digests of their own, and the successor claims each.
 */
import * as z from 'zod';
import { defineDriver, type Folio, KhoError, PAGE_SIZE, type PhysicalAddress, physicalAddress } from '../driver.js';
import { fdtBytes } from './fdt-bound.js';
import { byteSize } from './memory-size.js';
import { requiredProperty } from './required-property.js';

/** Orders of huge pages by the size that hugetlb gives them. */
const ORDERS = { '2M': 9, '1G': 18 } as const;

const options = z
  .strictObject({
    size: byteSize({ min: 2 ** 21, max: 2 ** 46 })
      .default(2 ** 30)
      .describe('Memory of the guest: bytes, or 256G; a multiple of pageSize'),
    pageSize: z.enum(['2M', '1G']).default('1G').describe('Size of the folios: 2M or 1G'),
  })
  .refine(({ size, pageSize }) => size % folioSize(ORDERS[pageSize]) === 0, 'size must be a multiple of pageSize')
  .transform(({ size, pageSize }) => ({ size, order: ORDERS[pageSize] }));
type Options = z.output<typeof options>;

interface State {
  readonly size: number;
  readonly order: number;
}

/** The folios' addresses, in the order of the guest's memory. */
type Prepared = Float64Array;

function folioSize(order: number): number {
  return PAGE_SIZE * 2 ** order;
}

function folioCount({ size, order }: State): number {
  return size / folioSize(order);
}

export default defineDriver<Options, State, Prepared>({
  name: 'guest-memory',
  compatible: 'guest-memory-v1',
  options,

  shards: (guest) => [
    {
      guest,
      maxBytes: fdtBytes([{ name: '', properties: { size: 8, 'page-order': 4, folios: folioCount(guest) * 8 } }]),
    },
  ],

  create: ({ options: { size, order } }) => ({ size, order }),

  prepare(ctx) {
    const addresses = new Float64Array(folioCount(ctx.state));
    for (let index = 0; index < addresses.length; index++) {
      const folio = ctx.allocGuest();
      ctx.preserve(folio);
      addresses[index] = folio.address;
    }
    return addresses;
  },

  serialize({ root, state, prepared }) {
    root.u64('size', state.size).u32('page-order', state.order).u64s('folios', prepared);
  },

  cancel(ctx) {
    const { order } = ctx.state;
    for (const address of ctx.prepared ?? []) {
      const folio: Folio = { address: address as PhysicalAddress, order };
      ctx.unpreserve(folio);
      ctx.free(folio);
    }
  },

  restore(ctx) {
    const state = {
      size: requiredProperty(ctx.node, 'size').number64('little'),
      order: requiredProperty(ctx.node, 'page-order').u32('little'),
    };
    const addresses = requiredProperty(ctx.node, 'folios').number64s('little');
    if (addresses.length !== folioCount(state)) {
      const text = `${addresses.length} folios of order ${state.order} are not the ${state.size} bytes of a guest`;
      throw new KhoError('KHO_EINVAL', text, { size: state.size });
    }
    for (const address of addresses) ctx.claim({ address: physicalAddress(address), order: state.order });
    return state;
  },

  snapshot: (state) => state,
});
