import { followSubFdts, joinSubFdts, readSubFdtLinks, type SubFdtLink, subFdtProperties } from 'khorus/abi';
import { FdtReader, FdtTree, type TreeNode } from 'khorus/fdt';
import { expect, test } from 'vitest';
import { physicalAddress } from '#dist/memblock/index.js';

/** An FDT with one node below its root. */
function fdtOf(name: string, fill: (node: TreeNode) => void): FdtReader {
  const tree = new FdtTree();
  fill(tree.root.addChild(name));
  return FdtReader.open(tree.render());
}

function nodeWith(properties: Map<string, Uint8Array>) {
  return fdtOf('dev0', (node) => {
    for (const [name, value] of properties) node.addProperty(name, value);
  }).root.child('dev0') as NonNullable<ReturnType<FdtReader['root']['child']>>;
}

const link = (address: number, size: number): SubFdtLink => ({ address: physicalAddress(address), size });
const one = Uint8Array.of(1);

test('links are read back as they were written', () => {
  const links = [link(0x1000, 72), link(0x12_3456_7000, 4096)];
  expect(readSubFdtLinks(nodeWith(subFdtProperties(links)))).toEqual(links);
});

test('a node of another compatible, or of none, has no links', () => {
  expect(readSubFdtLinks(nodeWith(new Map()))).toBeUndefined();
  expect(readSubFdtLinks(nodeWith(new Map([['compatible', new TextEncoder().encode('dev-v1\0')]])))).toBeUndefined();
  expect(readSubFdtLinks(nodeWith(new Map([['compatible', new Uint8Array()]])))).toBeUndefined();
});

test.each<[string, (properties: Map<string, Uint8Array>) => void]>([
  ['no addresses', (properties) => properties.delete('preserved-data')],
  ['no sizes', (properties) => properties.delete('blob-size')],
  ['more addresses than sizes', (properties) => properties.set('preserved-data', new Uint8Array(24))],
  ['half an address', (properties) => properties.set('preserved-data', new Uint8Array(12))],
  [
    'an address inside a page',
    (properties) => properties.set('preserved-data', Uint8Array.of(8, ...new Uint8Array(15))),
  ],
  ['an address beyond 2^53', (properties) => properties.set('preserved-data', new Uint8Array(16).fill(0xf0))],
  ['an FDT of 0 bytes', (properties) => properties.set('blob-size', new Uint8Array(16))],
])('a node of links with %s is damaged, and the error names it', (_what, damage) => {
  const properties = subFdtProperties([link(0x1000, 72), link(0x2000, 72)]);
  damage(properties);
  expect(() => readSubFdtLinks(nodeWith(properties))).toThrow(
    expect.objectContaining({ code: 'KHO_EIMAGE', message: expect.stringContaining('/dev0') }),
  );
});

test('one FDT is followed to its node, several are joined in their order', () => {
  const parts = [
    fdtOf('dev0', (node) => {
      node.addProperty('a', one);
      node.addChild('port').addProperty('x', one);
    }),
    fdtOf('dev0', (node) => {
      node.addProperty('b', one);
      node.addChild('port').addProperty('y', one);
      node.addChild('queue');
    }),
  ];
  const read = ({ address }: SubFdtLink) => parts[address / 0x1000 - 1]?.bytes as Uint8Array;
  const alone = followSubFdts('dev0', [link(0x1000, 1)], read);
  expect([...alone.properties()].map(({ name }) => name)).toEqual(['a']);
  const joined = followSubFdts('dev0', [link(0x1000, 1), link(0x2000, 1)], read);
  expect([...joined.properties()].map(({ name }) => name)).toEqual(['a', 'b']);
  expect([...joined.children()].map(({ name }) => name)).toEqual(['port', 'queue']);
  expect([...(joined.child('port')?.properties() ?? [])].map(({ name }) => name)).toEqual(['x', 'y']);
});

test('what two FDTs must not both say is an error that names the node', () => {
  const property = () => fdtOf('dev0', (node) => node.addChild('port').addProperty('x', one));
  expect(() => joinSubFdts('dev0', [property(), property()])).toThrow(
    expect.objectContaining({ code: 'KHO_EEXIST', message: expect.stringContaining('/dev0/port') }),
  );
  const child = (name: string) => fdtOf('dev0', (node) => node.addChild(name));
  expect(() => joinSubFdts('dev0', [child('port'), child('port@1')])).toThrow(
    expect.objectContaining({ code: 'KHO_EINVAL', message: expect.stringContaining("'port'") }),
  );
});

test.each(['another name', 'nothing', 'two nodes'])(
  'an FDT with %s below its root is not what a link leads to',
  (what) => {
    const tree = new FdtTree();
    if (what !== 'nothing') tree.root.addChild('dev1');
    if (what === 'two nodes') tree.root.addChild('dev0');
    const follow = () => followSubFdts('dev0', [link(0x1000, 1)], () => tree.render());
    expect(follow).toThrow(expect.objectContaining({ code: 'KHO_EIMAGE' }));
  },
);
