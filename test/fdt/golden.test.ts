import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FdtReader, FdtTree, formatDts } from '#dist/fdt/index.js';
import { dtcDts, dumpLines, judgedTest, libfdtDump } from './libfdt.js';

const directory = new URL('../golden/fdt/', import.meta.url);
const names = readdirSync(directory)
  .filter((file) => file.endsWith('.dtb'))
  .map((file) => file.slice(0, -'.dtb'.length));

test('the golden pairs are there', () => {
  expect(names).toEqual(['deep', 'empty', 'kho-root', 'memblock', 'shared-suffix', 'values']);
});

describe.each(names)('golden pair %s', (name) => {
  const dtb = readFileSync(new URL(`${name}.dtb`, directory));
  const dts = readFileSync(new URL(`${name}.dts`, directory), 'latin1');

  test('the blob prints as the source', () => {
    expect(formatDts(FdtReader.open(dtb, { strict: true }))).toBe(dts);
  });

  test("the tree renders to dtc's bytes, but for shared name tails", () => {
    const tree = FdtTree.parse(dtb);
    const rendered = tree.render();
    expect(FdtTree.equal(FdtTree.parse(rendered), tree)).toBeUndefined();
    expect(rendered.length).toBe(tree.size());
    expect(Buffer.from(rendered).equals(dtb)).toBe(name !== 'shared-suffix');
  });

  judgedTest('dtc still prints it so, and libfdt sees the same tree', () => {
    expect(dtcDts(dtb)).toBe(dts);
    expect(dumpLines(FdtReader.open(dtb))).toEqual(libfdtDump(dtb));
  });
});
