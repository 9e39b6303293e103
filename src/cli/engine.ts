import type { RunPlan } from '../coordinator/plan.js';
import type { FailureRecord, RunRecord, SuccessorReport } from '../coordinator/run-record.js';
import type { Phase } from '../coordinator/timeline.js';
import type { DriverModule } from '../workers/run-description.js';

/** How far a phase has come. */
export interface ProgressEvent {
  readonly phase: Phase;
  /** Callbacks that are done, of `total`. */
  readonly done: number;
  readonly total: number;
}

export interface HandoverOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
  /** Whether a successor is started; default true. */
  readonly successor?: boolean;
}

/** A run that came to its end. It holds shared memory until it is disposed of. */
export interface HandoverResult {
  readonly record: RunRecord;
  readonly outcome: 'handed-over' | 'cancelled';
  readonly overBudget: boolean;
  readonly failures: readonly FailureRecord[];
  /** Writes `kho/out/`, `ram.img` and `run.json` into a directory that exists. */
  writeOutput(directory: string, options?: { signal?: AbortSignal }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What `verify` found. Without a `report`, no successor could restore anything. */
export interface Verification {
  readonly report?: SuccessorReport;
  readonly failures: readonly FailureRecord[];
  /** What could not be checked, and why. */
  readonly notes: readonly string[];
}

/** One FDT as it was found. */
export interface InspectedBlob {
  /** The name of its entry in the root FDT, or of the file. */
  readonly name: string;
  /** Absent when the blob is a file of its own. */
  readonly address?: number;
  readonly size: number;
  readonly compatible?: string;
  /** The tree as DTS text, with decoded addresses in comments; absent for a blob that is no FDT (`kexec-metadata`). */
  readonly dts?: string;
  /** Why there is no tree, if it should be one. */
  readonly problem?: string;
}

/** What `inspect` shows. Parts that the inspected thing does not hold are absent. */
export interface InspectReport {
  /** `fdt`: one blob; `image`: a memory image alone; `directory`: what `run --out` wrote. */
  readonly kind: 'fdt' | 'image' | 'directory';
  /** How the root FDT was found, as the next kernel finds it. */
  readonly bootRecord?: { readonly kind: string; readonly address: number; readonly root: number };
  /** The root FDT: its own tree, and what its subtrees point to. */
  readonly root?: InspectedBlob;
  readonly subtrees?: readonly { readonly name: string; readonly address: number; readonly size: number }[];
  readonly scratch?: readonly { readonly address: number; readonly size: number }[];
  /** Preserved objects by order, ascending; only orders that occur. */
  readonly preserved?: readonly { readonly order: number; readonly objects: number }[];
  readonly blobs: readonly InspectedBlob[];
  /** What is damaged or could not be read. */
  readonly notes: readonly string[];
}

/** What the commands need of khorus; src/run.ts has it, and tests have a fake. */
export interface Engine {
  /** The drivers that a scenario names without a path; `origin` is the name. */
  readonly builtInDrivers: readonly DriverModule[];
  runHandover(plan: RunPlan, options: HandoverOptions): Promise<HandoverResult>;
  verifyDirectory(directory: string, options: { signal?: AbortSignal }): Promise<Verification>;
  inspectPath(path: string, options: { signal?: AbortSignal }): Promise<InspectReport>;
}

/** The engine itself, loaded when a command needs it: `--help` and `time` do not wait for it. */
export async function loadEngine(): Promise<Engine> {
  const specifier = '../run.js';
  return (await import(specifier)) as Engine;
}
