import { FdtReader } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import { KHO_V1, KHO_V1_6_16, KHO_V2, KHO_V3, SUB_BLOBS_PROFILES, type SubBlobsProfile } from '#dist/abi/index.js';
import { X86_64 } from '#dist/arch/index.js';
import { type HandoverReport, inspectHandover } from '#dist/inspect/handover-report.js';
import { type PhysicalMemory, physicalAddress } from '#dist/memblock/index.js';
import { HandoverImage, MIB, MODEL, PAGE, SEGMENT } from './handover-image.js';

const at = physicalAddress;
const NAMED = SUB_BLOBS_PROFILES.map((profile) => [profile.name, profile] as const);
const OLD = NAMED.filter(([name]) => name !== 'kho-v4');

function inspect(memory: PhysicalMemory, profile?: SubBlobsProfile): HandoverReport {
  const record = X86_64.readBootRecord(memory, at(SEGMENT));
  return inspectHandover(memory, { record }, profile && { profile: profile.name });
}
const problems = ({ findings }: HandoverReport): string[] => findings.map(({ code, message }) => `${code} ${message}`);

describe.each(OLD)('a handover of %s', (name, profile) => {
  const image = HandoverImage.whole(MODEL, profile);
  const memory = image.finish();

  test('has nothing wrong, is told by what is in it, and everything in it has an owner', () => {
    const report = inspect(memory);
    expect(problems(report)).toEqual([]);
    expect(report.root).toMatchObject({ form: 'sub-blobs', profile: name, compatible: profile.compatible });
    expect(report.tracker).toMatchObject({ form: profile.preservedMemory, objects: image.preserved.length });
    expect(report.subtrees.map((subtree) => [subtree.name, subtree.address, subtree.size])).toEqual(
      image.subtrees.map((subtree) => [subtree.name, subtree.address, subtree.size]),
    );
    expect([report.khoTest?.verified, report.metadata !== undefined, report.luo !== undefined]).toEqual([
      true,
      profile.subtrees.sized,
      profile.subtrees.sized,
    ]);
  });

  test('reads the same as a kernel of its own profile alone, and is refused as any other', () => {
    const own = inspect(memory, profile);
    expect(problems(own)).toEqual([]);
    for (const other of SUB_BLOBS_PROFILES) {
      if (other === profile || other.compatible === profile.compatible) continue;
      expect(problems(inspect(memory, other))).toContainEqual(
        expect.stringContaining(`is '${profile.compatible}', which is incompatible: expected ${other.compatible}`),
      );
    }
  });
});

/** A blob that a small bitmap which begins at 0 does not reach, although a large one does. */
function withHighBlob(profile: SubBlobsProfile): HandoverImage {
  const image = HandoverImage.whole(MODEL, profile);
  const mystery = image.subtrees.find(({ name }) => name === 'mystery');
  if (mystery === undefined) throw new Error('no mystery');
  const address = at(20 * MIB);
  image.memory.write(address, image.memory.read(mystery.address, mystery.size));
  image.subtrees.push({ ...mystery, name: 'high', address });
  image.preserved.push({ address, order: 0 });
  return image;
}

test('a list of large bitmaps read as one of small ones lacks what must be there, and the other way round', () => {
  const large = withHighBlob(KHO_V1).finish();
  expect(problems(inspect(large, KHO_V1))).toEqual([]);
  expect(problems(inspect(large, KHO_V1_6_16))).toContainEqual(
    expect.stringMatching(/'high' at 0x1400000 .* is not preserved/),
  );
  const small = withHighBlob(KHO_V1_6_16).finish();
  expect(problems(inspect(small, KHO_V1_6_16))).toEqual([]);
  expect(problems(inspect(small, KHO_V1))).toContainEqual(
    expect.stringMatching(/begins at 0x1000000, where no bitmap of order 0 begins/),
  );
});

test('where both forms are possible and differ, inspect says so; where a blob would be missing, there is no doubt', () => {
  const doubts = (image: HandoverImage, profile?: SubBlobsProfile) =>
    problems(inspect(image.finish(), profile)).filter((text) => text.includes('nothing in memory tells'));
  const image = HandoverImage.whole(MODEL, KHO_V1);
  image.preserved.push({ address: at(20 * MIB), order: 0 });
  const all = image.preserved.length;
  expect(doubts(image)).toEqual([
    expect.stringContaining(`1 of the ${all} objects are not there (--profile kho-v1-6.16)`),
  ]);
  expect(doubts(image, KHO_V1)).toEqual([]);
  expect(doubts(withHighBlob(KHO_V1))).toEqual([]);
});

type Case = [what: string, profile: SubBlobsProfile, damage: (image: HandoverImage) => void, message: RegExp];
const rootText = (image: HandoverImage, text: string): number => {
  const offset = Buffer.from(image.memory.read(image.root, PAGE)).indexOf(text);
  if (offset < 0) throw new Error(`no ${text}`);
  return image.root + offset;
};
const DAMAGE: Case[] = [
  [
    'kho-v3 that says it is kho-v2',
    KHO_V3,
    (image) => image.memory.write(at(rootText(image, 'kho-v3')), Buffer.from('kho-v2')),
    /the subtree 'memblock' has 'blob-size', which kho-v2 does not have/,
  ],
  [
    'kho-v2 that says it is kho-v3',
    KHO_V2,
    (image) => image.memory.write(at(rootText(image, 'kho-v2')), Buffer.from('kho-v3')),
    /the subtree 'memblock' has no blob-size: it is no subtree of kho-v3/,
  ],
  [
    'kho-v1 that says it is kho-v2',
    KHO_V1,
    (image) => image.memory.write(at(rootText(image, 'kho-v1')), Buffer.from('kho-v2')),
    /the subtree 'memblock' has no preserved-data, but 'fdt', as another profile has it/,
  ],
  [
    'kho-v1 with a radix tree',
    KHO_V1,
    (image) => {
      const tree = HandoverImage.whole(MODEL, KHO_V2);
      tree.finish();
      for (const table of tree.tables) image.memory.write(table, tree.memory.read(table, PAGE));
    },
    /KHO_ETRACKER (the tracker at .* is damaged|'root FDT' at .* is not preserved)/,
  ],
  [
    'kho-v2 with a list of chunks',
    KHO_V2,
    (image) => {
      const list = HandoverImage.whole(MODEL, KHO_V1);
      list.finish();
      for (const table of image.tables) image.memory.fill(table, PAGE, 0);
      for (const table of list.tables) image.memory.write(table, list.memory.read(table, PAGE));
    },
    /KHO_ETRACKER the tracker at .* is damaged/,
  ],
  [
    'kho-v1 whose map is 0',
    KHO_V1,
    (image) => {
      const { root } = FdtReader.open(image.memory.read(image.root, PAGE));
      image.memory.writeU64(at(image.root + (root.property('preserved-memory-map')?.offset ?? 0) + 12), 0);
    },
    /no preserved-memory-map: nothing is preserved, not even what it points to/,
  ],
  [
    'a blob of kho-v1 that is no FDT',
    KHO_V1,
    (image) => image.memory.fill(image.at('mystery'), 4, 0x11),
    /the blob 'mystery' of kho-v1 at .* is no FDT, and nothing else tells its size/,
  ],
  [
    'a blob of kho-v2 that says it is larger than it is',
    KHO_V2,
    (image) => image.memory.write(at(image.at('mystery') + 4), Uint8Array.of(0, 1, 0, 0)),
    /'mystery' at .* \(65536 bytes\) is not preserved/,
  ],
  [
    'a bitmap of kho-v1-6.16 that is not aligned to 512 bytes',
    KHO_V1_6_16,
    (image) => image.memory.writeU64(at((image.tables[0] ?? 0) + 24), 41 * MIB + 8),
    /points to 0x2900008, which is not the address of a bitmap/,
  ],
];
test.each(DAMAGE)('%s is found', (_what, profile, damage, message) => {
  const image = HandoverImage.whole(MODEL, profile);
  image.finish();
  damage(image);
  expect(problems(inspect(image.memory))).toContainEqual(expect.stringMatching(message));
});
