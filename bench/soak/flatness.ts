import { median } from '../harness/statistics.js';

/** Fewer samples than this are not judged: a quarter of them says nothing. */
export const SAMPLES_TO_JUDGE = 40;

/** How much memory may grow from the second quarter of the samples to the last: the larger of the two. */
export interface Allowance {
  readonly bytes: number;
  readonly share: number;
}

export interface Flatness {
  /** Medians of the second and of the last quarter, in bytes. */
  readonly early: number;
  readonly late: number;
  readonly flat: boolean;
}

/**
 * Whether memory came to rest. Medians, because single samples jump; from the second quarter on, because the first handovers
 * load code and touch memory for the first time. Undefined for too few samples.
 */
export function judgeFlatness(samples: readonly number[], { bytes, share }: Allowance): Flatness | undefined {
  if (samples.length < SAMPLES_TO_JUDGE) return undefined;
  const quarter = Math.floor(samples.length / 4);
  const early = median(samples.slice(quarter, 2 * quarter));
  const late = median(samples.slice(-quarter));
  return { early, late, flat: late - early <= Math.max(bytes, early * share) };
}
