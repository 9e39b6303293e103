import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { type ImageReport, inspectPath } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import { SUB_BLOBS_PROFILES, type SubBlobsProfile, walkPreservedMemory } from '#dist/abi/index.js';
import { type Folio, ImageMemory, physicalAddress } from '#dist/memblock/index.js';
import { blobFile, dtcAccepts, dtcDts, dumpLines, judgedTest, libfdtDump } from '../fdt/libfdt.js';
import { ROOT, temporaryDirectory } from '../support/run.js';
import { HandoverImage, MIB, MODEL, PAGE } from './handover-image.js';

// How these were made, and what they prove: test/golden/profiles/README.md.
const GOLDEN = join(ROOT, 'test/golden/profiles');
const WRITE = process.env.KHORUS_WRITE_GOLDEN !== undefined;
const at = physicalAddress;

function produced(profile: SubBlobsProfile): HandoverImage {
  const image = HandoverImage.whole(MODEL, profile);
  image.preserved.push({ address: at(20 * MIB), order: 0 }, { address: at(24 * MIB), order: 9 });
  image.preserved.push({ address: at(28 * MIB), order: 10 });
  image.finish();
  return image;
}

/** The core of a handover, by way of a flat image. */
async function coreOf({ memory }: HandoverImage): Promise<Buffer> {
  const directory = temporaryDirectory();
  const [flat, core] = [join(directory, 'ram.img'), join(directory, 'handover.core')];
  const file = openSync(flat, 'w');
  for (const { base, size, backed } of memory.ranges) {
    if (backed) writeSync(file, memory.read(base, size), 0, size, base);
  }
  closeSync(file);
  await inspectPath(flat, { extract: core });
  return readFileSync(core);
}

function goldenCore(name: string): string {
  const file = join(temporaryDirectory(), `${name}.core`);
  writeFileSync(file, gunzipSync(readFileSync(join(GOLDEN, `${name}.core.gz`))));
  return file;
}

describe.each(SUB_BLOBS_PROFILES.map((profile) => [profile.name, profile] as const))('profile %s', (name, profile) => {
  const image = produced(profile);
  const root = (): Uint8Array => {
    const { totalSize } = FdtReader.open(image.memory.read(image.root, PAGE));
    return image.memory.read(image.root, totalSize);
  };

  if (WRITE) {
    test('golden files are written', async () => {
      writeFileSync(join(GOLDEN, `${name}.core.gz`), gzipSync(await coreOf(image), { level: 9 }));
      writeFileSync(join(GOLDEN, `${name}.dts`), dtcDts(root()), 'latin1');
    });
  }

  test('the encoders produce the bytes of the golden core', async () => {
    expect(await coreOf(image)).toEqual(gunzipSync(readFileSync(join(GOLDEN, `${name}.core.gz`))));
  });

  test('the readers find in the golden core what was put there', async () => {
    const file = goldenCore(name);
    const report = (await inspectPath(file, { contents: false })) as ImageReport;
    expect(report.findings.filter(({ severity }) => severity !== 'info')).toEqual([]);
    expect(report.root).toMatchObject({ profile: name, compatible: profile.compatible, address: image.root });
    expect(report.subtrees.map((one) => [one.name, one.address, one.size])).toEqual(
      image.subtrees.map((one) => [one.name, one.address, one.size]),
    );
    const memory = ImageMemory.open(file);
    try {
      const found: Folio[] = [];
      const memoryMap = at(report.root?.memoryMap ?? 0);
      const pages = walkPreservedMemory(memory, { profile, memoryMap }, (address, order, count = 1) => {
        const size = PAGE * 2 ** order;
        for (let one = 0; one < count; one++) found.push({ address: at(address + one * size), order });
      });
      // A radix tree is walked the highest order first, a list the lowest; addresses ascend in both.
      const sign = profile.preservedMemory === 'radix-tree' ? -1 : 1;
      const expected = [...image.preserved].sort((a, b) => sign * (a.order - b.order) || a.address - b.address);
      expect(found).toEqual(expected);
      expect([...pages].sort()).toEqual([...image.tables].sort());
    } finally {
      memory.close();
    }
  });

  judgedTest(`dtc and libfdt read in the root FDT of ${name} what is golden`, () => {
    expect(dtcAccepts(blobFile(root(), `${name}.dtb`))).toBe(true);
    expect(dtcDts(root())).toBe(readFileSync(join(GOLDEN, `${name}.dts`), 'latin1'));
    expect(libfdtDump(root())).toEqual(dumpLines(FdtReader.open(root())));
  });
});
