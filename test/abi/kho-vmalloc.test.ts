import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeKhoVmallocChunks, khoVmallocChunks, readKhoVmalloc, readVmallocBytes } from '#dist/abi/index.js';
import { physicalAddress } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';
import { LuoImage, PAGE } from './luo-image.js';

test.each([
  [1, 1],
  [510, 1],
  [511, 2],
  [1021, 2],
  [1022, 3],
])('%i pieces take %i chunks: one is begun whenever another is full', (pieces, chunks) => {
  expect(khoVmallocChunks(pieces)).toBe(chunks);
  const image = new LuoImage();
  const descriptor = image.vmalloc(new Uint8Array(pieces * PAGE));
  const area = readKhoVmalloc(image.memory, descriptor, 'the area');
  expect([area.chunks.length, area.pieces.length]).toEqual([chunks, pieces]);
});

test('the wrong number of chunks is KHO_EINVAL', () => {
  const page = physicalAddress(PAGE);
  expect(
    thrown(() =>
      encodeKhoVmallocChunks(
        [page],
        Array.from({ length: 511 }, () => page),
      ),
    ),
  ).toMatchObject({
    code: 'KHO_EINVAL',
    message: '511 pieces need 2 chunks, not 1',
  });
});

test('bytes come back from an area of any size and order, up to the last page', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 30_000 }), fc.nat(3), (content, order) => {
      const image = new LuoImage();
      const size = PAGE * 2 ** order;
      const pieces = Array.from({ length: Math.ceil(content.length / size) }, () => image.folio(order));
      const chunk = image.pages(1);
      for (const bytes of encodeKhoVmallocChunks([chunk], pieces)) image.put(chunk, bytes);
      for (const [index, piece] of pieces.entries())
        image.put(piece, content.subarray(index * size, (index + 1) * size));
      const descriptor = { first: chunk, totalPages: pieces.length * 2 ** order, flags: 3, order };
      const area = readKhoVmalloc(image.memory, descriptor, 'the area');
      expect(readVmallocBytes(image.memory, area, content.length, 'the area')).toEqual(content);
      expect(thrown(() => readVmallocBytes(image.memory, area, pieces.length * size + 1, 'the area'))).toMatchObject({
        code: 'KHO_EIMAGE',
      });
    }),
    { numRuns: 60 },
  );
});

test('a piece of order 3 at an odd page is refused', () => {
  const image = new LuoImage();
  const chunk = image.pages(1);
  for (const bytes of encodeKhoVmallocChunks([chunk], [image.pages(8)])) image.put(chunk, bytes);
  const descriptor = { first: chunk, totalPages: 8, flags: 3, order: 3 };
  expect(thrown(() => readKhoVmalloc(image.memory, descriptor, 'the area'))).toMatchObject({
    code: 'KHO_EIMAGE',
    message: expect.stringContaining('piece 0 is 0x2000, which is not aligned to order 3'),
  });
});
