import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FdtReader, FdtWriter, formatDts } from '#dist/fdt/index.js';
import { type PlainNode, plainTree, toFdtTree } from './arbitrary.js';
import { dtcDts, judgedTest } from './libfdt.js';

judgedTest('formatDts prints what dtc prints, for any tree', () => {
  fc.assert(
    fc.property(plainTree, (plain) => {
      const blob = toFdtTree(plain).render();
      expect(formatDts(FdtReader.open(blob))).toBe(dtcDts(blob));
    }),
    { numRuns: 600 },
  );
});

judgedTest('formatDts guesses the type of any value as dtc does', () => {
  // Many values a blob, so that one run of dtc judges them all.
  const value = fc.oneof(
    fc.array(fc.constantFrom(0, 0, 0x61, 0x22), { maxLength: 9 }),
    fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 9 }),
    fc.array(fc.integer({ min: 0x20, max: 0x7e }), { maxLength: 9 }).map((text) => [...text, 0]),
    fc.tuple(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0, 0x61)).map(([byte, end]) => [0x61, byte, end, 0]),
  );
  fc.assert(
    fc.property(fc.array(value, { minLength: 200, maxLength: 200 }), (values) => {
      const writer = new FdtWriter();
      writer.beginNode('');
      for (const [i, bytes] of values.entries()) writer.property(`p${i}`, Uint8Array.from(bytes));
      writer.endNode();
      const blob = writer.finish();
      expect(formatDts(FdtReader.open(blob))).toBe(dtcDts(blob));
    }),
    { numRuns: 60 },
  );
});

judgedTest("a 'name' property that repeats the node's name is left out, as dtc does", () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  writer.string('name', '');
  writer.beginNode('port@1');
  writer.string('name', 'port');
  writer.u32('phandle', 1, 'big');
  writer.endNode();
  writer.endNode();
  const blob = writer.finish();
  const text = formatDts(FdtReader.open(blob));
  expect(text).toBe(dtcDts(blob));
  expect(text).not.toContain('name =');
});

test("a 'name' property that says something else is printed", () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  writer.string('name', 'other');
  writer.endNode();
  expect(formatDts(FdtReader.open(writer.finish()))).toBe('/dts-v1/;\n\n/ {\n\tname = "other";\n};\n');
});

test('a tree of the greatest depth prints', () => {
  let root: PlainNode = { name: 'x', properties: [], children: [] };
  for (let level = 0; level < 62; level++) root = { name: 'x', properties: [], children: [root] };
  const tree = toFdtTree({ reservations: [], root: { name: '', properties: [], children: [root] } });
  expect(formatDts(FdtReader.open(tree.render())).match(/\{/g)).toHaveLength(64);
});
