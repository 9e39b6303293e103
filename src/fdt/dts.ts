import type { FdtReservation } from './reader.js';
import { readWord } from './walk.js';

/** A property to print: FdtProperty, or whatever else has a name and bytes. */
export interface DtsProperty {
  readonly name: string;
  readonly value: Uint8Array;
  /** Printed as a comment behind it. */
  readonly note?: string;
}

/** A node to print: FdtNode, PartialNode. At most FDT_MAX_DEPTH deep. */
export interface DtsNode {
  readonly name: string;
  /** Printed as a comment at its end. */
  readonly note?: string;
  properties(): Iterable<DtsProperty>;
  children(): Iterable<DtsNode>;
}

/** A tree to print: FdtReader, or a PartialFdt, which may lack its root. */
export interface DtsTree {
  readonly root: DtsNode | undefined;
  reservations(): Iterable<FdtReservation>;
}

export interface DtsOptions {
  /** What to say of a property in a comment behind it; undefined for nothing. One line without an end of a comment. */
  readonly comment?: (property: DtsProperty) => string | undefined;
}

/**
 * The tree as devicetree source, byte for byte what `dtc -I dtb -O dts -q` of dtc 1.6.1 prints.
 *
 * A blob does not say what its values mean, so dtc guesses, and so does this:
 * - text, if it ends with a NUL, has no byte but NULs and what C's isprint() and `\a\b\t\n\v\f\r` cover, and NULs are
 *   at most half of it; several strings print as one, with `\0` between them
 * - else big-endian 32-bit cells, if the length is a multiple of 4
 * - else bytes
 *
 * As in dtc, a `name` property that only repeats the node's name is left out: old trees have it in every node.
 * Trees that dtc refuses (such as a phandle used twice) are printed all the same. Mind that KHO's integers are in native
 * byte order: 0x117150000 of an x86 host shows as `<0x1517 0x1000000>`. `comment` can say what they mean; dtc takes the
 * text all the same, and makes the same blob of it as without them.
 *
 * @returns text of one character per byte of dtc's output, which is plain ASCII unless names in the blob are not
 */
export function formatDts(tree: DtsTree, options: DtsOptions = {}): string {
  const out = ['/dts-v1/;\n\n'];
  for (const { address, size } of tree.reservations()) {
    out.push(`/memreserve/\t${hex64(address)} ${hex64(size)};\n`);
  }
  if (tree.root !== undefined) formatNode(out, tree.root, '', options);
  return out.join('');
}

function formatNode(out: string[], node: DtsNode, indent: string, options: DtsOptions): void {
  out.push(`${indent}${node.name === '' ? '/' : node.name} {\n`);
  for (const property of node.properties()) {
    const { name, value, note } = property;
    if (name === 'name' && repeatsName(node, value)) continue;
    const comments = [options.comment?.(property), note].filter((text) => text !== undefined);
    const comment = comments.length === 0 ? '' : ` /* ${comments.join('; ')} */`;
    out.push(`${indent}\t${name}${formatValue(value)};${comment}\n`);
  }
  for (const child of node.children()) {
    out.push('\n');
    formatNode(out, child, `${indent}\t`, options);
  }
  if (node.note !== undefined) out.push(`${indent}\t/* ${node.note} */\n`);
  out.push(`${indent}};\n`);
}

function formatValue(value: Uint8Array): string {
  if (value.length === 0) return '';
  if (looksLikeText(value)) return ` = "${Array.from(value.subarray(0, -1), escaped).join('')}"`;
  if (value.length % 4 === 0) {
    return ` = <${Array.from({ length: value.length / 4 }, (_, i) => `0x${hex2(readWord(value, i * 4))}`).join(' ')}>`;
  }
  return ` = [${Array.from(value, hex2).join(' ')}]`;
}

/** Whether dtc takes the value for text. */
export function looksLikeText(value: Uint8Array): boolean {
  if (value[value.length - 1] !== 0) return false;
  let nuls = 0;
  for (const byte of value) {
    if (byte === 0) nuls++;
    else if (!(byte in ESCAPES) && (byte < 0x20 || byte > 0x7e)) return false;
  }
  return nuls <= value.length - nuls;
}

/** The bytes that have an escape of their own in a string. */
const ESCAPES: Readonly<Record<number, string>> = {
  0: '\\0',
  7: '\\a',
  8: '\\b',
  9: '\\t',
  10: '\\n',
  11: '\\v',
  12: '\\f',
  13: '\\r',
  34: '\\"',
  92: '\\\\',
};

function escaped(byte: number): string {
  return ESCAPES[byte] ?? String.fromCharCode(byte);
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}

function hex64(value: bigint): string {
  return `0x${value.toString(16).padStart(16, '0')}`;
}

/** Whether a value is the node's name without its unit address, as a string. */
function repeatsName(node: DtsNode, value: Uint8Array): boolean {
  const at = node.name.indexOf('@');
  const base = at < 0 ? node.name : node.name.slice(0, at);
  return value.length === base.length + 1 && value.every((byte, i) => byte === (base.charCodeAt(i) || 0));
}
