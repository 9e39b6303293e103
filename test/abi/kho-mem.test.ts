import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeKhoMem, encodeKhoMem } from '#dist/abi/index.js';
import { physicalAddress } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';

const range = fc
  .tuple(fc.nat({ max: 2 ** 31 }), fc.nat({ max: 2 ** 31 }), fc.nat({ max: 2 ** 19 }))
  .map(([low, size, high]) => ({ address: physicalAddress(high * 2 ** 32 + low), size }));

test('the example of the binding decodes as 16 MiB at 10.2 GiB', () => {
  // mem = <0xc07c 0x2000000 0x01 0x00>: cells are big-endian, what is in them is not.
  const bytes = Uint8Array.from([0, 0, 0xc0, 0x7c, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
  expect(decodeKhoMem(bytes, 'mem')).toEqual([{ address: 0x2_7cc0_0000, size: 16 * 2 ** 20 }]);
});

test('what was encoded is decoded, at any alignment', () => {
  fc.assert(
    fc.property(fc.array(range, { minLength: 1 }), fc.nat({ max: 7 }), (ranges, offset) => {
      const bytes = new Uint8Array(offset + ranges.length * 16);
      bytes.set(encodeKhoMem(ranges), offset);
      expect(decodeKhoMem(bytes.subarray(offset), 'mem')).toEqual(ranges);
    }),
  );
});

test.each([0, 1, 15, 17, 31])('%i bytes are no array', (length) => {
  expect(thrown(() => decodeKhoMem(new Uint8Array(length), '/a/mem'))).toMatchObject({
    code: 'KHO_EIMAGE',
    message: `/a/mem of ${length} bytes is not made of 16-byte entries`,
  });
});

test.each([
  [2n ** 52n, 1n],
  [2n ** 64n - 1n, 1n],
  [0n, 2n ** 53n],
  [2n ** 51n, 2n ** 51n + 1n],
])('%i + %i is outside of the address space', (address, size) => {
  const bytes = new Uint8Array(BigUint64Array.of(0n, 4096n, address, size).buffer);
  expect(thrown(() => decodeKhoMem(bytes, 'mem'))).toMatchObject({
    code: 'KHO_EIMAGE',
    message: expect.stringContaining('entry 1 of mem is outside of memory'),
  });
});
