/** Parts and their sum as whole multiples of a unit. */
export interface Apportioned {
  readonly parts: readonly number[];
  /** The exact sum, rounded; equal to the sum of `parts`. */
  readonly total: number;
}

/**
 * Rounds `values` to whole multiples of `unit` so that they add up to their own rounded sum (largest-remainder method).
 *
 * Every part is rounded down first; what is then missing goes, one unit each, to the parts that lost the most. No part
 * is off by a whole unit. Rounding each for itself would be nearer, but then a reader who adds the line up finds it wrong.
 * Values must not be negative.
 */
export function apportion(values: readonly number[], unit: number): Apportioned {
  const exact = values.map((value) => value / unit);
  const parts = exact.map(Math.floor);
  const total = Math.round(exact.reduce((sum, value) => sum + value, 0));
  const missing = total - parts.reduce((sum, part) => sum + part, 0);
  const byLoss = exact.map((_, index) => index).sort((a, b) => exact[b] - parts[b] - (exact[a] - parts[a]) || a - b);
  for (const index of byLoss.slice(0, missing)) parts[index]++;
  return { parts, total };
}
