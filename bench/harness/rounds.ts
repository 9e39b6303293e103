import { Random } from '#dist/workers/random.js';
import type { Comparison, Samples } from './comparison.js';
import { type Contamination, contamination } from './contamination.js';
import type { LoadReading } from './machine-load.js';
import { median, type Spread, spreadOf } from './statistics.js';

const WARMUP_ROUNDS = 5;
/** Contaminated rounds are repeated until as many rounds were measured as this times those that were asked for. */
const REPEAT_LIMIT = 2;

/** A variant as it is measured here, wherever it runs. */
export interface Variant {
  readonly name: string;
  measure(): Samples | Promise<Samples>;
}

/** One round as it was. */
export interface Round {
  readonly order: readonly string[];
  /** By variant: its samples. */
  readonly samples: Readonly<Record<string, readonly number[]>>;
  readonly load: Contamination;
}

/** What all clean rounds of a variant say. */
export interface VariantResult {
  readonly name: string;
  /** Of all samples; undefined if no round was clean. */
  readonly spread: Spread | undefined;
  /** The variant divided by the reference, in each round (medians of their samples there), and then the spread of that. */
  readonly ratio: Spread | undefined;
}

export interface ComparisonResult {
  readonly title: string;
  readonly unit: string;
  readonly reference: string;
  readonly show: 'quartiles' | 'tail';
  readonly rounds: readonly Round[];
  /** How many of them were left out. */
  readonly contaminated: number;
  /** `contaminated`: more than half of the rounds were, so that no number here decides anything. */
  readonly verdict: 'clean' | 'contaminated' | 'not measured';
  readonly variants: readonly VariantResult[];
}

export interface RoundOptions {
  /** Instead of the comparison's own number. */
  readonly rounds?: number | undefined;
  readonly readLoad: () => LoadReading | Promise<LoadReading>;
  readonly onRound?: (round: number, rounds: number) => void;
}

/**
 * Measures the variants of a comparison in rounds: each round runs each variant once, in an order that is shuffled anew
 * with a fixed seed, after some rounds of warming up.
 *
 * tinybench is not used for this: it runs one task to its end before the next one begins, so that whatever else the
 * machine does meanwhile falls on one of them. A ratio means something only between measurements of the same moment.
 */
export async function runRounds(comparison: Comparison<Variant>, options: RoundOptions): Promise<ComparisonResult> {
  const wanted = options.rounds ?? comparison.rounds;
  const random = new Random(comparison.title);
  for (let round = 0; round < (comparison.warmup ?? WARMUP_ROUNDS); round++) {
    await oneRound(comparison.variants, random, options);
  }
  const rounds: Round[] = [];
  let clean = 0;
  while (clean < wanted && rounds.length < wanted * REPEAT_LIMIT) {
    const round = await oneRound(comparison.variants, random, options);
    rounds.push(round);
    if (round.load.verdict !== 'contaminated') clean++;
    options.onRound?.(clean, wanted);
  }
  return summarize(comparison, rounds);
}

async function oneRound(variants: readonly Variant[], random: Random, options: RoundOptions): Promise<Round> {
  const order = shuffled(variants, random);
  const samples: Record<string, readonly number[]> = {};
  const before = await options.readLoad();
  for (const variant of order) {
    const measured = await variant.measure();
    samples[variant.name] = typeof measured === 'number' ? [measured] : measured;
  }
  return { order: order.map(({ name }) => name), samples, load: contamination(before, await options.readLoad()) };
}

/** Statistics over the rounds that are clean, or of which nothing is known. */
export function summarize(
  comparison: Pick<Comparison<Variant>, 'title' | 'unit' | 'reference' | 'variants' | 'show'>,
  rounds: readonly Round[],
): ComparisonResult {
  const { title, unit, reference, show = 'quartiles' } = comparison;
  const used = rounds.filter(({ load }) => load.verdict !== 'contaminated');
  const contaminated = rounds.length - used.length;
  const variants = comparison.variants.map(({ name }) => {
    const ratios = used.map(({ samples }) => median(samples[name] ?? []) / median(samples[reference] ?? []));
    return {
      name,
      spread: spreadOf(used.flatMap(({ samples }) => samples[name] ?? [])),
      ratio: spreadOf(ratios.filter((ratio) => Number.isFinite(ratio))),
    };
  });
  const unknown = used.some(({ load }) => load.verdict === 'unknown');
  const verdict = contaminated * 2 > rounds.length ? 'contaminated' : unknown ? 'not measured' : 'clean';
  return { title, unit, reference, show, rounds, contaminated, verdict, variants };
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last--) {
    const other = random.below(last + 1);
    [order[last], order[other]] = [order[other] as T, order[last] as T];
  }
  return order;
}
