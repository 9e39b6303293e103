import type { Comparison, Fact, Setting } from './comparison.js';
import type { Goal } from './goals.js';
import type { LoadReading } from './machine-load.js';
import { type ComparisonResult, runRounds } from './rounds.js';
import { VariantProcess } from './variant-process.js';

/** A suite of comparisons. */
export interface Suite {
  /** Each is asked for when the one before is done. */
  comparisons(setting: Setting): AsyncGenerator<Comparison, void>;
  goals?(result: SuiteMeasurements): Goal[];
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
    rounds,
    fact: (fact, value, unit) => void facts.set(fact, { name: fact, value, unit }),
    note: (text) => void notes.push(text),
  };
  for await (const comparison of suite.comparisons(setting)) {
    const result = await measureComparison(comparison, { ...options, rounds: roundsOf(comparison, options) }, (text) =>
      options.onProgress?.(`${name}: ${text}`),
    );
    comparisons.push(result);
    options.onComparison?.(result);
  }
  const measured: SuiteMeasurements = { quick, comparisons, facts: [...facts.values()] };
  return { name, ...measured, notes, goals: suite.goals?.(measured) ?? [] };
}

/** A quick run makes few rounds, unless it is told how many. */
function roundsOf({ rounds }: Comparison, options: SuiteOptions): number {
  return options.rounds ?? (options.quick ? Math.min(rounds, QUICK_ROUNDS) : rounds);
}

const QUICK_ROUNDS = 3;

/** Starts the variants' processes, measures them, ends them. */
async function measureComparison(
  comparison: Comparison,
  { rounds, readLoad }: SuiteOptions & { rounds: number },
  onProgress: (text: string) => void,
): Promise<ComparisonResult> {
  const variants: VariantProcess[] = [];
  try {
    for (const spec of comparison.variants) {
      onProgress(`${comparison.title}: set up ${spec.name}`);
      variants.push(await VariantProcess.start(spec));
    }
    return await runRounds(
      { ...comparison, variants },
      {
        rounds,
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
