import { KhoError } from '../errors.js';
import { MODES, type Mode } from '../workers/index.js';
import type { HandoverRun } from './handover-run.js';
import {
  type Calibration,
  chooseMode,
  declaredLoad,
  type HandoverLoad,
  type ModeChoice,
  workIn,
} from './mode-choice.js';
import type { Registry } from './registry.js';
import { phaseDuration } from './timeline.js';

/** How many handovers mode `auto` remembers. */
const RECENT_HANDOVERS = 5;

/** Chooses the mode of each handover: the one that was asked for, or in `auto` by a calibration and what the last ones took. */
export class ModeLearner {
  readonly #mode: Mode | 'auto';
  readonly #calibration: Calibration | undefined;
  readonly #candidates: readonly Mode[];
  /** What the last handovers had to do. */
  #last: HandoverLoad | undefined;
  /** Of each of them, microseconds of work. */
  #recentWork: readonly number[] = [];

  /** `candidates` are the modes that the profile has. KHO_EINVAL for `auto` without a calibration for as many workers. */
  constructor(
    { mode, calibration, workers }: { mode: Mode | 'auto'; calibration?: Calibration; workers: number },
    candidates: readonly Mode[] = MODES,
  ) {
    if (mode === 'auto' && calibration?.workers !== workers) {
      const text = `mode auto needs a calibration for ${workers} workers: see calibrate()`;
      throw new KhoError('KHO_EINVAL', text, { field: 'calibration' });
    }
    this.#mode = mode;
    this.#calibration = calibration;
    this.#candidates = candidates;
  }

  choose({ shards }: Registry): ModeChoice | { readonly mode: Mode } {
    if (this.#mode !== 'auto' || this.#calibration === undefined) return { mode: this.#mode as Mode };
    return chooseMode(this.#calibration, this.#last ?? declaredLoad(shards), this.#candidates);
  }

  learn(run: HandoverRun): void {
    // Before the timeline is asked for: that makes all its spans.
    if (this.#mode !== 'auto' || this.#calibration === undefined) return;
    const { mode, timeline, stateBytes: bytes, registry } = run;
    const load = { ...declaredLoad(registry.shards), bytes };
    const time = (phaseDuration(timeline, 'serialize') + phaseDuration(timeline, 'finalize')) * 1000;
    // What disturbs a handover makes it longer, never shorter: the least work of the last ones is nearest to the truth.
    const work = workIn(this.#calibration.modes[mode], load, time);
    this.#recentWork = [...this.#recentWork.slice(-RECENT_HANDOVERS + 1), work];
    this.#last = { ...load, work: Math.min(...this.#recentWork), source: 'measured' };
  }

  /** The handovers to come have other drivers. */
  forget(): void {
    this.#last = undefined;
    this.#recentWork = [];
  }
}
