import type { Mode } from '../workers/index.js';

/** What a mode costs on a machine with a number of workers. Times in microseconds. */
export interface ModeCosts {
  /** With next to nothing to do: messages, threads that wake up, the root FDT. */
  readonly fixed: number;
  /** For each shard: its callback's context; in mode `subfdt` its own FDT. */
  readonly perShard: number;
  /** For each byte of FDT, the part of `serialize`, on all threads together. */
  readonly perByteSerialize: number;
  /** For each byte of FDT, the part of `finalize`. */
  readonly perByteFinalize: number;
  /** How many times faster than one thread the threads work. */
  readonly parallelism: number;
}

/** What was measured on a machine; the threshold of mode `auto` follows from it. Structured-cloneable, plain JSON. */
export interface Calibration {
  /** What the figures hold for: another machine, Node or number of workers needs its own. */
  readonly machine: string;
  readonly workers: number;
  /** ISO 8601. */
  readonly date: string;
  readonly modes: Readonly<Record<Mode, ModeCosts>>;
}

/** How much is to be handed over. */
export interface HandoverLoad {
  /** Of FDT, without links. */
  readonly bytes: number;
  readonly shards: number;
  /** The part of the largest shard, by declared bytes: it cannot be spread any further. */
  readonly largestShare: number;
  /** What the callbacks do beside writing, in microseconds on one thread. */
  readonly work: number;
  /** `declared`: the bounds of the shards, no work; `measured`: in the coordinator's last handovers of these drivers, the one with the least work. */
  readonly source: 'declared' | 'measured';
}

/** What mode `auto` chose, and why. */
export interface ModeChoice {
  readonly mode: Mode;
  readonly load: HandoverLoad;
  /** Serialize and finalize, in microseconds, the shortest first. */
  readonly predictions: readonly { readonly mode: Mode; readonly time: number }[];
}

/** What can be said of it before: the shards' bounds, and no work. */
export function declaredLoad(shards: readonly { readonly maxBytes: number }[]): HandoverLoad {
  const bytes = shards.reduce((sum, { maxBytes }) => sum + maxBytes, 0);
  const largest = shards.reduce((most, { maxBytes }) => Math.max(most, maxBytes), 0);
  const largestShare = bytes === 0 ? 1 : largest / bytes;
  return { bytes, shards: shards.length, largestShare, work: 0, source: 'declared' };
}

/** The mode for which the calibration predicts the shortest time from the start of serialize to finished blobs. */
export function chooseMode(calibration: Calibration, load: HandoverLoad, candidates: readonly Mode[]): ModeChoice {
  const predictions = candidates
    .map((mode) => ({ mode, time: predictTime(calibration.modes[mode], load) }))
    .sort((a, b) => a.time - b.time);
  return { mode: predictions[0]?.mode ?? 'sequential', load, predictions };
}

/** Microseconds from the start of serialize to finished blobs. */
export function predictTime(costs: ModeCosts, { bytes, shards, largestShare, work }: HandoverLoad): number {
  const serial = costs.fixed + costs.perByteFinalize * bytes;
  const spread = costs.perShard * shards + costs.perByteSerialize * bytes + work;
  return serial + spread * shareOfLongestThread(costs, largestShare);
}

/** The inverse: how much work there was beside the writing, if it took `time`; never below 0. */
export function workIn(costs: ModeCosts, load: Omit<HandoverLoad, 'work' | 'source'>, time: number): number {
  const idle = predictTime(costs, { ...load, work: 0, source: 'measured' });
  return Math.max(0, (time - idle) / shareOfLongestThread(costs, load.largestShare));
}

function shareOfLongestThread({ parallelism }: ModeCosts, largestShare: number): number {
  return Math.max(1 / parallelism, Math.min(1, largestShare));
}

/** The choice in one sentence. */
export function explainChoice({ mode, load, predictions }: ModeChoice): string {
  const size = `${load.shards} shards with ${Math.round(load.bytes / 1024)} KiB`;
  const basis =
    load.source === 'declared'
      ? `${size} at most by declaration, work unknown`
      : `${size} and ${milliseconds(load.work)} of work, as in the handovers before`;
  const times = predictions.map((one) => `${one.mode} ${milliseconds(one.time)}`).join(', ');
  return `auto chose ${mode}: ${basis}; predicted ${times}`;
}

function milliseconds(microseconds: number): string {
  return `${(microseconds / 1000).toFixed(microseconds < 10_000 ? 2 : 1)} ms`;
}
