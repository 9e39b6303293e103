import { checkOneFdtRoom, neverReleased, ONE_FDT_ROOM, type Profile, profileNamed } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { type DescribedRegistration, MODES, type Mode, type WorkerPool } from '../workers/index.js';
import type { Handover } from './handover.js';
import { HandoverRun, type ProgressEvent } from './handover-run.js';
import type { Host } from './host.js';
import { Interrupt } from './interrupt.js';
import { Lanes } from './lanes.js';
import { chooseMode, declaredLoad, type HandoverLoad, type ModeChoice, workIn } from './mode-choice.js';
import { checkOneFdt } from './one-fdt.js';
import type { DriverRegistration, RunPlan } from './plan.js';
import { buildRegistry, type Registry } from './registry.js';
import { Reservations } from './reservations.js';
import { phaseDuration, TimelineRecorder } from './timeline.js';

/** How many handovers mode `auto` remembers. */
const RECENT_HANDOVERS = 5;

/** A plan without its drivers and host; mode `auto` needs a calibration for as many workers. */
export type CoordinatorOptions = Pick<
  RunPlan,
  'mode' | 'calibration' | 'workers' | 'seed' | 'profile' | 'fdtMax' | 'budget' | 'kexec'
> & {
  /** A pool to use, and to leave running; without it the coordinator starts one of `workers` threads. */
  readonly pool?: WorkerPool;
};

export interface HandoverOptions {
  /** Aborting rolls back; the handover rejects with the signal's reason if that is a KhoError, else KHO_ECANCELED. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
}

/**
 * Leads a host's handover: registers drivers, runs prepare → freeze → serialize → finalize on worker threads, and rolls
 * everything back if any of it fails. Driver code never runs on the calling thread.
 *
 * One handover at a time (KHO_EBUSY). The threads live until the coordinator is disposed of.
 */
export class Coordinator implements AsyncDisposable {
  readonly host: Host;
  readonly #options: CoordinatorOptions;
  readonly #registrations: DriverRegistration[] = [];
  readonly #lanes: Lanes;
  /** What the last handovers had to do, and work in microseconds; mode `auto` learns from them. */
  #last: HandoverLoad | undefined;
  #recentWork: readonly number[] = [];
  readonly #profile: Profile;
  #busy = false;
  #fdtMax: number;
  /** The last handover that came about; it holds the host's memory until it is disposed of. */
  #handedOver: Handover | undefined;

  /**
   * KHO_EINVAL for a profile that is not known, or a room that no FDT can have; KHO_EOPNOTSUPP for a kernel to load where
   * none speaks the profile.
   */
  constructor(host: Host, options: CoordinatorOptions) {
    this.#profile = profileNamed(options.profile);
    this.#fdtMax = options.fdtMax ?? ONE_FDT_ROOM;
    if (options.mode === 'subfdt' && this.#profile.form === 'one-fdt') {
      const text = `mode subfdt links FDTs to each other, and in profile ${this.#profile.name} all is in one`;
      throw new KhoError('KHO_EINVAL', text, { field: 'mode' });
    }
    if (options.fdtMax !== undefined) this.#checkRoom(options.fdtMax);
    if (options.kexec !== undefined && this.#profile.releases === undefined) throw neverReleased(this.#profile);
    if (options.mode === 'auto' && options.calibration?.workers !== options.workers) {
      const text = `mode auto needs a calibration for ${options.workers} workers: see calibrate()`;
      throw new KhoError('KHO_EINVAL', text, { field: 'calibration' });
    }
    this.host = host;
    this.#options = options;
    this.#lanes = new Lanes(options);
  }

  /** Bytes of room for the one FDT of the series v4 and v5; 10 MiB unless it was set. */
  get fdtMax(): number {
    return this.#fdtMax;
  }

  /**
   * KHO_EBUSY while there is an FDT: during a handover, and until what came of it is disposed of. KHO_EINVAL for what is no
   * room (4 KiB to 256 MiB, a multiple of 4 KiB), and for a profile that has no one FDT.
   */
  set fdtMax(bytes: number) {
    if (this.#busy || this.#handedOver?.released === false) {
      throw new KhoError('KHO_EBUSY', 'the FDT is made: its room cannot be set any more', { field: 'fdtMax' });
    }
    this.#checkRoom(bytes);
    this.#fdtMax = bytes;
  }

  /** Adds instances of a driver. Order matters: it is the order in which state is laid out. */
  register(registration: DriverRegistration): this {
    if (!Number.isSafeInteger(registration.count) || registration.count < 0) {
      throw new KhoError('KHO_EINVAL', `count is ${registration.count}, expected a whole number`, { field: 'count' });
    }
    this.#registrations.push(registration);
    this.#last = undefined;
    this.#recentWork = [];
    return this;
  }

  /**
   * Runs a handover up to the jump. Rejects with the first failure, after rolling back: every driver that had begun was
   * cancelled, all pages are free again, and the next handover can begin. Failures of rolling back itself are in the
   * error's `cause`.
   */
  async handover({ signal, onProgress }: HandoverOptions = {}): Promise<Handover> {
    if (this.#busy) throw new KhoError('KHO_EBUSY', 'a handover of this coordinator is under way');
    this.#busy = true;
    try {
      this.#handedOver = await this.#handover(signal, onProgress ?? (() => {}));
      return this.#handedOver;
    } finally {
      this.#busy = false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lanes[Symbol.asyncDispose]();
  }

  async #handover(signal: AbortSignal | undefined, progress: (event: ProgressEvent) => void): Promise<Handover> {
    const epoch = process.hrtime.bigint();
    const recorder = new TimelineRecorder(epoch);
    using interrupt = new Interrupt(signal);
    interrupt.check();
    let run: HandoverRun | undefined;
    try {
      await recorder.phase('prepare', async () => {
        const registry = await this.#describe(interrupt);
        if (this.#profile.form === 'one-fdt') checkOneFdt(this.#profile, registry);
        const choice = this.#chooseMode(registry);
        const { mode } = choice;
        const reservations = recorder.step('prepare', 'reserve memory', () => {
          return new Reservations(this.host, registry, this.#profile, mode);
        });
        run = new HandoverRun({
          host: this.host,
          options: { ...this.#options, fdtMax: this.#fdtMax, mode },
          ...('predictions' in choice && { choice }),
          registry,
          reservations,
          recorder,
          interrupt,
          progress,
          laneOf: (driver) => this.#lanes.of(registry, driver, mode),
        });
        await run.prepare(epoch);
      });
      if (run === undefined) throw new KhoError('KHO_EINVAL', 'the run was not prepared');
      interrupt.startBudget(this.#options.budget);
      await run.blackout();
      interrupt.stopBudget();
      const handover = await run.finish();
      this.#learn(run);
      return handover;
    } catch (thrown) {
      interrupt.stopBudget();
      const error = KhoError.from(thrown);
      const failures = await recorder.phase('cancel', () => run?.cancel() ?? []);
      if (failures.length === 0) throw error;
      const cause = new AggregateError(failures, 'rolling back failed too');
      throw new KhoError(error.code, error.message, error.details, { cause });
    }
  }

  #checkRoom(bytes: number): void {
    if (this.#profile.form !== 'one-fdt') {
      const text = `the profile ${this.#profile.name} has no one FDT, whose room fdtMax is`;
      throw new KhoError('KHO_EINVAL', text, { field: 'fdtMax' });
    }
    checkOneFdtRoom(bytes);
  }

  #chooseMode({ shards }: Registry): ModeChoice | { readonly mode: Mode } {
    const { mode, calibration } = this.#options;
    if (mode !== 'auto') return { mode };
    if (calibration === undefined) throw new KhoError('KHO_EINVAL', 'mode auto needs a calibration: see calibrate()');
    const candidates = this.#profile.form === 'one-fdt' ? MODES.filter((one) => one !== 'subfdt') : MODES;
    return chooseMode(calibration, this.#last ?? declaredLoad(shards), candidates);
  }

  #learn(run: HandoverRun): void {
    const { calibration } = this.#options;
    // Before the timeline is asked for: that makes all its spans.
    if (this.#options.mode !== 'auto' || calibration === undefined) return;
    const { mode, timeline, stateBytes: bytes, registry } = run;
    const load = { ...declaredLoad(registry.shards), bytes };
    const time = (phaseDuration(timeline, 'serialize') + phaseDuration(timeline, 'finalize')) * 1000;
    // What disturbs a handover makes it longer, never shorter: the least work of the last ones is nearest to the truth.
    this.#recentWork = [...this.#recentWork.slice(-RECENT_HANDOVERS + 1), workIn(calibration.modes[mode], load, time)];
    this.#last = { ...load, work: Math.min(...this.#recentWork), source: 'measured' };
  }

  /** Asks the drivers what they are and need. */
  async #describe(interrupt: Interrupt): Promise<Registry> {
    const main = this.#lanes.main(this.#options.mode);
    const registrations = this.#registrations.map(({ module, count, options }) => ({ module, count, options }));
    const answer = await Promise.race([main.runner.run({ kind: 'describe', registrations }), interrupt.promise]);
    const [failure] = answer.failures;
    if (failure !== undefined) {
      const registration = this.#registrations[failure.position];
      const where = registration?.where === undefined ? {} : { file: registration.where };
      throw KhoError.from(failure.error).with(where);
    }
    return buildRegistry(this.#registrations, answer.values as DescribedRegistration[]);
  }
}
