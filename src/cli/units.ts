import { KhoError } from '../errors.js';

export { formatBytes, formatDuration } from '../report/index.js';

/** What a size may look like, for messages. */
export const SIZE_FORM = 'a size such as 2G, 512M or 4096 (powers of 1024)';
/** What a duration may look like, for messages. */
export const DURATION_FORM = 'a duration such as 50ms, 1.5s or 200us';

const SIZE_SUFFIXES: readonly string[] = ['', 'K', 'M', 'G', 'T', 'P'];

/** The units of a duration in milliseconds, the longest first. */
const DURATION_UNITS: ReadonlyMap<string, number> = new Map([
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1000],
  ['ms', 1],
  ['us', 1 / 1000],
]);

/** Units that people write for one of ours, with what would be right. */
const DURATION_SYNONYMS: ReadonlyMap<string, string> = new Map(
  Object.entries({ m: 'min', sec: 's', secs: 's', msec: 'ms', usec: 'us', hr: 'h', µs: 'us', μs: 'us' }),
);

/**
 * The bytes of a size as the kernel's command line spells it: a number with an optional suffix K, M, G, T or P in
 * either case, each a power of 1024. A number alone is bytes.
 *
 * A fraction is allowed where it comes to whole bytes (`1.5G`; not `0.3K`). `2GB` and `2GiB` are refused, because the
 * former is 2,000,000,000 to half of its readers. With `step` a fraction is rounded down to a multiple of so many bytes:
 * `1.4T` is no whole number of them. KHO_EINVAL says what is wrong and what would be right.
 */
export function parseSize(size: string | number, { step }: { readonly step?: number } = {}): number {
  const text = String(size).trim();
  const match = /^(\d+(?:\.\d+)?)([KMGTP]?)$/i.exec(text);
  if (match === null) throw new KhoError('KHO_EINVAL', `'${text}' is not a size; ${sizeHint(text)}`);
  const [, number, suffix] = match;
  const exact = Number(number) * 1024 ** SIZE_SUFFIXES.indexOf(suffix.toUpperCase());
  const bytes = step !== undefined && number.includes('.') ? exact - (exact % step) : exact;
  if (!Number.isInteger(bytes)) {
    throw new KhoError('KHO_EINVAL', `'${text}' is not a whole number of bytes; expected ${SIZE_FORM}`);
  }
  if (!Number.isSafeInteger(bytes)) {
    throw new KhoError('KHO_EINVAL', `'${text}' is larger than any address space; expected ${SIZE_FORM}`);
  }
  return bytes;
}

function sizeHint(text: string): string {
  const loose = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)i?(?:B|bytes)?$/i.exec(text);
  return loose === null ? `expected ${SIZE_FORM}` : `write ${loose[1]}${loose[2].toUpperCase()} (powers of 1024)`;
}

/** The shortest text that {@link parseSize} reads back as exactly `bytes`: `2G`, `1536M`, `4097`. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let suffix = 0;
  while (value > 0 && value % 1024 === 0 && suffix < SIZE_SUFFIXES.length - 1) {
    value /= 1024;
    suffix++;
  }
  return `${value}${SIZE_SUFFIXES[suffix]}`;
}

/**
 * The milliseconds of a duration: a number with a unit `us`, `ms`, `s`, `min` or `h`. The unit must be there: a bare 50
 * would be milliseconds to some and seconds to others. KHO_EINVAL says what is wrong and what would be right.
 */
export function parseDuration(duration: string | number): number {
  const text = String(duration).trim();
  const match = /^(\d+(?:\.\d+)?)\s*(\p{L}*)$/u.exec(text);
  if (match === null) throw new KhoError('KHO_EINVAL', `'${text}' is not a duration; expected ${DURATION_FORM}`);
  const [, number, unit] = match;
  const milliseconds = DURATION_UNITS.get(unit);
  if (milliseconds === undefined) {
    const lower = unit.toLowerCase();
    const right = DURATION_SYNONYMS.get(unit) ?? DURATION_SYNONYMS.get(lower) ?? (DURATION_UNITS.has(lower) && lower);
    const what = unit === '' ? `'${text}' has no unit` : `'${text}' has the unknown unit '${unit}'`;
    const hint = right
      ? `write ${number}${right}`
      : unit === ''
        ? `write ${number}ms or ${number}s`
        : `expected one of ${[...DURATION_UNITS.keys()].join(', ')}`;
    throw new KhoError('KHO_EINVAL', `${what}; ${hint}`);
  }
  // Divided where the unit is a fraction: 200 / 1000 is exact to the last bit, 200 * (1 / 1000) is not.
  return milliseconds < 1 ? Number(number) / Math.round(1 / milliseconds) : Number(number) * milliseconds;
}
