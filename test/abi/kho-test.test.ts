import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeKhoTestFolios, khoTestCsum, readKhoTest, readKhoTestFdt, writeKhoTestFdt } from '#dist/abi/index.js';
import { FdtReader, formatDts } from '#dist/fdt/index.js';
import { type Folio, physicalAddress } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';
import { LuoImage, PAGE } from './luo-image.js';

/** What Linux would leave in memory for these folios. */
function handedOver(folios: readonly Folio[], image = new LuoImage()) {
  const foliosInfo = image.vmalloc(encodeKhoTestFolios(folios));
  const blob = new Uint8Array(PAGE);
  const size = writeKhoTestFdt(blob, {
    folioCount: folios.length,
    foliosInfo,
    csum: khoTestCsum(image.memory, folios),
  });
  return { image, address: image.put(image.pages(1), blob), size, foliosInfo, blob };
}

test('folios of all orders and their checksum are read back', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(10), { minLength: 1, maxLength: 8 }), fc.nat(255), (orders, byte) => {
      const image = new LuoImage();
      const folios = orders.map((order) => ({ address: image.folio(order), order }));
      for (const [index, { address }] of folios.entries()) image.put(address, Uint8Array.of(byte, index, 3, 4));
      const { address, size } = handedOver(folios, image);
      const read = readKhoTest(image.memory, address, size);
      expect(read.folios).toEqual(folios);
      const sum = orders.reduce((all, _, index) => all + byte + index * 2 ** 8 + 3 * 2 ** 16 + 4 * 2 ** 24, 0);
      expect(read.csum).toBe(((sum - 1) % (2 ** 32 - 1)) + 1);
    }),
    { numRuns: 40 },
  );
});

test('the blob has the nodes and properties of lib/test_kho.c, in its order and byte order', () => {
  const { blob } = handedOver([{ address: physicalAddress(0x400000), order: 10 }]);
  // dtc shows cells as big-endian numbers: the array's chunk is at 0x2000, of 1 page, flags 1, order 0.
  expect(formatDts(FdtReader.open(blob))).toBe(`/dts-v1/;

/ {
	compatible = "kho-test-v1";
	magic = <0x214f484b>;

	data {
		nr_folios = <0x1000000>;
		folios_info = <0x200000 0x00 0x1000000 0x1000000>;
		csum = <0x00>;
	};
};
`);
});

test.each<[string, bigint, RegExp]>([
  ['of order 11', 0x800000n + 11n, /folio 0 of kho_test, 0x80000b: order is 11, above the limit of 10/],
  ['that is not aligned', 0x1000n + 1n, /0x1000 is not the address of a folio of order 1/],
  ['at 0', 0n, /0x0 is not the address of a folio of order 0/],
  ['beyond all memory', 2n ** 52n, /0x10000000000000 is not the address/],
  ['that is there twice', 0x800000n, /folio 1 of kho_test, 0x800000: it is a folio already/],
])('a folio %s is refused', (_what, word, message) => {
  const folios = [0x400000, 0x800000].map((address) => ({ address: physicalAddress(address), order: 0 }));
  const { image, address, size, foliosInfo } = handedOver(folios);
  const chunk = foliosInfo.first ?? address;
  const list = image.memory.readU64Number((chunk + 8) as typeof chunk) as typeof chunk;
  image.memory.writeU64(list, word);
  const error = thrown(() => readKhoTest(image.memory, address, size));
  expect(error.code).toBe('KHO_EIMAGE');
  expect(error.message).toMatch(message);
});

test('another compatible, another magic, a missing value and a list that is too short are refused', () => {
  const { blob, image, address, size } = handedOver([{ address: physicalAddress(0x400000), order: 0 }]);
  const change = (from: string, to: string) => {
    const at = Buffer.from(blob).indexOf(from);
    expect(at).toBeGreaterThan(0);
    const copy = blob.slice();
    copy.set(Buffer.from(to), at);
    return thrown(() => readKhoTestFdt(copy)).message;
  };
  expect(change('kho-test-v1', 'kho-test-v2')).toBe("the kho_test blob is 'kho-test-v2', expected 'kho-test-v1'");
  expect(change('!OHK', '?OHK')).toMatch(/magic of .* is 0x4b484f3f, expected 0x4b484f21/);
  expect(change('csum\0', 'csim\0')).toBe('the kho_test blob has no whole /data');
  const { foliosInfo } = readKhoTestFdt(blob);
  writeKhoTestFdt(blob, { folioCount: 513, foliosInfo, csum: 0 });
  image.put(address, blob);
  expect(thrown(() => readKhoTest(image.memory, address, size)).message).toMatch(/4104 bytes do not fit into the 4096/);
});
