import { medianAbsoluteDeviation } from 'tinybench';

/** What a list of samples comes to. All in the samples' own unit. */
export interface Spread {
  readonly samples: number;
  readonly min: number;
  readonly p25: number;
  readonly median: number;
  readonly p75: number;
  readonly p99: number;
  readonly max: number;
  /** Median absolute deviation from the median. */
  readonly mad: number;
}

/** The sample below which the share `q` (0 to 1) of a sorted list lies, interpolated between neighbours. */
export function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)];
  const high = sorted[Math.ceil(at)];
  if (low === undefined || high === undefined) return Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** NaN of nothing. */
export function median(samples: readonly number[]): number {
  return quantile(ascending(samples), 0.5);
}

/** Undefined of nothing. */
export function spreadOf(samples: readonly number[]): Spread | undefined {
  const sorted = ascending(samples);
  const [first, ...rest] = sorted;
  if (first === undefined) return undefined;
  return {
    samples: sorted.length,
    min: first,
    p25: quantile(sorted, 0.25),
    median: quantile(sorted, 0.5),
    p75: quantile(sorted, 0.75),
    p99: quantile(sorted, 0.99),
    max: rest.at(-1) ?? first,
    mad: medianAbsoluteDeviation(sorted as Parameters<typeof medianAbsoluteDeviation>[0]),
  };
}

function ascending(samples: readonly number[]): number[] {
  return [...samples].sort((a, b) => a - b);
}
