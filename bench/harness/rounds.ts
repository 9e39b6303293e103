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
  notes?(): readonly string[] | Promise<readonly string[]>;
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
  readonly notes: readonly string[];
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
  const wanted = comparison.rounds;
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
  const notes = new Map<string, readonly string[]>();
  for (const variant of comparison.variants) notes.set(variant.name, (await variant.notes?.()) ?? []);
  return summarize(comparison, rounds, notes);
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
  comparison: Comparison<Variant>,
  rounds: readonly Round[],
  notes: ReadonlyMap<string, readonly string[]>,
): ComparisonResult {
  const { title, unit, show = 'quartiles' } = comparison;
  const used = rounds.filter(({ load }) => load.verdict !== 'contaminated');
  const contaminated = rounds.length - used.length;
  const spreads = comparison.variants.map(({ name }) => ({
    name,
    spread: spreadOf(used.flatMap(({ samples }) => samples[name] ?? [])),
  }));
  const reference = comparison.reference ?? fastest(spreads);
  const variants = spreads.map(({ name, spread }) => {
    const ratios = used.map(({ samples }) => median(samples[name] ?? []) / median(samples[reference] ?? []));
    return {
      name,
      spread,
      ratio: spreadOf(ratios.filter((ratio) => Number.isFinite(ratio))),
      notes: notes.get(name) ?? [],
    };
  });
  const unknown = used.some(({ load }) => load.verdict === 'unknown');
  const verdict = contaminated * 2 > rounds.length ? 'contaminated' : unknown ? 'not measured' : 'clean';
  return { title, unit, reference, show, rounds, contaminated, verdict, variants };
}

function fastest(variants: readonly { name: string; spread: Spread | undefined }[]): string {
  const measured = [...variants].sort((a, b) => (a.spread?.median ?? 0) - (b.spread?.median ?? 0));
  return measured[0]?.name ?? '';
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last--) {
    const other = random.below(last + 1);
    [order[last], order[other]] = [order[other] as T, order[last] as T];
  }
  return order;
}
