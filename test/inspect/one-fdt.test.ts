import { closeSync, copyFileSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Coordinator, Host, type ImageReport, inspectPath, type RunRecord } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { beforeAll, expect, test } from 'vitest';
import { ImageMemory, physicalAddress } from '#dist/memblock/index.js';
import { temporaryDirectory } from '../support/run.js';

const SERIES = ['series-v4', 'series-v5'] as const;
type Series = (typeof SERIES)[number];

/** One instance that preserves a range and a folio. */
const MODULE = {
  origin: 'pages',
  url: `data:text/javascript,${encodeURIComponent(`export default { name: 'pages', compatible: 'pages-v1',
    shards: () => [{ pages: 8 }], create: () => ({}), restore: () => ({}), snapshot: () => 1,
    serialize(ctx) { ctx.preserve(ctx.alloc(3)); ctx.preserve(ctx.allocFolio(1)); ctx.root.u32('answer', 42); } };`)}`,
};

const images = new Map<Series, { file: string; record: RunRecord }>();

beforeAll(async () => {
  const base = mkdtempSync(join(tmpdir(), 'khorus-one-fdt-'));
  for (const profile of SERIES) {
    const host = new Host({
      arch: 'x86_64',
      memory: 128 * 2 ** 20,
      nodes: 1,
      cmdline: 'kho=on kho_scratch=8M,16M,8M reserve_mem=64K:4096:trace',
      cpus: 2,
      release: '7.2.0-test',
    });
    await using coordinator = new Coordinator(host, { mode: 'hash', workers: 1, seed: 1, profile, fdtMax: 2 ** 20 });
    coordinator.register({ module: MODULE, count: 1, options: {}, after: [], priority: 0 });
    using handover = await coordinator.handover();
    const file = join(base, `${profile}.img`);
    await handover.writeImage(file);
    images.set(profile, { file, record: handover.record() });
  }
  return () => rmSync(base, { recursive: true, force: true });
});

function imageOf(profile: Series) {
  const image = images.get(profile);
  if (image === undefined) throw new Error('no image');
  return image;
}

/** What inspect says of a copy of the image in which `bytes` were written. */
async function inspectDamaged(
  profile: Series,
  place: (memory: ImageMemory, fdt: FdtReader, root: number) => number,
  bytes: readonly number[],
): Promise<ImageReport> {
  const { file, record } = imageOf(profile);
  const copy = join(temporaryDirectory(), 'ram.img');
  copyFileSync(file, copy);
  const memory = ImageMemory.open(copy);
  const { address, size } = record.root;
  const at = place(memory, FdtReader.open(memory.read(physicalAddress(address), size)), address);
  memory.close();
  const descriptor = openSync(copy, 'r+');
  writeSync(descriptor, Uint8Array.from(bytes), 0, bytes.length, at);
  closeSync(descriptor);
  return (await inspectPath(copy)) as ImageReport;
}

/** Where the value of a property lies. */
const valueAt = (fdt: FdtReader, root: number, path: string, name: string): number =>
  root + (fdt.root.get(path).property(name)?.offset ?? 0) + 12;
const firstChunk = (memory: ImageMemory, fdt: FdtReader, root: number): number =>
  memory.readU64Number(physicalAddress(valueAt(fdt, root, '/preserved-memory', 'metadata')));
const errors = ({ findings }: ImageReport): string[] =>
  findings.filter(({ severity }) => severity === 'error').map(({ code, message }) => `${code} ${message}`);

test.each(SERIES)('an image of %s has nothing wrong, and every object an owner that is known', async (profile) => {
  const report = (await inspectPath(imageOf(profile).file)) as ImageReport;
  expect(report.findings).toEqual([]);
  expect(report.root).toMatchObject({ form: 'one-fdt', profile, compatible: 'kho-v1' });
  expect(report.subtrees).toMatchObject([{ name: 'pages', format: 'node', compatible: 'pages-v1', instances: 1 }]);
  expect(report.reservations).toMatchObject([{ name: 'trace', size: 65536, content: 'read' }]);
  // The area, three pages as they are split, and the folio.
  expect(report.tracker?.objects).toBe(imageOf(profile).record.ranges.length);
  expect(report.claims.map(({ owner }) => owner)).toEqual([
    "reserve_mem 'trace'",
    ...(profile === 'series-v4' ? ['driver pages'] : []),
  ]);
  expect(report.unclaimed.bytes).toBe(profile === 'series-v4' ? 0 : 5 * 4096);
});

const DAMAGE: [string, Series, Parameters<typeof inspectDamaged>[1], readonly number[], RegExp][] = [
  [
    'a chunk with 256 elements',
    'series-v5',
    (memory, fdt, root) => firstChunk(memory, fdt, root) + 12,
    [0, 1, 0, 0],
    /^KHO_ETRACKER the tracker at 0x[0-9a-f]+ is damaged: the chunk at .* has 256 elements/,
  ],
  [
    'an element without a bitmap',
    'series-v5',
    (memory, fdt, root) => firstChunk(memory, fdt, root) + 24,
    [0, 0, 0, 0, 0, 0, 0, 0],
    /^KHO_ETRACKER .* points to 0x0, which is not the address of a bitmap/,
  ],
  [
    'a range of preserved memory outside of memory',
    'series-v4',
    (_memory, fdt, root) => valueAt(fdt, root, '/pages/pages0', 'mem') + 4,
    [1],
    /^KHO_ETRACKER the preserved object at 0x1[0-9a-f]{8} .* is not in memory/,
  ],
  [
    'an area whose compatible is another',
    'series-v4',
    (_memory, fdt, root) => valueAt(fdt, root, '/reserve_mem/trace', 'compatible'),
    [0x78],
    /^KHO_EIMAGE the reservation \/reserve_mem\/trace is not a reserve_mem_map-v1/,
  ],
  [
    'the address of an area',
    'series-v5',
    (_memory, fdt, root) => valueAt(fdt, root, '/memblock/trace', 'start') + 1,
    [0x10],
    /^KHO_ETRACKER reserve_mem 'trace' at 0x[0-9a-f]+ /,
  ],
];
test.each(DAMAGE)(
  '%s in %s is found, and the drivers are listed all the same',
  async (_what, profile, place, bytes, message) => {
    const report = await inspectDamaged(profile, place, bytes);
    expect(errors(report)).toContainEqual(expect.stringMatching(message));
    expect(report.subtrees.map(({ name }) => name)).toEqual(['pages']);
  },
);

test.each(SERIES)('an FDT of %s that is damaged is shown up to there', async (profile) => {
  // A token of the driver's node that is none.
  const report = await inspectDamaged(
    profile,
    (_memory, fdt, root) => root + fdt.root.get('/pages').offset,
    [0, 0, 0, 7],
  );
  expect(errors(report)).toEqual([expect.stringMatching(/^KHO_FDT_BADSTRUCTURE /)]);
  expect(report.root?.dts).toContain(profile === 'series-v4' ? 'reserve_mem {' : 'memblock {');
  expect([report.tracker, report.subtrees]).toEqual([undefined, []]);
});

test('an FDT of which it cannot be told whose it is is said to be so', async () => {
  // The name of the property: `metadata` becomes `metadatb`.
  const report = await inspectDamaged(
    'series-v5',
    (memory, _fdt, root) => root + Buffer.from(memory.read(physicalAddress(root), 4096)).indexOf('metadata') + 7,
    [0x62],
  );
  expect(errors(report)).toEqual([
    expect.stringMatching(/^KHO_EIMAGE the FDT is 'kho-v1', and it cannot be told which/),
  ]);
  expect(report.root).toMatchObject({ form: 'one-fdt', compatible: 'kho-v1' });
  expect(report.root?.profile).toBeUndefined();
});
