import type { Comparison, Fact, Setting } from './comparison.js';
import type { Goal } from './goals.js';
import { type ComparisonResult, type RoundOptions, runRounds } from './rounds.js';

/** A suite of comparisons. */
export interface Suite {
  /**
   * Sets each comparison up when it is asked for, and takes it down when it is asked for the next one: threads and memory
   * of one do not disturb another.
   */
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

export interface SuiteOptions extends Omit<RoundOptions, 'onRound'> {
  readonly quick: boolean;
  readonly addChild: (pid: number) => void;
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
    addChild: options.addChild,
    fact: (fact, value, unit) => void facts.set(fact, { name: fact, value, unit }),
    note: (text) => void notes.push(text),
  };
  for await (const comparison of suite.comparisons(setting)) {
    const result = await runRounds(comparison, {
      ...options,
      rounds: rounds ?? (quick ? Math.min(comparison.rounds, 3) : undefined),
      onRound: (round, wanted) => options.onProgress?.(`${name}: ${comparison.title}: ${round} of ${wanted}`),
    });
    comparisons.push(result);
    options.onComparison?.(result);
  }
  const measured: SuiteMeasurements = { quick, comparisons, facts: [...facts.values()] };
  return { name, ...measured, notes, goals: suite.goals?.(measured) ?? [] };
}
