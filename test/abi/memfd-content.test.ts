import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type MemfdFolio, memfdExtents, memfdSha256 } from '#dist/abi/index.js';
import { physicalAddress } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';
import { LuoImage, PAGE } from './luo-image.js';

/** A file as a plain array of bytes, and the same in memory: folios of several orders, in any order, with holes. */
function file(seed: number, orders: readonly number[], hole: number, cut: number) {
  const image = new LuoImage();
  const folios: MemfdFolio[] = [];
  let index = 0;
  for (const [position, order] of orders.entries()) {
    index = Math.ceil(index / 2 ** order) * 2 ** order;
    if (position % 3 !== hole) folios.push({ address: image.folio(order), flags: 3, index });
    index += 2 ** order;
  }
  const size = Math.max(0, index * PAGE - cut);
  const plain = new Uint8Array(size);
  for (const { address, index: at } of folios) {
    const bytes = new Uint8Array(PAGE * 2 ** (image.orders.get(address) ?? 0)).map((_, n) => (n * 7 + at + seed) % 251);
    image.put(address, bytes);
    plain.set(bytes.subarray(0, Math.max(0, size - at * PAGE)), Math.min(at * PAGE, size));
  }
  const inside = folios.filter((folio) => folio.index * PAGE < size).reverse();
  return { image, plain, memfd: { address: physicalAddress(0), size, folios: inside } };
}

test('the content is that of a plain file, its digest too, holes being zeros', () => {
  const orders = fc.array(fc.nat(5), { maxLength: 9 });
  fc.assert(
    fc.property(fc.nat(250), orders, fc.nat(2), fc.nat(2 * PAGE), (seed, sizes, hole, cut) => {
      const { image, plain, memfd } = file(seed, sizes, hole, cut);
      const orderAt = (address: number) => image.orders.get(physicalAddress(address));
      const read = new Uint8Array(memfd.size);
      for (const { offset, bytes } of memfdExtents(image.memory, memfd, orderAt)) read.set(bytes, offset);
      expect(Buffer.compare(read, plain)).toBe(0);
      const digest = createHash('sha256').update(plain).digest('hex');
      expect(memfdSha256(image.memory, memfd, orderAt)).toBe(digest);
    }),
    { numRuns: 80 },
  );
});

test('a hole of many blocks and a file of holes alone have the digest of zeros', () => {
  const image = new LuoImage();
  const size = 2 ** 20 + 123;
  const digest = createHash('sha256').update(new Uint8Array(size)).digest('hex');
  expect(memfdSha256(image.memory, { address: physicalAddress(0), size, folios: [] }, () => 0)).toBe(digest);
});

test.each<[string, { index: number; order: number | undefined }[], RegExp]>([
  ['that was not preserved', [{ index: 0, order: undefined }], /index 0 of the memfd at 0x0: nothing was preserved at/],
  ['of order 11', [{ index: 0, order: 11 }], /order 11 is above the limit of 10/],
  ['that is not aligned in the file', [{ index: 1, order: 1 }], /index 1 of .*: it is not aligned to its order 1/],
  [
    'that reaches into the next',
    [
      { index: 0, order: 2 },
      { index: 3, order: 0 },
    ],
    /the folio at index 3 of the memfd at 0x0: the folio before it reaches to 0x4000/,
  ],
])('a folio %s is refused', (_what, wanted, message) => {
  const image = new LuoImage();
  const orders = new Map<number, number | undefined>();
  const folios = wanted.map(({ index, order }) => {
    const address = image.folio(4);
    orders.set(address, order);
    return { address, flags: 3, index };
  });
  const memfd = { address: physicalAddress(0), size: 64 * PAGE, folios };
  const error = thrown(() => memfdSha256(image.memory, memfd, (address) => orders.get(address)));
  expect(error.code).toBe('KHO_EIMAGE');
  expect(error.message).toMatch(message);
});

test('a folio outside of memory is refused', () => {
  const image = new LuoImage();
  const folios = [{ address: physicalAddress(2 ** 40), flags: 3, index: 0 }];
  const memfd = { address: physicalAddress(0), size: PAGE, folios };
  expect(thrown(() => memfdSha256(image.memory, memfd, () => 0))).toMatchObject({
    code: 'KHO_EIMAGE',
    message: expect.stringContaining('0x10000000000 cannot be read'),
  });
});
