import { isOfShards, type TaskPhase } from '../workers/index.js';
import type { Registry } from './registry.js';
import type { Phase } from './timeline.js';
import type { PhaseStep } from './work-group.js';

/** The steps of a piece of work, once it is known under which phase the timeline counts them. */
export type StepPlan = (recordAs: Phase, collectFailures?: boolean) => readonly PhaseStep[];

type GrowingStep = PhaseStep & { after: PhaseStep[] };

/** Each driver after those that it names in `after`. All drivers, unless some are given. */
export function forward(registry: Registry, phase: TaskPhase, drivers?: readonly number[]): StepPlan {
  return ordered(registry, phase, drivers, (driver) => registry.drivers[driver]?.after ?? []);
}

/** Undoing: each driver after those that come after it, and its instances last to first. */
export function backward(
  registry: Registry,
  phase: TaskPhase,
  drivers?: readonly number[],
  keep: (instance: number) => boolean = () => true,
): StepPlan {
  const plan = ordered(registry, phase, drivers, (driver) => dependentsOf(registry, driver));
  return (recordAs, collectFailures) =>
    plan(recordAs, collectFailures)
      .reverse()
      .map((step) => Object.assign(step, { items: step.items.filter(keep).reverse() }));
}

/** All at once. */
export function inParallel(registry: Registry, phase: TaskPhase, drivers?: readonly number[]): StepPlan {
  return ordered(registry, phase, drivers, () => []);
}

/**
 * Serialization during shutdown: for each driver shutdown, freeze, serialize, one after another. Shutdown comes after that of
 * the drivers which come after it, in the order of the kernel's device_shutdown(); the rest waits for nobody else.
 */
export function shutdownSteps(
  registry: Registry,
  options: {
    /** Whether the driver was frozen before: then it is down. */
    readonly isDown: (driver: number) => boolean;
    readonly hasShutdown: (driver: number) => boolean;
    /** Whether a shutdown that fails ends it all. */
    readonly proceed: boolean;
  },
): PhaseStep[] {
  const { isDown, hasShutdown, proceed } = options;
  const all = registry.drivers.map(({ index }) => index);
  const down = ordered(registry, 'shutdown', all, (driver) => dependentsOf(registry, driver));
  const shutdowns = [...down('shutdown', proceed)].reverse().map((step) => {
    const skipped = isDown(step.driver) || !hasShutdown(step.driver);
    return Object.assign(step, skipped && { items: [] });
  });
  return shutdowns.flatMap((shutdown): PhaseStep[] => {
    const { driver } = shutdown;
    const items = isDown(driver) ? [] : itemsOf(registry, 'freeze', driver);
    const freeze: PhaseStep = { driver, phase: 'freeze', recordAs: 'freeze', items, after: [shutdown] };
    const shards = itemsOf(registry, 'serialize', driver);
    return [shutdown, freeze, { driver, phase: 'serialize', recordAs: 'serialize', items: shards, after: [freeze] }];
  });
}

/**
 * A step for each driver in the order of dependencies, each after those of `before`. Drivers that are not among `drivers`
 * have nothing to do, but keep the order of those that wait for them.
 */
function ordered(
  registry: Registry,
  phase: TaskPhase,
  drivers: readonly number[] | undefined,
  before: (driver: number) => readonly number[],
): (recordAs: Phase, collectFailures?: boolean) => GrowingStep[] {
  return (recordAs, collectFailures = false) => {
    const steps = registry.order.map((driver): GrowingStep => {
      const items = drivers === undefined || drivers.includes(driver) ? itemsOf(registry, phase, driver) : [];
      return { driver, phase, recordAs, items, after: [], collectFailures };
    });
    const byDriver = new Map(steps.map((step) => [step.driver, step]));
    for (const step of steps) step.after.push(...before(step.driver).flatMap((other) => byDriver.get(other) ?? []));
    return steps;
  };
}

function itemsOf({ drivers, instances }: Registry, phase: TaskPhase, driver: number): readonly number[] {
  const own = drivers[driver]?.instances ?? [];
  if (!isOfShards(phase)) return own;
  return own.flatMap((item) => {
    const { firstShard = 0, shardCount = 0 } = instances[item] ?? {};
    return Array.from({ length: shardCount }, (_, shard) => firstShard + shard);
  });
}

function dependentsOf({ drivers }: Registry, driver: number): number[] {
  return drivers.filter((other) => other.after.includes(driver)).map((other) => other.index);
}
