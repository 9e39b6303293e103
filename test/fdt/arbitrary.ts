import fc from 'fast-check';
import { FdtTree, type TreeNode } from '#dist/fdt/index.js';

/** A tree as plain data: the oracle that the FDT types are tested against. */
export interface PlainNode {
  name: string;
  properties: [name: string, value: Uint8Array][];
  children: PlainNode[];
}

export interface PlainTree {
  reservations: [address: bigint, size: bigint][];
  root: PlainNode;
}

const nodeCharacters = [...'abcxyzABZ0189,._+-'];
const propertyCharacters = [...'abcxyzABZ0189,._+?#-'];
const part = (characters: string[]) => fc.string({ unit: fc.constantFrom(...characters), minLength: 1, maxLength: 12 });

const nodeName = fc.oneof(
  part(nodeCharacters),
  fc.tuple(part(nodeCharacters), part(nodeCharacters)).map(([name, unit]) => `${name}@${unit}`),
);
/** Names that dtc gives a meaning of its own ('name', 'phandle', …) need more letters than the alphabet above has. */
const propertyName = fc.oneof(
  { weight: 3, arbitrary: part(propertyCharacters) },
  { weight: 1, arbitrary: fc.constantFrom('a', '#a', 'xa', 'zzz') },
);

const textByte = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0x20, max: 0x7e }) },
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.constantFrom(7, 8, 9, 10, 11, 12, 13, 0x22, 0x5c, 0x27, 0x25) },
  { weight: 1, arbitrary: fc.constantFrom(1, 6, 14, 0x1b, 0x1f, 0x7f, 0x80, 0xa0, 0xff) },
);
/** Values around every edge of dtc's guess: strings, strings with one wrong byte, cells, bytes, empty. */
const value = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.array(textByte, { maxLength: 14 }).map((bytes) => Uint8Array.from([...bytes, 0])),
  fc.array(fc.integer({ min: 0x20, max: 0x7e }), { maxLength: 14 }).map((bytes) => Uint8Array.from([...bytes, 0])),
  fc.array(fc.constantFrom(0, 0x61), { maxLength: 8 }).map((bytes) => Uint8Array.from(bytes)),
  fc.constant(new Uint8Array(0)),
);

/** One child for each base name with and without unit address, so that no siblings conflict. */
function withoutConflicts(children: PlainNode[]): PlainNode[] {
  const bases = new Map<string, 'plain' | 'unit'>();
  const names = new Set<string>();
  return children.filter(({ name }) => {
    const base = name.split('@')[0] ?? '';
    const kind = name.includes('@') ? 'unit' : 'plain';
    const known = bases.get(base);
    if (names.has(name) || (known !== undefined && known !== kind)) return false;
    bases.set(base, kind);
    names.add(name);
    return true;
  });
}

const properties = fc.uniqueArray(fc.tuple(propertyName, value), { selector: ([name]) => name, maxLength: 5 });

function node(name: fc.Arbitrary<string>, depth: number): fc.Arbitrary<PlainNode> {
  const children =
    depth === 0
      ? fc.constant<PlainNode[]>([])
      : fc.array(node(nodeName, depth - 1), { maxLength: depth > 2 ? 2 : 4 }).map(withoutConflicts);
  return fc.record({ name, properties, children });
}

export const plainTree: fc.Arbitrary<PlainTree> = fc.record({
  reservations: fc.array(fc.tuple(fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(1n, 2n ** 64n - 1n)), { maxLength: 3 }),
  root: fc.integer({ min: 0, max: 4 }).chain((depth) => node(fc.constant(''), depth)),
});

/** The oracle in the lines of libfdt-check.c. */
export function plainLines(tree: PlainTree): string[] {
  const lines = tree.reservations.map(([address, size]) => `reserve\t${address.toString(16)}\t${size.toString(16)}`);
  const walk = (plain: PlainNode, path: string): void => {
    const here = path === '' ? '/' : path;
    lines.push(here);
    for (const [name, bytes] of plain.properties) lines.push(`${here}\t${name}\t${Buffer.from(bytes).toString('hex')}`);
    for (const child of plain.children) walk(child, `${path}/${child.name}`);
  };
  walk(tree.root, '');
  return lines;
}

/** The oracle as an FdtTree. */
export function toFdtTree(tree: PlainTree): FdtTree {
  const fdt = new FdtTree();
  for (const [address, size] of tree.reservations) fdt.reservations.push({ address, size });
  const fill = (to: TreeNode, from: PlainNode): void => {
    for (const [name, bytes] of from.properties) to.addProperty(name, bytes);
    for (const child of from.children) fill(to.addChild(child.name), child);
  };
  fill(fdt.root, tree.root);
  return fdt;
}
