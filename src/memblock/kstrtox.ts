/** Numbers and truth values as the kernel reads them from its command line (lib/kstrtox.c, lib/cmdline.c). */

const U64 = 64;
const SHIFT_OF_SUFFIX: Readonly<Record<string, bigint>> = { k: 10n, m: 20n, g: 30n, t: 40n, p: 50n, e: 60n };

/** What {@link memparse} read. */
export interface MemparseResult {
  /** In bytes. Exact below 2^53. Too large a number wraps around at 2^64, as in the kernel. */
  value: number;
  /** The text behind the number and its suffix. */
  rest: string;
}

/**
 * Reads a size: decimal, hexadecimal after `0x`, octal after `0`, then at most one of K, M, G, T, P, E (or lower case).
 *
 * It never fails. Where nothing can be read, the value is 0 and `rest` is all of `text`; but a suffix alone is read,
 * as 0, and then `rest` is shorter. Callers that want an error compare the two, as the kernel's do.
 */
export function memparse(text: string): MemparseResult {
  const { digits, radix, start } = integerAt(text);
  let value = 0n;
  for (const digit of digits) value = value * radix + BigInt(Number.parseInt(digit, 16));
  let end = start + digits.length;
  const shift = SHIFT_OF_SUFFIX[text.charAt(end).toLowerCase()];
  if (shift !== undefined) {
    value <<= shift;
    end++;
  }
  return { value: Number(BigInt.asUintN(U64, value)), rest: text.slice(end) };
}

function integerAt(text: string): { digits: string; radix: bigint; start: number } {
  // "0x" without a hexadecimal digit behind it is the octal number 0, followed by an x.
  if (/^0x[0-9a-f]/i.test(text)) return { digits: leading(text.slice(2), /^[0-9a-f]*/i), radix: 16n, start: 2 };
  if (text.startsWith('0')) return { digits: leading(text, /^[0-7]*/), radix: 8n, start: 0 };
  return { digits: leading(text, /^[0-9]*/), radix: 10n, start: 0 };
}

function leading(text: string, pattern: RegExp): string {
  return pattern.exec(text)?.[0] ?? '';
}

/** Reads a 32-bit unsigned decimal number: a plus sign may precede it and one newline follow. Else undefined. */
export function kstrtouint(text: string): number | undefined {
  const digits = /^\+?([0-9]+)\n?$/.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const value = Number(digits);
  return value <= 0xffffffff ? value : undefined;
}

/**
 * Reads a truth value from its first one or two characters; what follows does not matter.
 * True: y, t, e, 1, on. False: n, f, d, 0, of. Upper case as well. Else undefined.
 */
export function kstrtobool(text: string): boolean | undefined {
  if (/^([yte1]|on)/i.test(text)) return true;
  if (/^([nfd0]|of)/i.test(text)) return false;
  return undefined;
}
