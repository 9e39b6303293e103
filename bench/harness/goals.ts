import type { ComparisonResult } from './rounds.js';
import { median } from './statistics.js';

/** A number that was asked for: `pass` must be reached, `aim` should. */
export interface Goal {
  readonly name: string;
  readonly unit: string;
  readonly better: 'less' | 'more';
  readonly pass: number;
  readonly aim: number;
  /** What was measured; undefined if it was not, or only in contaminated rounds. */
  readonly value: number | undefined;
  /** Why there is no value. */
  readonly absent?: string;
}

export function goalVerdict({ better, pass, aim, value, absent }: Goal): string {
  if (value === undefined) return `not judged: ${absent ?? 'not measured'}`;
  const reaches = (limit: number): boolean => (better === 'less' ? value <= limit : value >= limit);
  return reaches(aim) ? 'aim reached' : reaches(pass) ? 'reached' : 'missed';
}

type Measured = Pick<Goal, 'value' | 'absent'>;

/** A variant's median as a goal's value. */
export function medianOf(result: ComparisonResult | undefined, variant: string): Measured {
  return usable(result) ?? { value: result?.variants.find(({ name }) => name === variant)?.spread?.median };
}

/** The median of `a / b` over the rounds. */
export function ratioOf(result: ComparisonResult | undefined, a: string, b: string): Measured {
  const ratios = (result?.rounds ?? []).flatMap(({ samples, load }) => {
    if (load.verdict === 'contaminated') return [];
    const ratio = median(samples[a] ?? []) / median(samples[b] ?? []);
    return Number.isFinite(ratio) ? [ratio] : [];
  });
  return usable(result) ?? (ratios.length > 0 ? { value: median(ratios) } : { value: undefined, absent: 'not here' });
}

function usable(result: ComparisonResult | undefined): Measured | undefined {
  if (result === undefined) return { value: undefined, absent: 'not measured' };
  return result.verdict === 'contaminated' ? { value: undefined, absent: 'contaminated' } : undefined;
}
