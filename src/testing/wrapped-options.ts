import type { FaultBoardHandle } from './fault-board.js';

/** The key under which a registration's options carry what the wrapper needs. */
const KEY = 'khorus/testing';

/** Where an instance of a wrapped driver finds the faults, and its journal. */
export interface WrappedOptions {
  readonly board: FaultBoardHandle;
  /** The journal of the registration's first instance. */
  readonly firstJournal: number;
  /** Index of that instance within its driver. */
  readonly firstIndex: number;
  /** The driver's own. */
  readonly options: unknown;
}

/** Options for a wrapped driver; structured-cloneable as long as `options` are. */
export function wrapOptions(wrapped: WrappedOptions): Record<string, unknown> {
  return { [KEY]: wrapped };
}

/** What {@link wrapOptions} made; undefined for other options. */
export function unwrapOptions(raw: unknown): WrappedOptions | undefined {
  return typeof raw === 'object' && raw !== null && KEY in raw ? (raw[KEY] as WrappedOptions) : undefined;
}
