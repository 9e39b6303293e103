/** One of the things that are compared. It runs in a process of its own: see VariantProcess. */
export interface VariantSpec {
  readonly name: string;
  /** A module whose default export makes a {@link Measured} of the parameters. */
  readonly module: URL;
  /** Plain data. */
  readonly parameters: unknown;
}

/** A variant that is set up, in its process. */
export interface Measured {
  /**
   * Does it once and says how long it took, in the comparison's unit. What must not be measured (making a fresh stage,
   * giving buffers back) it does before and after its own clock. Several samples of one call are one round's.
   */
  measure(): Samples | Promise<Samples>;
  /** Asked for after the last round: what else there is to say of it. */
  notes?(): readonly string[];
  /** CPU time in milliseconds of a child process of its own, if it has one. */
  childCpuTime?(): number;
}

export type Samples = number | readonly number[];

/** Variants that do the same work and are measured in the same rounds. */
export interface Comparison<Variant extends { readonly name: string } = VariantSpec> {
  readonly title: string;
  /** Such as `ns/property`. */
  readonly unit: string;
  /** The variant that the others are divided by; without it the one with the lowest median. */
  readonly reference?: string;
  readonly variants: readonly Variant[];
  /** How many rounds are measured, contaminated ones not counted. */
  readonly rounds: number;
  /** Rounds before the first that counts; default 5. */
  readonly warmup?: number;
  /** Which columns show how far samples lie apart; default: the quartiles. `tail`: the 99th percentile and the maximum. */
  readonly show?: 'quartiles' | 'tail';
}

/** A number that is no time: bytes of a table, say. */
export interface Fact {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
}

/** How a suite is to be run, and where it puts what is no comparison. */
export interface Setting {
  /** Smaller sizes and fewer rounds: to see whether it works, not to know how fast it is. */
  readonly quick: boolean;
  /** How many rounds: what `--rounds` says, else `byDefault`, but few in a quick run. */
  rounds(byDefault: number): number;
  fact(name: string, value: number, unit: string): void;
  /** Something that the reader must know: what was not here, what was chosen. */
  note(text: string): void;
}
