/** Nodes of one shape that a shard writes. */
export interface NodeShape {
  /** The longest of their names. */
  readonly name: string;
  /** How many there are; default 1. */
  readonly count?: number;
  /** Bytes of each property's value, at most. */
  readonly properties: Readonly<Record<string, number>>;
}

/** The bytes of a value that is text: UTF-8 with its NUL. */
export const textBytes = (longest: string): number => longest.length + 1;

const TOKEN = 4;
/** FDT_PROP, the length of the value, the offset of the name. */
const PROPERTY_HEADER = 3 * TOKEN;
/** Each shard that writes is charged for the instance's node; its name is bounded by what a node's name may be. */
const LONGEST_INSTANCE_NAME = 'x'.repeat(63);

/**
 * The bytes of FDT that nodes take below an instance's node: the honest `maxBytes` of a shard. Nodes and values are
 * padded to 4 bytes in the structure block; each property name stands in the strings block once.
 *
 * The properties of the instance's own node go under the name ''.
 */
export function fdtBytes(shapes: readonly NodeShape[]): number {
  const names = new Set<string>();
  let bytes = nodeBytes(LONGEST_INSTANCE_NAME);
  for (const { name, count = 1, properties } of shapes) {
    let each = name === '' ? 0 : nodeBytes(name);
    for (const [property, length] of Object.entries(properties)) {
      names.add(property);
      each += PROPERTY_HEADER + align4(length);
    }
    bytes += count * each;
  }
  for (const name of names) bytes += name.length + 1;
  return bytes;
}

/** FDT_BEGIN_NODE, the name with its NUL, FDT_END_NODE. */
function nodeBytes(name: string): number {
  return TOKEN + align4(name.length + 1) + TOKEN;
}

function align4(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
