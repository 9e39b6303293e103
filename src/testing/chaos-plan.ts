import type { DriverRegistration, HostOptions, RunPlan } from '../coordinator/index.js';
import { type Mode, Random } from '../workers/index.js';
import { type ChaosPath, describePath, randomPath } from './chaos-path.js';
import type { DriverToTest } from './driver-to-test.js';
import {
  DEADLY_KINDS,
  FAULT_CALLBACKS,
  FAULT_KINDS,
  type Fault,
  type FaultCallback,
  type FaultKind,
  impossible,
  ROLLBACK_CALLBACKS,
} from './fault.js';
import type { HarnessOptions } from './harness-options.js';

/** Things that go wrong elsewhere than in a callback. */
export const OUTER_FAULTS = [
  'host out of pages',
  'driver gone in the successor',
  'unknown compatible in the successor',
] as const;
export type OuterFault = (typeof OUTER_FAULTS)[number];
/** Everything that chaos can do, by the name under which it is counted. */
export type ChaosKind = FaultKind | OuterFault;
export const CHAOS_KINDS: readonly ChaosKind[] = [...FAULT_KINDS, ...OUTER_FAULTS];

/** One run: a function of seed and index alone, and of the scenario if there is one. */
export interface ChaosPlan {
  readonly harness: Omit<HarnessOptions, 'threads' | 'clock' | 'workers'> & { readonly workers: number };
  readonly path: ChaosPath;
  readonly faults: readonly Fault[];
  readonly outer?: OuterFault;
  /** For an outer fault of the successor: the driver that it concerns, by its name and its entry. */
  readonly outerDriver?: ChaosDriver;
  /** For `host out of pages`: how many are left. */
  readonly pagesLeft?: number;
}

/** A driver that chaos may use, or that the user's scenario has. */
export interface ChaosDriver {
  readonly name: string;
  readonly hosted: boolean;
  readonly entry: DriverToTest;
}

/** A user's scenario, as far as chaos takes it over. */
export interface ChaosScenario {
  readonly host: HostOptions;
  readonly plan: Pick<RunPlan, 'profile' | 'seed' | 'fdtMax'>;
  readonly mode?: Mode;
  readonly workers?: number;
  readonly drivers: readonly DriverRegistration[];
  /** What the drivers are, in the order of the entries. */
  readonly described: readonly { readonly name: string; readonly hosted: boolean }[];
}

const own = (origin: string) => ({ origin, url: new URL(`./drivers/${origin}.js`, import.meta.url).href });
/** Often the small ones of our own: a run is to take no longer than its faults do. */
const PADS = [
  { name: 'pad', hosted: false, use: own('pad') },
  { name: 'live-pad', hosted: true, use: own('live-pad') },
];
const BUILT_IN: readonly { name: string; options: (random: Random) => unknown }[] = [
  { name: 'netdevsim', options: (random) => ({ queues: 1 + random.below(20) }) },
  { name: 'iommu', options: () => ({ regions: 1, pages: 4, superpages: 0, devices: 1 }) },
  { name: 'vfio-pci', options: () => ({}) },
  { name: 'kvm-vcpu', options: () => ({}) },
  { name: 'ftrace', options: () => ({ cpus: 2, pages: 2 }) },
];
const HOSTED_BUILT_IN = 'kvm-vcpu';
const MEMORY = 128 * 2 ** 20;
/** Mode `sequential` costs a thread of its own for every run. */
const OFTEN: readonly Mode[] = ['hash', 'subfdt', 'hash', 'subfdt', 'hash', 'subfdt', 'hash', 'hash', 'sequential'];
/** Room for the one FDT of the series: their own default is larger than the scratch of so small a host. */
const FDT_ROOM = 2 ** 20;
/** Pages that even the smallest run has to reserve. */
const PAGES_LEFT = 40;

/** The run number `index` of a seed. */
export function chaosPlan(seed: number, index: number, scenario?: ChaosScenario): ChaosPlan {
  const random = new Random(`chaos/${seed}/${index}`);
  const drivers = scenario === undefined ? randomDrivers(random) : scenarioDrivers(scenario);
  const harness = harnessOptions(random, drivers, scenario);
  const path = randomPath(
    random,
    drivers.map(({ name, entry }) => ({ name, after: entry.after ?? [] })),
  );
  const outer = random.oneIn(16) ? random.pick(OUTER_FAULTS) : undefined;
  if (outer === 'host out of pages') {
    return { harness, path, faults: [], outer, pagesLeft: random.below(PAGES_LEFT) };
  }
  if (outer !== undefined) {
    return { harness, path: 'handover', faults: [], outer, outerDriver: pick(random, drivers) };
  }
  return { harness, path, faults: randomFaults(random, drivers) };
}

/** What a plan does, in a line: for whoever must understand a run that failed. */
export function describePlan({ harness, path, faults, outer, outerDriver, pagesLeft }: ChaosPlan): string {
  const { mode, profile, workers, drivers, trigger, onShutdownFailure } = harness;
  const how = [trigger, onShutdownFailure].map((word) => (word === undefined ? '' : ` ${word}`)).join('');
  const entries = drivers.map(
    ({ use, count = 1 }) => `${count} ${typeof use === 'object' && 'origin' in use ? use.origin : String(use)}`,
  );
  const points = faults.map(({ driver, instance, shard, callback, fault, when = 'before', times = 1 }) => {
    const where = [instance ?? 'any', ...(shard === undefined ? [] : [`shard ${shard}`])].join(' ');
    return `'${fault}' ${when} ${callback} of ${driver} ${where}${times === 1 ? '' : ` x${times}`}`;
  });
  const more =
    outer === undefined ? [] : [[outer, outerDriver?.name, pagesLeft].filter((part) => part !== undefined).join(' ')];
  return `${mode} ${profile}${how} workers ${workers}; ${entries.join(', ')}; ${describePath(path)}; ${[...points, ...more].join('; ') || 'no fault'}`;
}

function randomDrivers(random: Random): ChaosDriver[] {
  const drivers: ChaosDriver[] = [];
  const wanted = 1 + random.below(3);
  while (drivers.length < wanted) {
    const driver = random.oneIn(8) ? builtIn(random) : pad(random);
    if (drivers.some(({ name }) => name === driver.name)) {
      if (random.oneIn(2)) break;
      continue;
    }
    const after = drivers.filter(() => random.oneIn(2)).map(({ name }) => name);
    const entry = { ...driver.entry, count: 1 + random.below(3), after, priority: random.below(2) };
    drivers.push({ ...driver, entry });
  }
  return drivers;
}

function builtIn(random: Random): ChaosDriver {
  const { name, options } = pick(random, BUILT_IN);
  return { name, hosted: name === HOSTED_BUILT_IN, entry: { use: name, options: options(random) } };
}

function pad(random: Random): ChaosDriver {
  // A hosted driver costs a thread of its own, a third of a second: there are fewer of them.
  const { name, hosted, use } = PADS[random.oneIn(8) ? 1 : 0] as (typeof PADS)[number];
  const options = {
    shards: 1 + random.below(3),
    pages: 1 + random.below(5),
    nodes: random.below(6),
    forgetful: random.oneIn(4),
  };
  return { name, hosted, entry: { use, options } };
}

function scenarioDrivers({ drivers, described }: ChaosScenario): ChaosDriver[] {
  return drivers.map(({ module, count, options, after, priority }, index) => ({
    ...(described[index] ?? { name: module.origin, hosted: false }),
    entry: { use: module, count, options, after, priority },
  }));
}

function harnessOptions(
  random: Random,
  drivers: readonly ChaosDriver[],
  scenario: ChaosScenario | undefined,
): ChaosPlan['harness'] {
  const entries = drivers.map(({ entry }) => entry);
  const profile = random.oneIn(8) ? pick(random, ['series-v4', 'series-v5'] as const) : 'kho-v4';
  const mode = pick(random, profile === 'kho-v4' ? OFTEN : OFTEN.filter((one) => one !== 'subfdt'));
  const workers = random.pick([1, 2, 2, 3]);
  if (scenario !== undefined) {
    const modes = scenario.plan.profile === 'kho-v4' ? mode : mode === 'subfdt' ? 'hash' : mode;
    return {
      ...scenario.plan,
      host: scenario.host,
      mode: scenario.mode ?? modes,
      workers: scenario.workers ?? workers,
      ...triggerOf(random),
      drivers: entries,
    };
  }
  return {
    host: { memory: MEMORY, nodes: 1 + random.below(2) },
    mode,
    profile,
    workers,
    seed: random.below(1000),
    ...triggerOf(random),
    ...(profile !== 'kho-v4' && { fdtMax: FDT_ROOM }),
    drivers: entries,
  };
}

/** What begins the blackout, and what a driver that cannot be shut down means. */
function triggerOf(random: Random): Pick<ChaosPlan['harness'], 'trigger' | 'onShutdownFailure'> {
  if (!random.oneIn(2)) return {};
  return { trigger: 'shutdown', ...(random.oneIn(3) && { onShutdownFailure: 'proceed' }) };
}

function randomFaults(random: Random, drivers: readonly ChaosDriver[]): Fault[] {
  const count = random.oneIn(20) ? 0 : random.oneIn(5) ? 2 : 1;
  const faults = Array.from({ length: count }, () => randomFault(random, drivers));
  // Callbacks of rolling back run only if there is something to roll back for.
  if (faults.some(({ callback }) => ROLLBACK_CALLBACKS.has(callback))) {
    const callback = random.pick(['freeze', 'serialize'] as const);
    faults.push({ driver: pick(random, drivers).name, callback, fault: 'throw' });
  }
  return faults;
}

function randomFault(random: Random, drivers: readonly ChaosDriver[]): Fault {
  const { name, hosted, entry } = pick(random, drivers);
  const callback = pick(random, FAULT_CALLBACKS);
  const fault = randomKind(random, callback, hosted);
  return {
    driver: name,
    callback,
    fault,
    ...(random.oneIn(2) && { instance: random.below(entry.count ?? 1) }),
    when: random.pick(['before', 'midway', 'after']),
    ...(random.oneIn(4) && { times: 2 }),
  };
}

/** A thread that is lost takes long to replace, and filling a heap longer: so these are done less often. */
function randomKind(random: Random, callback: FaultCallback, hosted: boolean): FaultKind {
  for (;;) {
    const kind = pick(random, FAULT_KINDS);
    if (DEADLY_KINDS.has(kind) && !random.oneIn(kind === 'out of memory' ? 8 : 3)) continue;
    if (kind === 'late write' && !hosted) continue;
    if (impossible(kind, callback) === undefined) return kind;
  }
}

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)] as T;
}
