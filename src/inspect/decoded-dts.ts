import { type DtsNode, type DtsProperty, type DtsTree, formatDts, looksLikeText } from '../fdt/index.js';
import { describeNativeValue, isKnownProperty, nativeValue, nativeValueJson } from './native-value.js';

/**
 * The tree as dtc prints it, with what its values mean as comments: KHO stores integers in native byte order, so that
 * dtc shows the address 0x117150000 as `<0x1517 0x1000000>`. dtc takes the text, and makes the same blob of it as
 * of its own.
 *
 * A tree with `#address-cells` in its root is an ordinary device tree, whose cells are what dtc shows: no comments there.
 */
export function formatDecodedDts(tree: DtsTree): string {
  return isNative(tree) ? formatDts(tree, { comment }) : formatDts(tree);
}

function comment(property: DtsProperty): string | undefined {
  if (looksLikeText(property.value) && !isKnownProperty(property)) return undefined;
  const value = nativeValue(property);
  return value === undefined ? undefined : describeNativeValue(value, property.name);
}

function isNative({ root }: DtsTree): boolean {
  for (const { name } of root?.properties() ?? []) if (name === '#address-cells') return false;
  return true;
}

/** A property for programs: its bytes in hexadecimal, and what they mean as far as that can be told. */
export interface JsonProperty {
  readonly name: string;
  readonly bytes: string;
  /** Text with `\0` between strings, if dtc would take it for text. */
  readonly text?: string;
  readonly native?: Record<string, unknown>;
  /** What of it is missing, in a tree that is cut short. */
  readonly note?: string;
}

export interface JsonNode {
  readonly name: string;
  readonly properties: readonly JsonProperty[];
  readonly children: readonly JsonNode[];
  readonly note?: string;
}

/** A node with all below it, as `--json` shows it. */
export function nodeJson(node: DtsNode, native = true): JsonNode {
  return {
    name: node.name,
    properties: [...node.properties()].map((property) => propertyJson(property, native)),
    children: [...node.children()].map((child) => nodeJson(child, native)),
    ...(node.note === undefined ? {} : { note: node.note }),
  };
}

/** The whole tree, as `--json` shows it; null for a root that is missing. */
export function treeJson(tree: DtsTree): { reservations: { address: string; size: string }[]; root: JsonNode | null } {
  return {
    reservations: [...tree.reservations()].map(({ address, size }) => ({
      address: `0x${address.toString(16)}`,
      size: `${size}`,
    })),
    root: tree.root === undefined ? null : nodeJson(tree.root, isNative(tree)),
  };
}

function propertyJson(property: DtsProperty, native: boolean): JsonProperty {
  const { name, value, note } = property;
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const text = looksLikeText(value);
  const decoded = native && (!text || isKnownProperty(property)) ? nativeValue(property) : undefined;
  return {
    name,
    bytes: bytes.toString('hex'),
    ...(text ? { text: bytes.toString('latin1', 0, bytes.length - 1) } : {}),
    ...(decoded === undefined ? {} : { native: nativeValueJson(decoded, name) }),
    ...(note === undefined ? {} : { note }),
  };
}
