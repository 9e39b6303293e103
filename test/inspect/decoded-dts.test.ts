import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FdtReader, FdtWriter, formatDts } from '#dist/fdt/index.js';
import { formatDecodedDts, treeJson } from '#dist/inspect/index.js';
import { plainTree, toFdtTree } from '../fdt/arbitrary.js';
import { judgedTest } from '../fdt/libfdt.js';

function blobOf(write: (writer: FdtWriter) => void): FdtReader {
  const writer = new FdtWriter();
  writer.beginNode('');
  write(writer);
  writer.endNode();
  return FdtReader.open(writer.finish());
}

/** The lines of properties, as they stand in the text. */
const lines = (reader: FdtReader) =>
  formatDecodedDts(reader)
    .split('\n')
    .filter((line) => line.includes(';'))
    .slice(1, -1)
    .map((line) => line.trim());

test('values of the kernel are decoded by their names', () => {
  const reader = blobOf((writer) => {
    writer.string('compatible', 'kho-v4');
    writer.u64('preserved-memory-map', 0x117150000, 'little');
    writer.u64('preserved-data', 0x117150000, 'little');
    writer.u64('blob-size', 4096 + 512, 'little');
    writer.u64('start', 0x1000, 'little');
    writer.u64('size', 2 ** 20, 'little');
    writer.u32('nr_folios', 24, 'little');
    writer.u32('magic', 0x4b484f21, 'little');
    writer.u32('csum', 5, 'little');
    writer.property('folios_info', Buffer.from('00f0150000000000030000000100000a'.replace('000a', '0000'), 'hex'));
    writer.u64s('mem', [0x27cc00000, 0x1000000], 'little');
  });
  expect(lines(reader)).toEqual([
    'compatible = "kho-v4";',
    'preserved-memory-map = <0x1517 0x1000000>; /* 0x117150000 */',
    'preserved-data = <0x1517 0x1000000>; /* 0x117150000 */',
    'blob-size = <0x120000 0x00>; /* 0x1200 = 4.5 KiB */',
    'start = <0x100000 0x00>; /* 0x1000 */',
    'size = <0x1000 0x00>; /* 0x100000 = 1 MiB */',
    'nr_folios = <0x18000000>; /* 24 */',
    'magic = "!OHK"; /* 0x4b484f21 */'.replace('"!OHK"', '<0x214f484b>'),
    'csum = <0x5000000>; /* 0x5 */',
    'folios_info = <0xf01500 0x00 0x3000000 0x1000000>; /* kho_vmalloc: first 0x15f000, total_pages 3, flags 0x1, order 0 */',
    'mem = <0xc07c 0x2000000 0x01 0x00>; /* 0x27cc00000 + 0x1000000 = 16 MiB */',
  ]);
});

test('other values are decoded by their lengths, text is left alone, and an ordinary device tree wholly', () => {
  const reader = blobOf((writer) => {
    writer.u32('few', 123, 'little');
    writer.u32('many', 0x12345678, 'little');
    writer.u64('all', 2n ** 64n - 1n, 'little');
    writer.u64s('array', [1, 2n ** 40n, 3], 'little');
    writer.u32s('words', [1, 2, 3], 'little');
    writer.property('bytes', Uint8Array.of(1, 2, 3));
    writer.string('text', 'abc');
    writer.u64('size', 0x0041424344454647n, 'little'); // looks like text, but its name says more
    writer.empty('flag');
    writer.u64s(
      'long',
      Array.from({ length: 40 }, (_, index) => index),
      'little',
    );
  });
  const [few, many, all, array, words, bytes, text, size, flag, long] = lines(reader);
  expect([few, many, all, bytes, text, flag]).toEqual([
    'few = <0x7b000000>; /* 123 */',
    'many = <0x78563412>; /* 0x12345678 */',
    'all = <0xffffffff 0xffffffff>; /* 0xffffffffffffffff */',
    'bytes = [01 02 03];',
    'text = "abc";',
    'flag;',
  ]);
  expect(array).toContain('/* u64 1 0x10000000000 3 */');
  expect(words).toContain('/* u32 1 2 3 */');
  expect(size).toBe('size = "GFEDCBA"; /* 0x41424344454647 */');
  expect(long).toMatch(/\/\* u64 0 1 .* 31 and 8 more \*\/$/);

  const ordinary = blobOf((writer) => {
    writer.u32('#address-cells', 2, 'big');
    writer.u32('#size-cells', 2, 'big');
    writer.u64('size', 4096, 'big');
  });
  expect(formatDecodedDts(ordinary)).toBe(formatDts(ordinary));
  expect(treeJson(ordinary).root?.properties[2]).toEqual({ name: 'size', bytes: '0000000000001000' });
});

test('--json has bytes, text and what they mean, and loses no bit of an integer', () => {
  const reader = blobOf((writer) => {
    writer.strings('compatible', ['kho-v4', 'x']);
    writer.u64('preserved-data', 0x117150000, 'little');
    writer.u64('token', 2n ** 64n - 1n, 'little');
    writer.beginNode('child');
    writer.u64s('mem', [4096, 2], 'little');
    writer.endNode();
  });
  expect(treeJson(reader)).toEqual({
    reservations: [],
    root: {
      name: '',
      properties: [
        { name: 'compatible', bytes: '6b686f2d7634007800', text: 'kho-v4\0x' },
        {
          name: 'preserved-data',
          bytes: '0000151701000000',
          native: { type: 'address', bits: 64, value: '0x117150000' },
        },
        { name: 'token', bytes: 'ffffffffffffffff', native: { type: 'number', bits: 64, value: `${2n ** 64n - 1n}` } },
      ],
      children: [
        {
          name: 'child',
          properties: [
            {
              name: 'mem',
              bytes: '00100000000000000200000000000000',
              native: { type: 'ranges', ranges: [{ address: '0x1000', size: '2' }] },
            },
          ],
          children: [],
        },
      ],
    },
  });
});

judgedTest('dtc takes the decoded text, and makes the same tree of it as of its own', () => {
  const compile = (text: string) =>
    execFileSync('dtc', ['-I', 'dts', '-O', 'dtb', '-q', '-f'], { input: text, stdio: ['pipe', 'pipe', 'pipe'] });
  let commented = 0;
  fc.assert(
    fc.property(plainTree, (plain) => {
      const reader = FdtReader.open(toFdtTree(plain).render());
      const decoded = formatDecodedDts(reader);
      commented += decoded.split('/*').length - 1;
      expect(decoded.replace(/ \/\* [^*]* \*\/$/gm, '')).toBe(formatDts(reader));
      expect(compile(decoded).equals(compile(formatDts(reader)))).toBe(true);
    }),
    { numRuns: 60 },
  );
  expect(commented).toBeGreaterThan(20);
  // And a tree of KHO's, whose properties dtc prints in its own order: the same blob.
  const kho = blobOf((writer) => {
    writer.string('compatible', 'kho-v4');
    writer.u64('preserved-memory-map', 0x117150000, 'little');
    writer.beginNode('LUO');
    writer.u64('blob-size', 32, 'little');
    writer.u64('preserved-data', 0x117150000, 'little');
    writer.endNode();
  });
  const again = FdtReader.open(Uint8Array.from(compile(formatDecodedDts(kho))));
  expect(formatDecodedDts(again)).toBe(formatDecodedDts(kho));
});
