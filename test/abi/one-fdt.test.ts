import { expect, test } from 'vitest';
import {
  encodeKhoMem,
  memRanges,
  type NamedReservation,
  type OneFdtProfile,
  oneFdtCoreNodes,
  readOneFdt,
  readReservations,
  SERIES_V4,
  SERIES_V5,
} from '#dist/abi/index.js';
import { FdtReader, FdtTree, formatDts, type TreeNode } from '#dist/fdt/index.js';
import { physicalAddress } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';
import { bucketOf, inBucketOrder, xxh64 } from './bucket-order.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(`${value}\0`);
const u64 = (value: number): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);
const RESERVATIONS: NamedReservation[] = [
  { name: 'trace', address: physicalAddress(0x2_7cc0_0000), size: 0x100_0000 },
  { name: 'log', address: physicalAddress(0x4000), size: 5000 },
];

/** A handover with the core's nodes and a driver with one instance. */
function treeOf(profile: OneFdtProfile, firstChunk?: number): FdtTree {
  const tree = new FdtTree();
  tree.root.addProperty('compatible', text(profile.compatible));
  const chunk = firstChunk === undefined ? undefined : physicalAddress(firstChunk);
  for (const node of oneFdtCoreNodes(profile, RESERVATIONS, chunk)) tree.root.children.set(node.name, node);
  const driver = tree.root.addChild('clock');
  driver.addProperty('compatible', text('clock-v1'));
  driver.addChild('clock0').addProperty('ticks', u64(7));
  return tree;
}

const read = (tree: FdtTree) => readOneFdt(FdtReader.open(tree.render()));

test('series v4: reserve_mem and every mem of any depth', () => {
  const tree = treeOf(SERIES_V4);
  const instance = tree.root.getChild('clock').getChild('clock0');
  const ranges = [
    { address: physicalAddress(0x10_0000), size: 0x2000 },
    { address: physicalAddress(0x20_0000), size: 0x1000 },
  ];
  instance.addProperty('mem', encodeKhoMem(ranges));
  instance.addChild('deep').addProperty('mem', encodeKhoMem(ranges.slice(1)));
  const found = read(tree);
  expect(found.profile).toBe(SERIES_V4);
  expect(readReservations(found)).toEqual(RESERVATIONS);
  expect(found.drivers.map(({ name }) => name)).toEqual(['clock']);
  expect(found.mem.map((property) => [property.path, memRanges(property).length])).toEqual([
    ['/reserve_mem/trace', 1],
    ['/reserve_mem/log', 1],
    ['/clock/clock0', 2],
    ['/clock/clock0/deep', 1],
  ]);
  expect(found.mem.slice(2, 3).flatMap(memRanges)).toEqual(ranges);
});

test('series v5: memblock and the first chunk', () => {
  const found = read(treeOf(SERIES_V5, 0x1234000));
  expect(found).toMatchObject({ profile: SERIES_V5, firstChunk: 0x1234000, mem: [] });
  expect(readReservations(found)).toEqual(RESERVATIONS);
  expect(found.drivers.map(({ name }) => name)).toEqual(['clock']);
  expect(read(treeOf(SERIES_V5)).firstChunk).toBeUndefined();
});

test('the nodes of the core as DTS', () => {
  const dts = (profile: OneFdtProfile) => formatDts(FdtReader.open(treeOf(profile, 0x1_1715_0000).render()));
  expect(dts(SERIES_V4)).toContain(`	reserve_mem {
		compatible = "reserve_mem-v1";

		trace {
			compatible = "reserve_mem_map-v1";
			mem = <0xc07c 0x2000000 0x01 0x00>;
		};
`);
  expect(dts(SERIES_V5)).toContain(`	memblock {
		compatible = "memblock-v1";

		trace {
			compatible = "reserve-mem-v1";
			start = <0xc07c 0x2000000>;
			size = <0x01 0x00>;
		};
`);
  expect(dts(SERIES_V5)).toContain('preserved-memory {\n\t\tmetadata = <0x1517 0x1000000>;');
});

const without = (profile: OneFdtProfile, change: (root: TreeNode) => void): FdtTree => {
  const tree = treeOf(profile);
  change(tree.root);
  return tree;
};
const REFUSED: [string, FdtTree, RegExp][] = [
  [
    'another compatible',
    without(SERIES_V5, (root) => root.properties.set('compatible', text('kho-v4'))),
    /is 'kho-v4', expected 'kho-v1'/,
  ],
  ['neither list of memory', without(SERIES_V4, (root) => root.removeChild('reserve_mem')), /it cannot be told which/],
  [
    'a memory map, as released',
    without(SERIES_V4, (root) => root.addProperty('preserved-memory-map', u64(0x1000))),
    /as Linux 6.16 to 7.0 has it/,
  ],
  [
    'a blob by address, as released',
    without(SERIES_V4, (root) => root.addChild('memblock').addProperty('fdt', u64(0x1000))),
    /as Linux 6.16 to 7.0 has it/,
  ],
  [
    'a first chunk inside of a page',
    without(SERIES_V5, (root) => root.getChild('preserved-memory').properties.set('metadata', u64(0x1008))),
    /0x1008, which is not the address of a page/,
  ],
  [
    'a mem of 15 bytes',
    without(SERIES_V4, (root) => root.getChild('clock').addProperty('mem', new Uint8Array(15))),
    /\/clock\/mem of 15 bytes is not made of 16-byte entries/,
  ],
];
test.each(REFUSED)('%s is refused', (_what, tree, message) => {
  expect(thrown(() => read(tree).mem.flatMap(memRanges))).toMatchObject({
    code: 'KHO_EIMAGE',
    message: expect.stringMatching(message),
  });
});

const DAMAGED: [string, OneFdtProfile, (node: TreeNode) => void, RegExp][] = [
  ['another compatible', SERIES_V4, (node) => node.properties.set('compatible', text('x')), /is 'x', expected/],
  ['another compatible', SERIES_V5, (node) => node.properties.set('compatible', text('x')), /is 'x', expected/],
  [
    'two ranges',
    SERIES_V4,
    (node) => node.getChild('log').properties.set('mem', encodeKhoMem(RESERVATIONS)),
    /log is not a reserve_mem_map-v1 with one range/,
  ],
  ['no size', SERIES_V5, (node) => node.getChild('log').removeProperty('size'), /log is not a reserve-mem-v1/],
];
test.each(DAMAGED)('a node of reservations with %s (%o) is refused', (_what, profile, damage, message) => {
  const tree = treeOf(profile);
  damage(tree.root.getChild(profile === SERIES_V4 ? 'reserve_mem' : 'memblock'));
  expect(thrown(() => readReservations(read(tree)))).toMatchObject({
    code: 'KHO_EIMAGE',
    message: expect.stringMatching(message),
  });
});

const HASHES: [string, bigint, number][] = [
  ['compatible', 0x43adffdf76be4022n, 6],
  ['metadata', 0x2773fb702711c065n, 7],
  ['start', 0x6f287d16a36bb1c3n, 2],
  ['size', 0x59f61627f392288dn, 2],
  ['memblock', 0xc2531f715c1740d4n, 1],
  ['preserved-memory', 0x04dd968e94858c9cn, 0],
  ['n1', 0x544efd1b40a731adn, 7],
  ['n2', 0x717ad176edf9360bn, 3],
];
test.each(HASHES)("'%s' has the hash and the bucket that series v5 gives it", (key, hash, bucket) => {
  expect(xxh64(new TextEncoder().encode(key), 1120n)).toBe(hash);
  expect(bucketOf(key)).toBe(bucket);
});

test.each([
  ['ftrace', 7],
  ['LUO', 2],
  ['mem', 4],
  ['fdt', 5],
])("'%s' is in bucket %i", (key, bucket) => expect(bucketOf(key)).toBe(bucket));

test("golden: the tree of series v5 in its own kernel's order, read like any other", () => {
  const tree = treeOf(SERIES_V5, 0x1234000);
  tree.root.addChild('n1').addProperty('compatible', text('n-v1'));
  tree.root.addChild('n2').addProperty('compatible', text('n-v1'));
  const blob = inBucketOrder(tree).render();
  const { root } = FdtReader.open(blob);
  // Buckets: preserved-memory 0, memblock 1, n2 3, n1 7; turned round. `clock` falls where its hash puts it.
  const children = [...root.children()].map(({ name }) => name).filter((name) => name !== 'clock');
  expect(children).toEqual(['n1', 'n2', 'memblock', 'preserved-memory']);
  // start and size share bucket 2, where the newer comes first; compatible is in 6.
  const properties = [...(root.get('/memblock/trace').properties() ?? [])].map(({ name }) => name);
  expect(properties).toEqual(['size', 'start', 'compatible']);
  expect(FdtTree.equal(FdtTree.parse(blob), tree)).toBeUndefined();
  expect(readOneFdt(FdtReader.open(blob))).toMatchObject({ profile: SERIES_V5, firstChunk: 0x1234000 });
});
