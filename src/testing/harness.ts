import { AssertionError } from 'node:assert';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Coordinator,
  type Handover,
  type HandoverOptions,
  Host,
  type PhaseSpan,
  type SuccessorReport,
} from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { startSuccessor } from '../successor/index.js';
import type { DriverModule } from '../workers/index.js';
import { testedModule } from './driver-to-test.js';
import { FAULT_CALLBACKS, FAULT_KINDS, type Fault, impossible } from './fault.js';
import { FaultBoard } from './fault-board.js';
import { FaultWatch } from './fault-watch.js';
import { faultyModule } from './faulty-module.js';
import { type HarnessOptions, hostOptions } from './harness-options.js';
import { InstanceJournal } from './instance-journal.js';
import { describeLeaks, type Leaks, leaksOf } from './leaks.js';
import { ManualClock } from './manual-clock.js';
import { type HandedOver, handedOver, type Outcome, type RolledBack, rolledBack } from './outcome.js';
import { TestThreads } from './test-threads.js';
import { wrapOptions } from './wrapped-options.js';

/** What the error of a handover that was rolled back must be; what is absent may be anything. */
export interface ExpectedFailure {
  readonly code?: KhoError['code'];
  readonly driver?: string;
  readonly instance?: string;
  /** The phase in which it failed. */
  readonly phase?: string;
}

/** Milliseconds, of the harness's own clock: no callback takes so long unless it hangs. */
const CALLBACK_LIMIT = 10_000;
/** By how much the clock goes on at a time while something hangs: what does not, has time to end between the steps. */
const CLOCK_STEP = CALLBACK_LIMIT / 4;

/**
 * A host with drivers that is handed over as often as one likes, with faults at named points, and the assertions that tests
 * make on it. It needs no test framework: what does not hold throws an `AssertionError`.
 *
 * @example
 * ```ts
 * import { HandoverHarness } from 'khorus/testing';
 *
 * await using harness = await HandoverHarness.create({ drivers: [{ use: 'netdevsim', count: 2 }] });
 * harness.inject({ driver: 'netdevsim', instance: 1, callback: 'serialize', fault: 'throw' });
 * harness.assertRolledBack(await harness.handover(), { code: 'KHO_EDRIVER', instance: 'netdevsim1' });
 * harness.assertHandedOver(await harness.handover());
 * ```
 */
export class HandoverHarness implements AsyncDisposable {
  readonly host: Host;
  readonly coordinator: Coordinator;
  readonly clock: ManualClock;
  readonly #threads: TestThreads;
  readonly #ownThreads: boolean;
  readonly #board: FaultBoard;
  readonly #journals: readonly { readonly name: string; readonly journal: InstanceJournal }[];
  readonly #processes: boolean;
  readonly #directory: string;
  readonly #freePages: number;
  readonly #struck = new Set<number>();
  #modules = (modules: readonly DriverModule[]): readonly DriverModule[] => modules;
  #phases: PhaseSpan[] = [];
  #inSuccessor = false;
  #last: Outcome | undefined;

  private constructor(options: HarnessOptions, threads: TestThreads, directory: string) {
    const { workers = threads.pool.threads, mode = 'hash', profile = 'kho-v4', seed = 1, drivers } = options;
    this.#threads = threads;
    this.#ownThreads = options.threads === undefined;
    this.#directory = directory;
    this.#processes = options.successor === 'process';
    this.clock = options.clock ?? new ManualClock();
    this.host = new Host(hostOptions(options.host));
    this.#freePages = freePages(this.host);
    this.coordinator = new Coordinator(this.host, {
      mode,
      profile,
      seed,
      workers,
      pool: threads.pool,
      clock: this.clock,
      callbackLimit: CALLBACK_LIMIT,
      ...(threads.resourceLimits && { resourceLimits: threads.resourceLimits }),
      ...(options.fdtMax !== undefined && { fdtMax: options.fdtMax }),
      ...(options.budget && { budget: options.budget }),
      ...(options.trigger && { trigger: options.trigger }),
      ...(options.onShutdownFailure && { onShutdownFailure: options.onShutdownFailure }),
    });
    this.coordinator.events.on('phase-end', ({ phase, start, end }) => this.#phases.push({ phase, start, end }));
    const counts = drivers.map(({ count = 1 }) => count);
    this.#board = FaultBoard.create(counts.reduce((sum, count) => sum + count, 0));
    const journals: { name: string; journal: InstanceJournal }[] = [];
    const byModule = new Map<string, number>();
    for (const { use, count = 1, options: own, after = [], priority = 0, ...rest } of drivers) {
      const module = testedModule(use);
      const firstIndex = byModule.get(module.url) ?? 0;
      byModule.set(module.url, firstIndex + count);
      const seat = { board: this.#board.handle, firstJournal: journals.length, firstIndex };
      this.coordinator.register({
        module: faultyModule(module),
        count,
        options: wrapOptions({ ...seat, options: own }),
        after,
        priority,
        ...rest,
      });
      for (let index = 0; index < count; index++) {
        const journal = new InstanceJournal(this.#board, journals.length);
        journals.push({ name: `${module.origin} #${firstIndex + index}`, journal });
      }
    }
    this.#journals = journals;
  }

  /** Boots the host. Rejects as {@link Host} and {@link Coordinator} do for options that cannot be. */
  static async create(options: HarnessOptions): Promise<HandoverHarness> {
    const directory = await mkdtemp(join(tmpdir(), 'khorus-testing-'));
    const { workers, resourceLimits } = options;
    const threads =
      options.threads ??
      new TestThreads({ ...(workers !== undefined && { workers }), ...(resourceLimits && { resourceLimits }) });
    try {
      return new HandoverHarness(options, threads, directory);
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      if (options.threads === undefined) await threads[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Plans a fault for the handovers to come, beside those that are planned already. AssertionError for one that cannot exist,
   * with the reason.
   */
  inject(fault: Fault): this {
    // One that is misspelt would never strike, and the test that wants it would prove nothing.
    known('fault', fault.fault, FAULT_KINDS);
    known('callback', fault.callback, FAULT_CALLBACKS);
    const why = impossible(fault.fault, fault.callback);
    if (why !== undefined) throw failure(`there is no fault '${fault.fault}' in ${fault.callback}: ${why}`);
    this.#board.add(fault);
    return this;
  }

  /** Forgets the faults that were planned. */
  clearFaults(): this {
    this.#board.clear();
    return this;
  }

  /** The planned faults, with how often each has struck. */
  faults(): readonly (Fault & { readonly struck: number })[] {
    return this.#board.plan.map((fault, number) => ({ ...fault, struck: this.#board.fired(number) }));
  }

  /** What the next successor has of drivers, in place of all that were handed over: some may be missing, or others. */
  successorDrivers(choose: (modules: readonly DriverModule[]) => readonly DriverModule[]): this {
    this.#modules = choose;
    return this;
  }

  /**
   * Hands the host over and restores it in a successor. Never rejects for what went wrong: that is the outcome. The memory
   * of the handover before is given back first.
   */
  async handover(options: HandoverOptions = {}): Promise<Outcome> {
    return await this.attempt((coordinator, abort) => {
      const signal = options.signal === undefined ? abort : AbortSignal.any([options.signal, abort]);
      return coordinator.handover({ ...options, signal });
    });
  }

  /**
   * The same, by calls of one's own on the coordinator. What they have begun and not brought to an end is cancelled. The
   * signal is that of the fault `abort`.
   */
  async attempt(
    work: (coordinator: Coordinator, signal: AbortSignal) => Promise<Handover | undefined>,
  ): Promise<Outcome> {
    this.release();
    this.#board.resetRunning();
    this.#phases = [];
    const abort = new AbortController();
    await using _ = this.#watchFaults(abort);
    let outcome: Outcome;
    try {
      const handover = await work(this.coordinator, abort.signal);
      if (handover === undefined) throw new KhoError('KHO_ECANCELED', 'nothing was handed over');
      this.#last = { state: 'handed over', [Symbol.dispose]: () => handover[Symbol.dispose]() } as Outcome;
      outcome = await this.#restore(handover);
    } catch (error) {
      if (this.coordinator.state !== 'normal') await this.coordinator.cancel();
      outcome = rolledBack(KhoError.from(error), this.coordinator.lastRollback, this.#phases);
    }
    this.#last = outcome;
    return outcome;
  }

  /** Restores a handover once more, from the same image, with whatever faults are planned now. */
  async restoreAgain({ handover }: HandedOver): Promise<HandedOver> {
    await using _ = this.#watchFaults(new AbortController());
    return await this.#restore(handover);
  }

  /** Gives the memory of the last handover back, if one is held. */
  release(): void {
    this.#last?.[Symbol.dispose]();
    if (this.#last?.state === 'handed over') for (const { journal } of this.#journals) journal.reset();
    this.#last = undefined;
  }

  /** What handovers left behind, once the last one is given back. */
  leaks(): Leaks {
    this.release();
    return {
      pages: this.#freePages - freePages(this.host),
      ...leaksOf(this.#journals),
      threads: [...this.#struck].filter((thread) => this.#threads.watch.isAlive(thread)),
    };
  }

  /** AssertionError, with a line for each leak, unless there is none. */
  assertNoLeaks(): void {
    const lines = describeLeaks(this.leaks());
    if (lines.length > 0) throw failure(`the handover left something behind:\n  ${lines.join('\n  ')}`);
  }

  /** The outcome, if everything was handed over and restored; else AssertionError. */
  assertHandedOver(outcome: Outcome): HandedOver {
    if (outcome.state !== 'handed over') {
      throw failure(`expected a handover, but it was rolled back: ${describe(outcome.error)}`, outcome.error);
    }
    if (outcome.failures.length > 0) {
      const lines = outcome.failures.map(({ message, driver, instance }) =>
        [message, driver, instance].filter((part) => part !== undefined).join(' - '),
      );
      throw failure(`handed over, but the successor did not restore everything:\n  ${lines.join('\n  ')}`);
    }
    return outcome;
  }

  /** The outcome, if it was rolled back for the reason that is expected, and nothing is left behind; else AssertionError. */
  assertRolledBack(outcome: Outcome, expected: ExpectedFailure = {}): RolledBack {
    if (outcome.state !== 'rolled back') throw failure('expected that it is rolled back, but it was handed over');
    const { error } = outcome;
    const found: ExpectedFailure = { ...error.details, code: error.code };
    for (const [field, value] of Object.entries(expected) as [keyof ExpectedFailure, string][]) {
      if (found[field] === value) continue;
      throw failure(`expected the ${field} ${value}, found ${found[field]}: ${describe(error)}`, error);
    }
    this.assertNoLeaks();
    return outcome;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    await this.coordinator[Symbol.asyncDispose]();
    if (this.#ownThreads) await this.#threads[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #watchFaults(abort: AbortController): FaultWatch {
    return new FaultWatch({
      board: this.#board,
      workers: this.#threads.watch,
      struck: this.#struck,
      onAbort: () => abort.abort(),
      // Nobody's deadline holds in the next kernel: a hang there is ended by whoever watches it.
      onHang: (thread) => {
        if (this.#inSuccessor) this.#threads.watch.terminate(thread);
        else this.clock.advance(CLOCK_STEP);
      },
    });
  }

  async #restore(handover: Handover): Promise<HandedOver> {
    const image = join(this.#directory, 'ram.img');
    await rm(image, { force: true });
    await handover.writeImage(image);
    const input = { image, arch: this.host.options.arch, drivers: this.#modules(handover.modules) };
    const record = handover.record();
    const instances = new Map<string, string[]>(record.drivers.map(({ name }) => [name, []]));
    for (const { driver, name } of record.instances) instances.get(driver)?.push(name);
    let report: SuccessorReport | undefined;
    let died: KhoError | undefined;
    this.#inSuccessor = true;
    try {
      report = this.#processes
        ? await startSuccessor(input)
        : await this.#threads.successor.restore(input, { board: this.#board.handle, instances });
    } catch (error) {
      died = KhoError.from(error);
    } finally {
      this.#inSuccessor = false;
    }
    return handedOver(handover, record, report, died);
  }
}

function freePages(host: Host): number {
  return host.pages.statistics().reduce((sum, { freePages: free }) => sum + free, 0);
}

function describe({ code, message, details }: KhoError): string {
  const { driver, instance, phase } = details;
  const where = [driver, instance, phase].filter((part) => part !== undefined).join(', ');
  return `${code} ${message}${where === '' ? '' : ` (${where})`}`;
}

function failure(message: string, cause?: unknown): AssertionError {
  const error = new AssertionError({ message });
  if (cause !== undefined) error.cause = cause;
  return error;
}

function known(what: string, value: string, values: readonly string[]): void {
  if (!values.includes(value)) throw failure(`there is no ${what} '${value}'; there are ${values.join(', ')}`);
}
