import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { FdtReader, FdtTree, FdtWriter, TreeNode } from '#dist/fdt/index.js';
import { plainLines, plainTree, toFdtTree } from './arbitrary.js';
import { dumpLines } from './libfdt.js';

function codeOf(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    if (error instanceof KhoError) return error.code;
    throw error;
  }
  return 'none';
}

test('a tree survives render and parse, in exactly the bytes that size() foretold', () => {
  fc.assert(
    fc.property(plainTree, fc.boolean(), (plain, sortStrings) => {
      const tree = toFdtTree(plain);
      const blob = tree.render({ sortStrings });
      expect(blob.length).toBe(tree.size());
      const reader = FdtReader.open(blob, { strict: true });
      expect(dumpLines(reader)).toEqual(plainLines(plain));
      for (const again of [FdtTree.parse(blob), FdtTree.parse(reader)]) {
        expect(FdtTree.equal(again, tree)).toBeUndefined();
        expect(Buffer.from(again.render({ sortStrings })).equals(blob)).toBe(true);
      }
    }),
    { numRuns: 500 },
  );
});

test('with sorted strings, name offsets do not depend on the order of the tree', () => {
  const render = (names: string[]) => {
    const tree = new FdtTree();
    for (const name of names) tree.root.addProperty(name, new Uint8Array(0));
    const blob = Buffer.from(tree.render({ sortStrings: true }));
    return blob.subarray(blob.readUInt32BE(12)).toString('latin1');
  };
  expect(render(['b', 'a', '#c'])).toBe('#c\0a\0b\0');
  expect(render(['a', '#c', 'b'])).toBe('#c\0a\0b\0');
});

test('render writes into a given room, or says that it is too small', () => {
  const tree = new FdtTree();
  tree.root.addChild('a').addProperty('p', Uint8Array.of(1));
  const size = tree.size();
  const room = new Uint8Array(size + 16);
  const blob = tree.render({ into: room, at: 8 });
  expect([blob.buffer, blob.byteOffset, blob.length]).toEqual([room.buffer, 8, size]);
  expect(codeOf(() => tree.render({ into: room.subarray(0, size - 1) }))).toBe('KHO_FDT_NOSPACE');
});

test('children and properties are added, found and removed, and their names are checked', () => {
  const tree = new FdtTree();
  const child = tree.root.addChild('port@0');
  child.addChild('leaf').addProperty('x', Uint8Array.of(1));
  expect(tree.get('/port@0/leaf').getProperty('x')).toEqual(Uint8Array.of(1));
  expect(tree.get('/')).toBe(tree.root);
  expect(codeOf(() => child.getChild('other'))).toBe('KHO_ENOENT');
  expect(codeOf(() => tree.get('/port@0/other/more'))).toBe('KHO_ENOENT');
  expect(codeOf(() => child.removeChild('other'))).toBe('KHO_ENOENT');
  expect(codeOf(() => child.getProperty('other'))).toBe('KHO_ENOENT');
  expect(codeOf(() => child.removeProperty('other'))).toBe('KHO_ENOENT');
  expect(codeOf(() => child.addChild('a:b'))).toBe('KHO_EINVAL');
  expect(codeOf(() => child.addProperty('a@b', new Uint8Array(0)))).toBe('KHO_EINVAL');
  expect(codeOf(() => child.getChild('leaf').addProperty('x', new Uint8Array(0)))).toBe('KHO_EEXIST');
  tree.root.addChild('port@1');
  expect(codeOf(() => tree.root.addChild('port@1'))).toBe('KHO_EEXIST');
  expect(codeOf(() => tree.root.addChild('port'))).toBe('KHO_EEXIST');
  tree.root.addChild('disk');
  expect(codeOf(() => tree.root.addChild('disk@1'))).toBe('KHO_EEXIST');
  tree.root.removeChild('disk');
  tree.root.addChild('disk@1');
  child.getChild('leaf').removeProperty('x');
  child.removeChild('leaf');
  expect(dumpLines(FdtReader.open(tree.render()))).toEqual(['/', '/port@0', '/port@1', '/disk@1']);
});

test('equal names the first difference and ignores order', () => {
  const make = (change?: (tree: FdtTree) => void) => {
    const tree = new FdtTree();
    tree.reservations.push({ address: 1n, size: 2n });
    tree.root.addProperty('a', Uint8Array.of(1));
    tree.root.addProperty('b', Uint8Array.of(2));
    tree.root.addChild('x').addChild('y').addProperty('p', Uint8Array.of(3));
    tree.root.addChild('z');
    change?.(tree);
    return tree;
  };
  const reordered = make((tree) => {
    const a = tree.root.getProperty('a');
    tree.root.removeProperty('a');
    tree.root.addProperty('a', a);
    const x = tree.root.getChild('x');
    tree.root.children.delete('x');
    tree.root.children.set('x', x);
  });
  expect(FdtTree.equal(make(), reordered)).toBeUndefined();
  const differences: [change: (tree: FdtTree) => void, there: RegExp, back: RegExp][] = [
    [(tree) => tree.reservations.pop(), /reservations differ: 1\+2 against none/, /none against 1\+2/],
    [(tree) => tree.root.removeProperty('b'), /^\/: property 'b' is missing in the second/, /missing in the first/],
    [(tree) => tree.root.removeChild('z'), /^\/: child 'z' is missing in the second/, /missing in the first/],
    [
      (tree) => tree.get('/x/y').properties.set('p', Uint8Array.of(4, 5)),
      /^\/x\/y: property 'p' differs: \[03\] against \[04 05\]/,
      /\[04 05\] against \[03\]/,
    ],
  ];
  for (const [change, there, back] of differences) {
    expect(FdtTree.equal(make(), make(change))).toMatch(there);
    expect(FdtTree.equal(make(change), make())).toMatch(back);
  }
});

test('a blob with duplicate names cannot be a tree', () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  for (let i = 0; i < 2; i++) {
    writer.beginNode('twin');
    writer.endNode();
  }
  writer.endNode();
  const blob = writer.finish();
  expect(codeOf(() => FdtTree.parse(blob))).toBe('KHO_FDT_BADSTRUCTURE');
  expect(codeOf(() => FdtTree.parse(FdtReader.open(blob)))).toBe('KHO_FDT_BADSTRUCTURE');
});

test('a foreign blob with forbidden names is parsed, but rendered only on request', () => {
  const writer = new FdtWriter({ checkNames: false });
  writer.beginNode('');
  writer.beginNode('0000:3b');
  writer.endNode();
  writer.endNode();
  const blob = writer.finish();
  const tree = FdtTree.parse(blob);
  expect(codeOf(() => tree.render())).toBe('KHO_EINVAL');
  expect(Buffer.from(tree.render({ checkNames: false })).equals(blob)).toBe(true);
});

test('a tree that is too deep is refused by size and render', () => {
  const tree = new FdtTree();
  let node: TreeNode = tree.root;
  for (let depth = 0; depth < 64; depth++) {
    const child = new TreeNode('n');
    node.children.set('n', child);
    node = child;
  }
  expect(codeOf(() => tree.size())).toBe('KHO_EINVAL');
  expect(codeOf(() => tree.render())).toBe('KHO_EINVAL');
});
