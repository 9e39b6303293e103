import fc from 'fast-check';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { naturalOrders } from '#dist/memblock/page-range.js';

const split = (frame: number, pages: number, border = Number.POSITIVE_INFINITY) =>
  [...naturalOrders(at(frame * PAGE_SIZE), pages, (first, last) => first >= border === last >= border)].map(
    ({ address, order }) => [address / PAGE_SIZE, order],
  );

test('a range is split at the alignment of its frames', () => {
  expect(split(1, 1)).toEqual([[1, 0]]);
  expect(split(3, 10)).toEqual([[3, 0], [4, 2], [8, 2], [12, 0]]); // biome-ignore format: one line is clearer
  expect(split(5, 0)).toEqual([]);
});

test('there is no upper limit to an order', () => {
  expect(split(0, 2 ** 18)).toEqual([[0, 18]]);
  expect(split(2 ** 30, 2 ** 29)).toEqual([[2 ** 30, 29]]);
});

test('no folio reaches over the border where a range has one', () => {
  expect(split(0, 8)).toEqual([[0, 3]]);
  expect(split(0, 8, 6)).toEqual([[0, 2], [4, 1], [6, 1]]); // biome-ignore format: one line is clearer
});

test('the folios cover the range exactly, aligned, and none could be larger', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 36), fc.integer({ min: 1, max: 2 ** 24 }), fc.nat(2 ** 24), (frame, pages, offset) => {
      const border = frame + offset;
      let next = frame;
      for (const [start, order] of split(frame, pages, border)) {
        expect(start).toBe(next);
        expect(start % 2 ** order).toBe(0);
        next += 2 ** order;
        const twice = start + 2 ** (order + 1);
        const fits = start % 2 ** (order + 1) === 0 && twice <= frame + pages;
        expect(fits && start >= border === twice - 1 >= border, 'could be larger').toBe(false);
        expect(start >= border).toBe(next - 1 >= border);
      }
      expect(next).toBe(frame + pages);
    }),
  );
});
