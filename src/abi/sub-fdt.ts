import { KhoError } from '../errors.js';
import { type FdtNode, FdtReader, FdtTree, TreeNode } from '../fdt/index.js';
import { SiblingNames } from '../fdt/sibling-names.js';
import { hex, PAGE_SIZE, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import { PROP_BLOB_SIZE, PROP_PRESERVED_DATA } from './subtree.js';

/**
 * Mode `subfdt`: the FDT of a driver holds no state but links, one node for each instance, and the state is in FDTs of its
 * own, one for each shard. It is how the review of the patch series v5 (March 2025) wanted it: recursive FDTs, of which
 * each component writes its own, and the one above only says where they are.
 *
 * ```text
 *   / { compatible = "netdevsim-v1";
 *       netdevsim0 { compatible = "khorus-sub-fdts-v1";
 *                    preserved-data = <u64 address, one for each shard>;
 *                    blob-size      = <u64 bytes, the same>; }; };
 *   each of them: / { compatible = "netdevsim-v1"; netdevsim0 { what the shard wrote } };
 * ```
 *
 * All values are native. The properties have the names by which the root FDT links its sub-blobs. No kernel knows them.
 */
export const SUB_FDTS_COMPATIBLE = 'khorus-sub-fdts-v1';

/** Where an FDT lies. */
export interface SubFdtLink {
  readonly address: PhysicalAddress;
  /** Bytes. */
  readonly size: number;
}

/** Bytes that one link takes in the properties of its node: an address and a size. */
export const SUB_FDT_LINK_SIZE = 16;

const encoder = new TextEncoder();

/** The properties of a node that links to these FDTs. */
export function subFdtProperties(links: readonly SubFdtLink[]): Map<string, Uint8Array> {
  const u64s = (values: readonly number[]): Uint8Array =>
    new Uint8Array(BigUint64Array.from(values, (value) => BigInt(value)).buffer);
  return new Map([
    ['compatible', encoder.encode(`${SUB_FDTS_COMPATIBLE}\0`)],
    [PROP_BLOB_SIZE, u64s(links.map(({ size }) => size))],
    [PROP_PRESERVED_DATA, u64s(links.map(({ address }) => address))],
  ]);
}

/** The links of a node; undefined if it is another kind of node. KHO_EIMAGE if they are not whole. */
export function readSubFdtLinks(node: FdtNode): readonly SubFdtLink[] | undefined {
  const compatible = node.property('compatible');
  if (compatible === undefined || compatible.value.length !== SUB_FDTS_COMPATIBLE.length + 1) return undefined;
  if (compatible.string() !== SUB_FDTS_COMPATIBLE) return undefined;
  const addresses = u64sOf(node, PROP_PRESERVED_DATA);
  const sizes = u64sOf(node, PROP_BLOB_SIZE);
  if (addresses.length === 0 || addresses.length !== sizes.length) {
    throw damaged(node, `has ${addresses.length} addresses and ${sizes.length} sizes of sub-FDTs`);
  }
  return addresses.map((address, index) => {
    const size = sizes[index] as number;
    if (address % PAGE_SIZE !== 0 || size === 0) {
      throw damaged(node, `links to ${size} bytes at ${hex(address)}, where no FDT can be`);
    }
    return { address: physicalAddress(address), size };
  });
}

/**
 * The node that sub-FDTs come to, when each says a part of it: properties and children in the order of the FDTs.
 *
 * KHO_EIMAGE for an FDT that has another number of nodes below its root than one, or a node of another name; KHO_EEXIST
 * for a property that two give one node; KHO_EINVAL for siblings that libfdt could not tell apart.
 */
export function joinSubFdts(name: string, fdts: readonly FdtReader[]): TreeNode {
  const joined = new TreeNode(name);
  const siblings = new Map<TreeNode, SiblingNames>();
  for (const fdt of fdts) merge(joined, instanceNode(fdt, name), '', siblings);
  return joined;
}

/** The node `name` that the sub-FDTs of `links` hold: as it is if there is one, joined if there are more. */
export function followSubFdts(
  name: string,
  links: readonly SubFdtLink[],
  read: (link: SubFdtLink) => Uint8Array,
): FdtNode {
  const fdts = links.map((link) => FdtReader.open(read(link)));
  const [only] = fdts;
  if (only !== undefined && fdts.length === 1) return instanceNode(only, name);
  const tree = new FdtTree();
  tree.root.children.set(name, joinSubFdts(name, fdts));
  return instanceNode(FdtReader.open(tree.render()), name);
}

function instanceNode(fdt: FdtReader, name: string): FdtNode {
  const [node, ...more] = fdt.root.children();
  if (node?.name === name && more.length === 0) return node;
  const found =
    [...(node === undefined ? [] : [node]), ...more].map((child) => `'${child.name}'`).join(', ') || 'nothing';
  throw new KhoError('KHO_EIMAGE', `the sub-FDT of '${name}' has ${found} below its root, expected '${name}' alone`);
}

function merge(target: TreeNode, from: FdtNode, above: string, siblings: Map<TreeNode, SiblingNames>): void {
  const path = `${above}/${target.name}`;
  for (const { name, value } of from.properties()) {
    if (target.properties.has(name)) {
      const details = { path, property: name };
      throw new KhoError('KHO_EEXIST', `two shards gave the node ${path} a property '${name}'`, details);
    }
    target.properties.set(name, value);
  }
  const names = siblings.get(target) ?? new SiblingNames();
  siblings.set(target, names);
  for (const child of from.children()) {
    let node = target.children.get(child.name);
    if (node === undefined) {
      names.add(child.name, `${path}/${child.name}`);
      node = new TreeNode(child.name);
      target.children.set(child.name, node);
    }
    merge(node, child, path, siblings);
  }
}

function u64sOf(node: FdtNode, name: string): number[] {
  try {
    return node.property(name)?.number64s('little') ?? [];
  } catch (error) {
    throw damaged(node, `is damaged: ${KhoError.from(error).message}`);
  }
}

function damaged(node: FdtNode, what: string): KhoError {
  return new KhoError('KHO_EIMAGE', `the node ${node.path} ${what}`, { path: node.path });
}
