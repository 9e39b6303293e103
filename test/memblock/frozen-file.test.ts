import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { ExtentTable } from '#dist/memblock/extent.js';
import { FrozenFile, writeFrozenFile } from '#dist/memblock/frozen-file.js';
import { FrozenTable } from '#dist/memblock/frozen-table.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { temporaryDirectory } from '../support/run.js';

const page = (number: number) => at(number * PAGE_SIZE);

/** Two shards of two and three pages, all frozen and preserved but for page 3. */
async function written() {
  const memory = SharedPhysicalMemory.create([{ base: page(0), size: 64 * PAGE_SIZE, nid: 0, backed: true }]);
  const grants = [
    { pages: 2, ranges: [{ base: page(1), pages: 2 }] },
    { pages: 3, ranges: [{ base: page(3), pages: 3 }] },
  ];
  const [extents, table] = [ExtentTable.create(grants), FrozenTable.create(grants)];
  let next = 32;
  const tracker = RadixTree.create(memory, () => page(next++));
  tracker.ensureRange(page(1), 5, 2);
  for (let number = 1; number < 6; number++) memory.fill(page(number), PAGE_SIZE, number);
  const shards = grants.map(({ ranges }, index) => {
    const frozen = table.shard(memory, extents.extent(index), false);
    for (const { base, pages } of ranges) frozen.freeze(base, pages);
    return { frozen, owner: `owner ${index}, named Ä` };
  });
  tracker.set(page(1), 0);
  tracker.set(page(2), 0);
  tracker.set(page(4), 1);
  const file = join(temporaryDirectory(), 'frozen');
  await writeFrozenFile(file, shards, tracker);
  return { memory, file };
}

test('what changed since the file was written is found, page by page, and whose it is', async () => {
  const { memory, file } = await written();
  const digests = await FrozenFile.read<string>(file);
  const found: unknown[] = [];
  const compare = () => digests.compare(memory, (...late) => found.push(late));
  compare();
  expect(found).toEqual([]);
  memory.writeU32(at(page(2) + 4092), 0);
  memory.writeU32(page(3), 0); // not handed over
  memory.writeU32(at(page(5) + 64), 0);
  memory.writeU32(at(page(5) + 128), 0);
  compare();
  expect(found).toEqual([
    ['owner 0, named Ä', page(2), 4032],
    ['owner 1, named Ä', page(5), 64],
  ]);
});

test('a file that is none, or is damaged, is KHO_EINVAL naming it', async () => {
  const { file } = await written();
  const bytes = readFileSync(file);
  const damaged = Buffer.from(bytes);
  damaged[20] = 0x21;
  for (const wrong of [Buffer.alloc(0), Buffer.from('something else entirely'), bytes.subarray(0, -4), damaged]) {
    writeFileSync(file, wrong);
    await expect(FrozenFile.read(file)).rejects.toMatchObject({ code: 'KHO_EINVAL', details: { file } });
  }
});
