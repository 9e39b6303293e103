const BINARY_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Bytes for people: `512 B`, `4 KiB`, `61.2 MiB`. One decimal, unless the number is exact without it. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.95 would print as 1024.0: the next unit is due already.
  while (unit < BINARY_UNITS.length - 1 && (unit === 0 ? value >= 1024 : value >= 1023.95)) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${BINARY_UNITS[unit]}`;
}

/**
 * Milliseconds for people, as systemd-analyze spells them: `412us`, `30.2ms`, `1.234s`, `1min 2.345s`, `1h 2min 3s`.
 * The unit follows from the rounded value, so that 999.96 ms is `1.000s` and never `1000.0ms`.
 */
export function formatDuration(milliseconds: number): string {
  const microseconds = Math.round(milliseconds * 1000);
  if (microseconds < 1000) return `${microseconds}us`;
  const tenths = Math.round(milliseconds * 10);
  if (tenths < 10_000) return `${(tenths / 10).toFixed(1)}ms`;
  const thousandths = Math.round(milliseconds);
  if (thousandths < 60_000) return `${(thousandths / 1000).toFixed(3)}s`;
  if (thousandths < 3_600_000) {
    return `${Math.floor(thousandths / 60_000)}min ${((thousandths % 60_000) / 1000).toFixed(3)}s`;
  }
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}min ${seconds % 60}s`;
}

/** A whole number with commas between the thousands, whatever the locale. */
export function formatCount(count: number): string {
  return count.toString().replace(/\B(?=(\d{3})+$)/g, ',');
}

/** `1 driver`, `6 drivers`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}
