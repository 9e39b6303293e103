import type { Comparison, Fact, Setting } from './comparison.js';
import type { Goal } from './goals.js';
import type { LoadReading } from './machine-load.js';
import { type ComparisonResult, runRounds } from './rounds.js';
import { VariantProcess } from './variant-process.js';

const QUICK_ROUNDS = 3;

/** A suite of comparisons. */
export interface Suite {
  /** Each is asked for when the one before is done. */
  comparisons(setting: Setting): AsyncGenerator<Comparison, void>;
  goals?(result: SuiteMeasurements): Goal[];
  /** What follows from all of it. */
  conclusions?(result: SuiteMeasurements): string[];
}

export interface SuiteMeasurements {
  readonly quick: boolean;
  readonly comparisons: readonly ComparisonResult[];
  readonly facts: readonly Fact[];
}

export interface SuiteResult extends SuiteMeasurements {
  readonly name: string;
  readonly notes: readonly string[];
  readonly goals: readonly Goal[];
}

export interface SuiteOptions {
  readonly quick: boolean;
  /** Instead of each comparison's own number. */
  readonly rounds: number | undefined;
  /** Gets the CPU time of the variants' processes so far, in milliseconds. */
  readonly readLoad: (variants: number) => LoadReading;
  readonly onComparison?: (result: ComparisonResult) => void;
  readonly onProgress?: (text: string) => void;
}

export async function runSuite(name: string, suite: Suite, options: SuiteOptions): Promise<SuiteResult> {
  const comparisons: ComparisonResult[] = [];
  const facts = new Map<string, Fact>();
  const notes: string[] = [];
  const { quick, rounds } = options;
  const setting: Setting = {
    quick,
    rounds: (byDefault) => rounds ?? (quick ? Math.min(byDefault, QUICK_ROUNDS) : byDefault),
    fact: (fact, value, unit) => void facts.set(fact, { name: fact, value, unit }),
    note: (text) => void notes.push(text),
  };
  for await (const comparison of suite.comparisons(setting)) {
    const result = await measureComparison(comparison, options, (text) => options.onProgress?.(`${name}: ${text}`));
    comparisons.push(result);
    options.onComparison?.(result);
  }
  const measured: SuiteMeasurements = { quick, comparisons, facts: [...facts.values()] };
  notes.push(...(suite.conclusions?.(measured) ?? []));
  return { name, ...measured, notes, goals: suite.goals?.(measured) ?? [] };
}

/** Starts the variants' processes, measures them, ends them. */
async function measureComparison(
  comparison: Comparison,
  { readLoad }: SuiteOptions,
  onProgress: (text: string) => void,
): Promise<ComparisonResult> {
  const variants: VariantProcess[] = [];
  try {
    onProgress(`${comparison.title}: setting up`);
    const started = await Promise.allSettled(comparison.variants.map((spec) => VariantProcess.start(spec)));
    for (const result of started) if (result.status === 'fulfilled') variants.push(result.value);
    for (const result of started) if (result.status === 'rejected') throw result.reason;
    return await runRounds(
      { ...comparison, variants },
      {
        readLoad: async () => {
          const times = await Promise.all(variants.map((variant) => variant.cpuTime()));
          return readLoad(times.reduce((sum, time) => sum + time, 0));
        },
        onRound: (round, wanted) => onProgress(`${comparison.title}: ${round} of ${wanted}`),
      },
    );
  } finally {
    await Promise.all(variants.map((variant) => variant[Symbol.asyncDispose]()));
  }
}
