import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { text as readText } from 'node:stream/consumers';
import type { z } from 'zod';
import type { PhaseTimes } from '../coordinator/phase-times.js';
import type {
  Budget,
  DriverRegistration,
  HostOptions,
  LateWritePolicy,
  RunPlan,
  ShutdownFailurePolicy,
  Trigger,
} from '../coordinator/plan.js';
import { KhoError } from '../errors.js';
import type { DriverModule } from '../workers/run-description.js';
import { resolveDriver } from './driver-module.js';
import { findOrderProblems } from './driver-order.js';
import { openInput, untilAborted } from './input.js';
import { ScenarioDocument } from './scenario-document.js';
import { CAPTURED_DRIVERS, hostOf, hostProblems } from './scenario-host.js';
import { type ScenarioProblem, scenarioError } from './scenario-problem.js';
import { DRIVERS_FORM, describeIssue, scenarioSchema } from './scenario-schema.js';

/** A scenario file, checked and with its defaults; {@link planOf} adds what the command line says. */
export interface Scenario {
  /** As it was named by the user. */
  readonly file: string;
  readonly host: HostOptions;
  readonly profile: RunPlan['profile'];
  readonly fdtMax?: number;
  readonly mode?: RunPlan['mode'];
  readonly workers?: number;
  readonly seed: number;
  readonly budget?: Budget;
  readonly trigger?: Trigger;
  readonly onShutdownFailure?: ShutdownFailurePolicy;
  readonly lateWrites?: LateWritePolicy;
  /** Milliseconds. */
  readonly callbackLimit?: number;
  readonly drivers: readonly DriverRegistration[];
  /** Sentences about a captured machine: what is not as it was. */
  readonly notices?: readonly string[];
}

export interface ParseScenarioOptions {
  /** How the file is named in messages. */
  readonly file: string;
  /** Where relative paths and packages of drivers are looked for; default: where `file` is. */
  readonly directory?: string;
  /** The drivers that are named without a path: `origin` is the name. */
  readonly builtIn: readonly DriverModule[];
}

/**
 * A scenario from its YAML text. KHO_ESCENARIO reports everything that is wrong at once, one line a problem, each with
 * file, line, column and field; the error's details are those of the first. The options of drivers are not checked:
 * each driver does that itself. `host.from` is read too: the errors of readCapturedMachine().
 */
export function parseScenario(text: string, { file, directory, builtIn }: ParseScenarioOptions): Scenario {
  const document = new ScenarioDocument(text);
  if (document.problems.length > 0) throw scenarioError(file, document.problems);

  const parsed = scenarioSchema.safeParse(document.value);
  const entries = driverEntries(document.value);
  const problems = parsed.success ? [] : schemaProblems(document, parsed.error.issues);
  problems.push(...hostProblems(document));

  const from = resolve(directory ?? dirname(file));
  const modules = entries.map(({ use }, index) => {
    if (use === undefined) return undefined;
    try {
      return resolveDriver(use, from, builtIn);
    } catch (error) {
      problems.push(document.problem(KhoError.from(error).message, ['drivers', index, 'use']));
      return undefined;
    }
  });
  const ordered = entries.map(({ after }, index) => {
    const module = modules[index];
    return { after, ...(module !== undefined && builtIn.includes(module) && { name: module.origin }) };
  });
  const captured = valueAt(document.value, ['host', 'from']) === undefined ? [] : CAPTURED_DRIVERS;
  for (const { what, entry, index } of findOrderProblems(ordered, captured)) {
    problems.push(document.problem(what, ['drivers', entry, 'after', index]));
  }
  if (!parsed.success || problems.length > 0) throw scenarioError(file, problems);

  const { profile, fdtMax, mode, workers, seed, budget, drivers = [] } = parsed.data;
  const { trigger, onShutdownFailure, lateWrites, callbackLimit } = parsed.data;
  const registrations = drivers.flatMap((driver, index): DriverRegistration[] => {
    const { count, options, after, priority, budget: limit, freezeEarly } = driver;
    const module = modules[index];
    const where = `${file}:${document.locate(['drivers', index]).line}`;
    if (module === undefined) return [];
    const early = { ...(limit !== undefined && { budget: limit }), ...(freezeEarly && { freezeEarly }) };
    return [{ module, count, options: options ?? {}, after, priority, ...early, where }];
  });
  const where = `${file}:${document.locate(['host', 'from'], 'key').line}`;
  const { host, devices, notices } = hostOf(parsed.data.host, from);
  const captives = devices.map(({ use, options }): DriverRegistration => {
    return { module: resolveDriver(use, from, builtIn), count: 1, options, after: [], priority: 0, where };
  });
  if (captives.length + registrations.length === 0) {
    const what = `the captured machine has no devices, and there are no drivers; expected ${DRIVERS_FORM}`;
    throw scenarioError(file, [document.problem(what, ['drivers'])]);
  }
  return {
    file,
    host,
    profile,
    ...(fdtMax !== undefined && { fdtMax }),
    ...(mode !== undefined && { mode }),
    ...(workers !== undefined && { workers }),
    seed,
    ...(budget !== undefined && { budget: budgetOf(budget) }),
    ...(trigger !== undefined && { trigger }),
    ...(onShutdownFailure !== undefined && { onShutdownFailure }),
    ...(lateWrites !== undefined && { lateWrites }),
    ...(callbackLimit !== undefined && { callbackLimit }),
    drivers: [...captives, ...registrations],
    ...(notices.length > 0 && { notices }),
  };
}

/**
 * {@link parseScenario} of a file, or of `stdin` for the path `-`; then drivers are looked for from the working directory.
 * The file may be a pipe, and `signal` ends the wait for what comes through it. KHO_ENOENT or KHO_EIO if it cannot be read; the
 * reason of an abort.
 */
export async function loadScenario(
  path: string,
  { builtIn, stdin, signal }: { builtIn: readonly DriverModule[]; stdin?: Readable; signal?: AbortSignal },
): Promise<Scenario> {
  if (path === '-') {
    const text = await readText(untilAborted(stdin ?? process.stdin, signal));
    return parseScenario(text, { file: '<stdin>', directory: '.', builtIn });
  }
  return parseScenario(await readScenarioFile(path, signal), { file: path, builtIn });
}

/** Without the fields that are not there. */
function budgetOf({ blackout, phases, onOverrun }: z.infer<typeof scenarioSchema>['budget'] & object): Budget {
  const set = Object.entries(phases ?? {}).filter(([, limit]) => limit !== undefined);
  return {
    ...(blackout !== undefined && { blackout }),
    ...(set.length > 0 && { phases: Object.fromEntries(set) }),
    onOverrun,
  };
}

/** What the command line says over the scenario. */
export interface PlanOverrides {
  readonly arch?: HostOptions['arch'];
  readonly profile?: RunPlan['profile'];
  /** Bytes. */
  readonly fdtMax?: number;
  readonly mode?: RunPlan['mode'];
  readonly workers?: number;
  readonly seed?: number;
  /** Milliseconds. */
  readonly blackout?: number;
  readonly onOverrun?: Budget['onOverrun'];
  readonly trigger?: Trigger;
  readonly onShutdownFailure?: ShutdownFailurePolicy;
  readonly lateWrites?: LateWritePolicy;
  /** Milliseconds. */
  readonly callbackLimit?: number;
  /** What earlier runs took. */
  readonly earlier?: readonly PhaseTimes[];
}

/**
 * The whole plan: the command line before the scenario before the defaults (mode `hash`, a worker for each CPU that this
 * process may use). KHO_EINVAL for a policy on overruns where there is no budget to overrun.
 */
export function planOf(scenario: Scenario, overrides: PlanOverrides = {}): RunPlan {
  const blackout = overrides.blackout ?? scenario.budget?.blackout;
  const hasBudget =
    blackout !== undefined || scenario.budget !== undefined || scenario.drivers.some(({ budget }) => budget);
  if (!hasBudget && overrides.onOverrun !== undefined) {
    throw new KhoError(
      'KHO_EINVAL',
      `--on-overrun needs a budget: give --budget 50ms, or 'budget:' in ${scenario.file}`,
    );
  }
  const onOverrun = overrides.onOverrun ?? scenario.budget?.onOverrun ?? 'cancel';
  const trigger = overrides.trigger ?? scenario.trigger;
  const onShutdownFailure = overrides.onShutdownFailure ?? scenario.onShutdownFailure;
  if (onShutdownFailure !== undefined && trigger !== 'shutdown') {
    const text = "a policy for failures of shutdown needs 'trigger: shutdown' (--trigger shutdown)";
    throw new KhoError('KHO_EINVAL', text, { field: 'onShutdownFailure' });
  }
  const lateWrites = overrides.lateWrites ?? scenario.lateWrites;
  const callbackLimit = overrides.callbackLimit ?? scenario.callbackLimit;
  const fdtMax = overrides.fdtMax ?? scenario.fdtMax;
  return {
    host: overrides.arch === undefined ? scenario.host : { ...scenario.host, arch: overrides.arch },
    profile: overrides.profile ?? scenario.profile,
    ...(fdtMax !== undefined && { fdtMax }),
    mode: overrides.mode ?? scenario.mode ?? 'hash',
    workers: overrides.workers ?? scenario.workers ?? availableParallelism(),
    seed: overrides.seed ?? scenario.seed,
    ...(hasBudget && { budget: { ...scenario.budget, ...(blackout !== undefined && { blackout }), onOverrun } }),
    ...(trigger !== undefined && { trigger }),
    ...(onShutdownFailure !== undefined && { onShutdownFailure }),
    ...(lateWrites !== undefined && { lateWrites }),
    ...(callbackLimit !== undefined && { callbackLimit }),
    ...(overrides.earlier && { earlier: overrides.earlier }),
    drivers: scenario.drivers,
  };
}

function schemaProblems(document: ScenarioDocument, issues: Parameters<typeof describeIssue>[0][]): ScenarioProblem[] {
  return issues.flatMap((issue) =>
    describeIssue(issue, valueAt(document.value, issue.path)).map(({ what, path, of }) =>
      document.problem(what, path, of),
    ),
  );
}

/** The entries of `drivers` as far as they can be read, so that what is wrong between them is told together with the rest. */
function driverEntries(value: unknown): { use?: string; after: readonly string[] }[] {
  const drivers = valueAt(value, ['drivers']);
  if (!Array.isArray(drivers)) return [];
  return drivers.map((entry: unknown) => {
    const use = valueAt(entry, ['use']);
    const after = valueAt(entry, ['after']);
    return {
      ...(typeof use === 'string' && use !== '' && { use }),
      after: Array.isArray(after) && after.every((name) => typeof name === 'string') ? after : [],
    };
  });
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (typeof inner === 'object' && inner !== null ? Reflect.get(inner, key) : undefined),
    value,
  );
}

async function readScenarioFile(file: string, signal: AbortSignal | undefined): Promise<string> {
  try {
    return await readText(untilAborted(openInput(file), signal));
  } catch (error) {
    if (signal?.aborted) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') throw new KhoError('KHO_ENOENT', `there is no scenario ${file}`, { file }, { cause: error });
    const why = code === 'EISDIR' ? 'is a directory; expected a YAML file' : `cannot be read: ${String(code ?? error)}`;
    throw new KhoError('KHO_EIO', `the scenario ${file} ${why}`, { file }, { cause: error });
  }
}
