import fc from 'fast-check';
import { expect } from 'vitest';
import { FdtReader, FdtTree, formatDts } from '#dist/fdt/index.js';
import { plainLines, plainTree, toFdtTree } from './arbitrary.js';
import { blobFile, dtcAccepts, dtcDts, dumpLines, judgedTest, libfdtBuild, libfdtDump } from './libfdt.js';

judgedTest('libfdt reads in our blobs what was put there', () => {
  fc.assert(
    fc.property(plainTree, fc.boolean(), (plain, sortStrings) => {
      expect(libfdtDump(toFdtTree(plain).render({ sortStrings }))).toEqual(plainLines(plain));
    }),
    { numRuns: 250 },
  );
});

judgedTest("our reader finds the same tree in libfdt's blobs, node by node", () => {
  fc.assert(
    fc.property(plainTree, (plain) => {
      const lines = plainLines(plain);
      const blob = libfdtBuild(lines);
      const reader = FdtReader.open(blob, { strict: true });
      expect(reader.totalSize).toBe(blob.length);
      expect(dumpLines(reader)).toEqual(lines);
      expect(FdtTree.equal(FdtTree.parse(reader), toFdtTree(plain))).toBeUndefined();
      expect(formatDts(reader)).toBe(dtcDts(blob));
    }),
    { numRuns: 250 },
  );
});

judgedTest('dtc and fdtdump accept our blobs', () => {
  fc.assert(
    fc.property(plainTree, (plain) => {
      expect(dtcAccepts(blobFile(toFdtTree(plain).render()))).toBe(true);
    }),
    { numRuns: 100 },
  );
});

judgedTest('the judges refuse what is broken', () => {
  const blob = toFdtTree({ reservations: [], root: { name: '', properties: [], children: [] } }).render();
  blob[59] = 7; // the root's token
  expect(() => libfdtDump(blob)).toThrow(/FDT_ERR_BADSTRUCTURE/);
  expect(() => dtcAccepts(blobFile(blob, 'broken.dtb'))).toThrow();
});
