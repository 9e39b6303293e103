/** One of the things that are compared. */
export interface Variant {
  readonly name: string;
  /**
   * Does it once and says how long it took, in the comparison's unit. What must not be measured (making a fresh stage,
   * giving buffers back) it does before and after its own clock. Several samples of one call are one round's.
   */
  measure(): number | readonly number[] | Promise<number | readonly number[]>;
  /** True if it leaves so much garbage behind that the next variant would pay for it: it is collected then. */
  readonly leavesGarbage?: boolean;
}

/** Variants that do the same work and are measured in the same rounds. */
export interface Comparison {
  readonly title: string;
  /** Such as `ns/property`. */
  readonly unit: string;
  /** The variant that the others are divided by. */
  readonly reference: string;
  readonly variants: readonly Variant[];
  /** How many rounds by default. */
  readonly rounds: number;
  /** Rounds before the first that counts; default 3. */
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
  readonly rounds: number | undefined;
  /** Counts the CPU time of a child process as the bench's own. */
  addChild(pid: number): void;
  /** One of the same name is replaced. */
  fact(name: string, value: number, unit: string): void;
  /** Something that the reader must know: what was not here, what was chosen. */
  note(text: string): void;
}
