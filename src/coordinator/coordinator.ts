import { checkLoadable, checkOneFdtRoom, ONE_FDT_ROOM, type Profile, profileNamed } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { MODES } from '../workers/index.js';
import { checkOptions } from './check-options.js';
import { type Clock, SYSTEM_CLOCK } from './clock.js';
import { CALLBACK_LIMIT_MS, type CoordinatorOptions, GRACE_MS, type HandoverOptions } from './coordinator-options.js';
import { Deadline } from './deadline.js';
import { describeDrivers } from './describe-drivers.js';
import { HandoverEvents } from './events.js';
import type { Handover } from './handover.js';
import { HandoverRun } from './handover-run.js';
import type { Host } from './host.js';
import { Interrupt } from './interrupt.js';
import { Lanes } from './lanes.js';
import { Lifecycle, type LifecycleCall, type LifecycleState } from './lifecycle.js';
import { ModeLearner } from './mode-learner.js';
import { checkOneFdt } from './one-fdt.js';
import { PhaseHistory, phaseTimes } from './phase-times.js';
import type { DriverRegistration } from './plan.js';
import { Reservations } from './reservations.js';
import type { RollbackReport } from './rollback-report.js';
import { checkSubBlobs } from './sub-blobs.js';
import { TimelineRecorder } from './timeline.js';

/** A run that has begun, and what ends with it. */
interface OpenRun {
  readonly run: HandoverRun;
  readonly recorder: TimelineRecorder;
  readonly interrupt: Interrupt;
  readonly deadline: Deadline;
}

let coordinators = 0;

/**
 * Leads a host's handover: registers drivers, runs their callbacks on worker threads, and rolls everything back if any of
 * it fails. Driver code never runs on the calling thread.
 *
 * {@link handover} does all of it; the calls that it is made of can be made one by one, in the order of
 * {@link LIFECYCLE_STATES}: a call that the state does not allow is KHO_EINVAL and says what is legal now, one while another
 * is under way KHO_EBUSY. A call that fails has rolled everything back and left the state `normal`, but for those that refuse
 * their arguments: they change nothing. The threads live until the coordinator is disposed of.
 */
export class Coordinator implements AsyncDisposable {
  readonly host: Host;
  /** What happens, as it happens. */
  readonly events: HandoverEvents;
  readonly #options: CoordinatorOptions;
  readonly #id = `coordinator-${++coordinators}`;
  readonly #clock: Clock;
  readonly #registrations: DriverRegistration[] = [];
  readonly #lanes: Lanes;
  readonly #lifecycle: Lifecycle;
  readonly #history: PhaseHistory;
  /** Counts what makes the hosted drivers' states new: handovers, and drivers that join. */
  #generation = 0;
  readonly #modes: ModeLearner;
  readonly #profile: Profile;
  #fdtMax: number;
  #open: OpenRun | undefined;
  /** Ends what is under way, also before there is a run. */
  #interrupt: Interrupt | undefined;
  #underWay: Promise<unknown> | undefined;
  /** A whole handover that is under way, also between two of its calls. */
  #whole: Promise<Handover> | undefined;
  #disposed = false;
  #lastRollback: RollbackReport | undefined;
  /** The last handover that came about; it holds the host's memory until it is disposed of. */
  #handedOver: Handover | undefined;

  /**
   * KHO_EINVAL for a profile that is not known, a room that no FDT can have, and an option that is none of its values, with
   * the field; KHO_EOPNOTSUPP for a kernel to load where those that there are do not speak the profile.
   */
  constructor(host: Host, options: CoordinatorOptions) {
    checkOptions(options);
    this.#profile = profileNamed(options.profile);
    this.#fdtMax = options.fdtMax ?? ONE_FDT_ROOM;
    if (options.mode === 'subfdt' && this.#profile.form === 'one-fdt') {
      const text = `mode subfdt links FDTs to each other, and in profile ${this.#profile.name} all is in one`;
      throw new KhoError('KHO_EINVAL', text, { field: 'mode' });
    }
    if (options.fdtMax !== undefined) this.#checkRoom(options.fdtMax);
    if (options.kexec !== undefined) checkLoadable(this.#profile);
    const isOneFdt = this.#profile.form === 'one-fdt';
    this.#modes = new ModeLearner(options, isOneFdt ? MODES.filter((mode) => mode !== 'subfdt') : MODES);
    this.host = host;
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#history = new PhaseHistory(options.earlier);
    this.events = new HandoverEvents(options.performanceMarks);
    this.#lifecycle = new Lifecycle((from, to) => this.events.stateChanged(from, to));
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
    if (this.#lifecycle.underWay !== undefined || this.state !== 'normal') {
      throw new KhoError('KHO_EBUSY', 'the FDT is made: its room cannot be set any more', { field: 'fdtMax' });
    }
    this.#checkRoom(bytes);
    this.#fdtMax = bytes;
  }

  /** Where the coordinator is: see {@link LIFECYCLE_STATES}. */
  get state(): LifecycleState {
    if (this.#lifecycle.state === 'handed over' && this.#handedOver?.released !== false)
      this.#lifecycle.enter('normal');
    return this.#lifecycle.state;
  }

  /** The root FDT, or the one FDT, once it is finalized: a copy. KHO_ENOENT before, and after what was handed over is gone. */
  fdt(): Uint8Array {
    const fdt = this.state === 'handed over' ? this.#handedOver?.blob('fdt') : this.#open?.run.fdt();
    if (fdt === undefined) throw new KhoError('KHO_ENOENT', `there is no FDT in state '${this.state}'`);
    return fdt;
  }

  /** What came of the last time that something was rolled back. */
  get lastRollback(): RollbackReport | undefined {
    return this.#lastRollback;
  }

  /** Adds instances of a driver; in state `normal`. Order matters: it is the order in which state is laid out. */
  register(registration: DriverRegistration): this {
    this.#check('register');
    const { count, budget, priority } = registration;
    if (!Number.isSafeInteger(count) || count < 0) {
      throw new KhoError('KHO_EINVAL', `count is ${count}, expected a whole number`, { field: 'count' });
    }
    if (!Number.isFinite(priority)) {
      throw new KhoError('KHO_EINVAL', `priority is ${priority}, expected a number`, { field: 'priority' });
    }
    if (budget !== undefined && !(budget > 0)) {
      throw new KhoError('KHO_EINVAL', `budget is ${budget}, expected milliseconds, more than 0`, { field: 'budget' });
    }
    this.#registrations.push(registration);
    this.#generation++;
    this.#modes.forget();
    if (this.#options.earlier === undefined) this.#history.clear();
    return this;
  }

  /**
   * Runs a handover up to the jump: all the calls below. Rejects with the first failure, after rolling back: every driver
   * that had begun was cancelled, all pages are free again, and the next handover can begin. Failures of rolling back itself
   * are in the error's `cause`.
   */
  async handover(options: HandoverOptions = {}): Promise<Handover> {
    this.#check('prepare');
    this.#whole = this.#allOfIt(options);
    try {
      return await this.#whole;
    } finally {
      this.#whole = undefined;
    }
  }

  async #allOfIt(options: HandoverOptions): Promise<Handover> {
    await this.prepare(options);
    const early = this.#open?.run.registry.drivers.filter(({ freezeEarly }) => freezeEarly).map(({ name }) => name);
    if (early !== undefined && early.length > 0) await this.freezeEarly(early);
    if (this.#options.trigger === 'shutdown') {
      await this.shutdown();
    } else {
      await this.freeze();
      await this.serialize();
    }
    await this.finalize();
    return await this.jump();
  }

  /**
   * Normal → prepared. Brownout, the machines run: drivers are asked what they need, memory is reserved, threads attach, and
   * every driver prepares.
   */
  async prepare(options: HandoverOptions = {}): Promise<void> {
    await this.#call('prepare', async () => {
      const { interrupt } = await this.#begin(options);
      interrupt.check();
    });
  }

  /** In state prepared: these drivers, or all, bring their early state up to date ({@link Driver.update}). */
  async update(names?: readonly string[]): Promise<void> {
    await this.#onDrivers('update', names, (run, drivers) => run.update(drivers));
  }

  /**
   * In state prepared: freezes drivers before the blackout, all of them in parallel; it will skip them. They refuse further
   * nodes and pages (KHO_EBUSY). KHO_EBUSY for a driver that is frozen already, KHO_ENOENT for one that is not in the run,
   * KHO_EINVAL for one that comes after a driver which is not frozen; for all that was handed over, KHO_EINVAL.
   */
  async freezeEarly(names: readonly string[]): Promise<void> {
    await this.#onDrivers('freezeEarly', names, (run, drivers) => run.freezeEarly(drivers));
  }

  /** In state prepared: undoes {@link freezeEarly}. KHO_EINVAL for a driver that is not frozen. */
  async unfreeze(names: readonly string[]): Promise<void> {
    await this.#onDrivers('unfreeze', names, (run, drivers) => run.unfreeze(drivers));
  }

  /**
   * Prepared → frozen: the blackout begins. All drivers stop, dependencies first. The threads of the pool stand by from here
   * to the jump: other coordinators that share it wait meanwhile.
   */
  async freeze(): Promise<void> {
    await this.#step('freeze', async ({ run, deadline }) => {
      await run.standBy();
      deadline.begin();
      await run.freeze();
    });
  }

  /** Frozen → serialized: every shard writes its state. */
  async serialize(): Promise<void> {
    await this.#step('serialize', ({ run }) => run.serialize());
  }

  /**
   * Prepared → serialized, the other way: the blackout begins with the shutdown of devices, dependents first, and each driver
   * freezes and serializes as soon as it is down, while others still shut down.
   */
  async shutdown(): Promise<void> {
    await this.#step('shutdown', async ({ run, deadline }) => {
      deadline.begin();
      await run.shutdown();
    });
  }

  /** Serialized → finalized: the FDTs are made, on this thread or the one that serialized. */
  async finalize(): Promise<void> {
    await this.#step('finalize', ({ run }) => run.finalize());
  }

  /** Finalized → handed over: a successor would find everything now. What this resolves with holds the host's memory. */
  async jump(): Promise<Handover> {
    return await this.#step('jump', async (open) => {
      const handover = await open.run.jump();
      this.#modes.learn(open.run);
      this.#history.add(phaseTimes(open.recorder.timeline));
      this.#generation++;
      this.#close(open);
      this.#handedOver = handover;
      return handover;
    });
  }

  /**
   * Any state before handed over → normal. Undoes everything in reverse. While a call is under way it interrupts that one,
   * which rejects with `reason` (default KHO_ECANCELED) when all is rolled back.
   */
  async cancel(reason = new KhoError('KHO_ECANCELED', 'the handover was cancelled')): Promise<RollbackReport> {
    const underWay = this.#whole ?? this.#underWay;
    if (underWay !== undefined) {
      this.#interrupt?.end(reason);
      const before = this.#lastRollback;
      await underWay.catch(() => {});
      // What was under way may have been done before it could be interrupted.
      if (this.#lastRollback !== before && this.#lastRollback !== undefined) return this.#lastRollback;
    }
    this.#check('cancel');
    return await this.#track(this.#lifecycle.run('cancel', () => this.#rollBack(reason, this.#lifecycle.state)));
  }

  /** Rolls back what is under way, and ends the threads. What was handed over stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    if ((this.#whole ?? this.#underWay ?? this.#open) !== undefined) await this.cancel().catch(() => {});
    this.#disposed = true;
    await this.#lanes[Symbol.asyncDispose]();
  }

  #check(call: LifecycleCall): void {
    if (this.#disposed) throw new KhoError('KHO_EINVAL', `${call}(): the coordinator was disposed of`, { call });
    void this.state; // a handover that was disposed of has made it normal
    if (this.#handedOver?.spent === true) {
      const text = `${call}() is not legal any more: the next kernel has taken over, so make a coordinator for its host`;
      throw new KhoError('KHO_EINVAL', text, { call, phase: this.state });
    }
    this.#lifecycle.check(call);
  }

  /** What is under way, for {@link cancel} to wait for. */
  async #track<T>(work: Promise<T>): Promise<T> {
    this.#underWay = work;
    try {
      return await work;
    } finally {
      this.#underWay = undefined;
    }
  }

  /** Runs a call of the state machine; if it fails, everything is rolled back. */
  async #call<T>(call: LifecycleCall, work: () => Promise<T>): Promise<T> {
    this.#check(call);
    const from = this.#lifecycle.state;
    const guarded = async (): Promise<T> => {
      try {
        return await work();
      } catch (thrown) {
        const error = KhoError.from(thrown);
        const { failures } = await this.#rollBack(error, from);
        this.#lifecycle.enter('normal');
        if (failures.length === 0) throw error;
        const cause = new AggregateError(
          failures.map((failure) => KhoError.from(failure)),
          'rolling back failed too',
        );
        throw new KhoError(error.code, error.message, error.details, { cause });
      }
    };
    return await this.#track(this.#lifecycle.run(call, guarded));
  }

  #step<T>(call: LifecycleCall, work: (open: OpenRun) => Promise<T>): Promise<T> {
    return this.#call(call, async () => {
      const open = this.#opened();
      open.interrupt.check();
      return await work(open);
    });
  }

  async #onDrivers(
    call: LifecycleCall,
    names: readonly string[] | undefined,
    work: (run: HandoverRun, drivers: readonly number[]) => Promise<void>,
  ): Promise<void> {
    this.#check(call);
    const { run } = this.#opened();
    const all = run.registry.drivers;
    const chosen = names?.map((name) => {
      const driver = all.find((candidate) => candidate.name === name);
      if (driver !== undefined) return driver.index;
      throw new KhoError('KHO_ENOENT', `there is no driver '${name}' in this run`, { driver: name, call });
    });
    const drivers = [...new Set(chosen ?? all.map(({ index }) => index))];
    run.checkCall(call, drivers);
    await this.#step(call, () => work(run, drivers));
  }

  #opened(): OpenRun {
    if (this.#open === undefined) throw new KhoError('KHO_EINVAL', 'the run was not prepared');
    return this.#open;
  }

  #close({ interrupt, deadline }: OpenRun): void {
    deadline[Symbol.dispose]();
    interrupt[Symbol.dispose]();
    this.#open = undefined;
    this.#interrupt = undefined;
  }

  /** Begins a run, and prepares it. */
  async #begin({ signal, onProgress }: HandoverOptions): Promise<OpenRun> {
    const epoch = process.hrtime.bigint();
    this.events.begin();
    const recorder = new TimelineRecorder(epoch, this.events);
    const interrupt = new Interrupt(signal);
    this.#interrupt = interrupt;
    interrupt.check();
    const { budget, callbackLimit = CALLBACK_LIMIT_MS, grace = GRACE_MS } = this.#options;
    return await recorder.phase('prepare', async () => {
      const driverBudgets: (number | undefined)[] = [];
      const clock = this.#clock;
      const deadline = new Deadline({ clock, interrupt, budget, driverBudgets, history: this.#history });
      using _ = deadline.phase('prepare');
      // That loads modules, which takes longer than a callback may be allowed to.
      const { runner } = this.#lanes.main(this.#options.mode);
      const limit = Math.max(callbackLimit, CALLBACK_LIMIT_MS);
      const registry = await describeDrivers(this.#registrations, { runner, clock, limit, interrupt });
      driverBudgets.push(...registry.drivers.map((driver) => driver.budget));
      if (this.#profile.form === 'one-fdt') checkOneFdt(this.#profile, registry);
      else checkSubBlobs(this.#profile, registry);
      const choice = this.#modes.choose(registry);
      const { mode } = choice;
      const reservations = recorder.step('prepare', 'reserve memory', () => {
        return new Reservations(this.host, registry, this.#profile, mode);
      });
      const run = new HandoverRun({
        host: this.host,
        options: { ...this.#options, fdtMax: this.#fdtMax, mode },
        ...('predictions' in choice && { choice }),
        registry,
        reservations,
        recorder,
        interrupt,
        deadline,
        clock,
        callbackLimit,
        grace,
        events: this.events,
        generation: `${this.#id}.${this.#generation}`,
        progress: onProgress ?? (() => {}),
        laneOf: (driver) => this.#lanes.of(registry, driver, mode),
      });
      this.#open = { run, recorder, interrupt, deadline };
      await run.prepare(epoch);
      return this.#open;
    });
  }

  async #rollBack(reason: KhoError, from: LifecycleState): Promise<RollbackReport> {
    const open = this.#open;
    open?.deadline[Symbol.dispose]();
    const outcome = await open?.recorder.phase('cancel', () => open.run.cancel());
    if (open !== undefined) this.#close(open);
    this.#interrupt?.[Symbol.dispose]();
    this.#interrupt = undefined;
    const report = { reason: reason.toJSON(), from, failures: [], reclaimed: [], ...outcome };
    this.#lastRollback = report;
    this.events.rolledBack(report);
    return report;
  }

  #checkRoom(bytes: number): void {
    if (this.#profile.form !== 'one-fdt') {
      const text = `the profile ${this.#profile.name} has no one FDT, whose room fdtMax is`;
      throw new KhoError('KHO_EINVAL', text, { field: 'fdtMax' });
    }
    checkOneFdtRoom(bytes);
  }
}
