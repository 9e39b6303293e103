import { PROP_BLOB_SIZE, PROP_PRESERVED_DATA, PROP_PRESERVED_MEMORY_MAP } from '../abi/index.js';
import type { DtsProperty } from '../fdt/index.js';
import { hex } from '../memblock/index.js';
import { formatBytes } from '../report/index.js';

/** What a value of a KHO tree means. Integers are little-endian, as on every architecture that has kho-v4. */
export type NativeValue =
  | { readonly type: 'address' | 'size' | 'number'; readonly bits: 32 | 64; readonly value: bigint }
  | { readonly type: 'numbers'; readonly bits: 32 | 64; readonly values: readonly bigint[] }
  | { readonly type: 'ranges'; readonly ranges: readonly { readonly address: bigint; readonly size: bigint }[] }
  | {
      readonly type: 'kho_vmalloc';
      readonly first: bigint;
      readonly totalPages: number;
      readonly flags: number;
      readonly order: number;
    };

type Meaning = 'address' | 'size' | 'number' | 'ranges' | 'kho_vmalloc';

/** Properties whose meaning is known, in any node: those of the kernel (include/linux/kho/abi/, lib/test_kho.c). */
const MEANINGS: ReadonlyMap<string, Meaning> = new Map([
  [PROP_PRESERVED_MEMORY_MAP, 'address'],
  [PROP_PRESERVED_DATA, 'address'],
  [PROP_BLOB_SIZE, 'size'],
  ['fdt', 'address'], // kho-v1
  ['metadata', 'address'], // the series of March 2025
  ['mem', 'ranges'], // the series of February 2025
  ['start', 'address'],
  ['size', 'size'],
  ['nr_folios', 'number'],
  ['magic', 'number'],
  ['csum', 'number'],
  ['folios_info', 'kho_vmalloc'],
]);

/** Numbers that people know by their digits in hexadecimal. */
const HEXADECIMAL = new Set(['magic', 'csum']);
/** More values of an array than this are not repeated in a comment. */
const COMMENTED_VALUES = 32;

/**
 * What a property means in native byte order; undefined if nothing can be said: text, odd lengths. By its name where
 * that is known and the length is right, else by its length: 4 bytes one number of 32 bits, 8 bytes one of 64, more of
 * them an array.
 */
export function nativeValue({ name, value }: DtsProperty): NativeValue | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const meaning = MEANINGS.get(name);
  if (meaning === 'kho_vmalloc' && value.length === 16) {
    return {
      type: 'kho_vmalloc',
      first: view.getBigUint64(0, true),
      totalPages: view.getUint32(8, true),
      flags: view.getUint16(12, true),
      order: view.getUint16(14, true),
    };
  }
  if (meaning === 'ranges' && value.length > 0 && value.length % 16 === 0) {
    const ranges = Array.from({ length: value.length / 16 }, (_, index) => ({
      address: view.getBigUint64(index * 16, true),
      size: view.getBigUint64(index * 16 + 8, true),
    }));
    return { type: 'ranges', ranges };
  }
  const single = meaning === 'address' || meaning === 'size' ? meaning : 'number';
  if (value.length === 4) return { type: single, bits: 32, value: BigInt(view.getUint32(0, true)) };
  if (value.length === 8) return { type: single, bits: 64, value: view.getBigUint64(0, true) };
  if (value.length === 0 || value.length % 4 !== 0) return undefined;
  const bits = value.length % 8 === 0 ? 64 : 32;
  const values = Array.from({ length: (value.length * 8) / bits }, (_, index) =>
    bits === 64 ? view.getBigUint64(index * 8, true) : BigInt(view.getUint32(index * 4, true)),
  );
  return { type: 'numbers', bits, values };
}

/** Whether the name alone says what the value is, so that it is no text even if it looks like one. */
export function isKnownProperty({ name }: DtsProperty): boolean {
  return MEANINGS.has(name);
}

/** The value for people, in one line. */
export function describeNativeValue(value: NativeValue, name = ''): string {
  switch (value.type) {
    case 'address':
      return hex(value.value);
    case 'size':
      return size(value.value);
    case 'number':
      return HEXADECIMAL.has(name) ? hex(value.value) : number(value.value);
    case 'numbers':
      return `u${value.bits} ${listed(value.values.map(number), ' ')}`;
    case 'ranges':
      return listed(
        value.ranges.map(({ address, size: bytes }) => `${hex(address)} + ${size(bytes)}`),
        ', ',
      );
    case 'kho_vmalloc': {
      const { first, totalPages, flags, order } = value;
      return `kho_vmalloc: first ${hex(first)}, total_pages ${totalPages}, flags ${hex(flags)}, order ${order}`;
    }
  }
}

function listed(values: readonly string[], separator: string): string {
  const more = values.length - COMMENTED_VALUES;
  return `${values.slice(0, COMMENTED_VALUES).join(separator)}${more > 0 ? ` and ${more} more` : ''}`;
}

/** Small numbers are counts, large ones addresses and bit patterns. */
function number(value: bigint): string {
  return value < 0x10000n ? value.toString() : hex(value);
}

function size(value: bigint): string {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? `${hex(value)} = ${formatBytes(Number(value))}` : hex(value);
}

/** The value as `--json` shows it: integers as text, which loses none of their bits. */
export function nativeValueJson(value: NativeValue, name = ''): Record<string, unknown> {
  const text = (integer: bigint): string =>
    value.type === 'number' && !HEXADECIMAL.has(name) ? `${integer}` : hex(integer);
  switch (value.type) {
    case 'address':
    case 'size':
    case 'number':
      return { type: value.type, bits: value.bits, value: text(value.value) };
    case 'numbers':
      return { type: value.type, bits: value.bits, values: value.values.map((one) => `${one}`) };
    case 'ranges':
      return {
        type: value.type,
        ranges: value.ranges.map((one) => ({ address: hex(one.address), size: `${one.size}` })),
      };
    case 'kho_vmalloc':
      return { ...value, first: hex(value.first) };
  }
}
