import { KhoError } from '../errors.js';
import { checkNodeName } from '../fdt/index.js';
import {
  DEFAULT_MAX_BYTES,
  type DescribedRegistration,
  type DriverDescription,
  type InstanceDescription,
  type ShardDescription,
  type SkippedCallback,
} from '../workers/index.js';
import { orderByDependencies } from './dependencies.js';
import type { DriverRegistration } from './plan.js';

/** One shard with what it may use. */
export interface RegisteredShard extends ShardDescription {
  readonly pages: number;
}

/** A driver with what the coordinator keeps of it. */
export interface RegisteredDriver extends DriverDescription {
  readonly index: number;
  /** Indexes of the drivers whose prepare and freeze come first. */
  readonly after: readonly number[];
  readonly priority: number;
  /** Indexes of its instances, ascending. */
  readonly instances: readonly number[];
  /** Which of the callbacks it has that are skipped where there are none. */
  readonly callbacks: readonly SkippedCallback[];
  /** Milliseconds that one of its callbacks may take in the blackout: the least that was registered. */
  readonly budget?: number;
  /** Whether a whole handover freezes it before the blackout. */
  readonly freezeEarly: boolean;
}

/**
 * All drivers, instances and shards of a run, in the order of registration: the order in which everything that is
 * handed over is laid out.
 */
export interface Registry {
  readonly drivers: readonly RegisteredDriver[];
  readonly instances: readonly InstanceDescription[];
  readonly shards: readonly RegisteredShard[];
  /** Driver indexes, dependencies first, then by priority and registration. */
  readonly order: readonly number[];
}

type GrowingDriver = Omit<RegisteredDriver, 'after' | 'instances' | 'budget' | 'freezeEarly'> & {
  after: string[];
  instances: number[];
  budget?: number;
  freezeEarly: boolean;
};

/**
 * Puts together what the scenario registers and what the drivers say of it.
 *
 * KHO_EEXIST for two drivers of one name or compatible and for two instances of one name; KHO_EINVAL for names that an
 * FDT forbids, for `after` names that are not in the run, and for circles.
 */
export function buildRegistry(
  registrations: readonly DriverRegistration[],
  described: readonly DescribedRegistration[],
): Registry {
  const drivers: GrowingDriver[] = [];
  const instances: InstanceDescription[] = [];
  const shards: RegisteredShard[] = [];
  for (const [position, registration] of registrations.entries()) {
    const description = described[position];
    if (description === undefined) continue;
    const { name, compatible, hosted, blob, callbacks } = description;
    let driver = drivers.find((candidate) => candidate.name === name);
    if (driver === undefined) {
      const same = drivers.find((candidate) => candidate.compatible === compatible);
      if (same !== undefined) {
        throw new KhoError('KHO_EEXIST', `drivers '${same.name}' and '${name}' are both compatible '${compatible}'`);
      }
      const { module, priority } = registration;
      const index = drivers.length;
      driver = {
        index,
        name,
        compatible,
        hosted,
        blob,
        module,
        priority,
        callbacks,
        freezeEarly: false,
        after: [],
        instances: [],
      };
      drivers.push(driver);
    } else if (driver.module.url !== registration.module.url) {
      const modules = `${driver.module.origin} and ${registration.module.origin}`;
      throw new KhoError('KHO_EEXIST', `two drivers are named '${name}': ${modules}`, { driver: name });
    }
    driver.after.push(...registration.after);
    driver.freezeEarly ||= registration.freezeEarly === true;
    const { budget } = registration;
    if (budget !== undefined) driver.budget = Math.min(budget, driver.budget ?? budget);
    for (const instance of description.instances) {
      checkInstanceName(name, instance.name);
      driver.instances.push(instances.length);
      for (const { pages = 0, maxBytes = DEFAULT_MAX_BYTES, guest } of instance.shards) {
        const shard = { instance: instances.length, pages, maxBytes: blob === 'raw' ? 0 : maxBytes };
        shards.push(guest === undefined ? shard : { ...shard, guest });
      }
      instances.push({
        driver: driver.index,
        name: instance.name,
        index: instance.index,
        options: registration.options,
        firstShard: shards.length - instance.shards.length,
        shardCount: instance.shards.length,
      });
    }
  }
  for (const driver of drivers) checkUnique(driver.name, driver.instances, instances);
  const byName = new Map(drivers.map((driver) => [driver.name, driver.index]));
  const order = orderByDependencies(drivers);
  const finished = drivers.map((driver) => ({
    ...driver,
    after: [...new Set(driver.after)].map((name) => byName.get(name) ?? 0),
  }));
  return { drivers: finished, instances, shards, order };
}

function checkInstanceName(driver: string, instance: string): void {
  try {
    checkNodeName(instance);
  } catch (error) {
    throw KhoError.from(error).with({ driver, instance });
  }
}

function checkUnique(driver: string, members: readonly number[], instances: readonly InstanceDescription[]): void {
  const met = new Set<string>();
  for (const member of members) {
    const name = instances[member]?.name ?? '';
    if (met.has(name)) {
      throw new KhoError('KHO_EEXIST', `driver '${driver}' has two instances named '${name}'`, {
        driver,
        instance: name,
      });
    }
    met.add(name);
  }
}

/** Whose an instance is, by names. */
export function instanceOwner({ drivers, instances }: Registry, item: number): { driver: string; instance: string } {
  const instance = instances[item];
  return { driver: drivers[instance?.driver ?? 0]?.name ?? '', instance: instance?.name ?? '' };
}

/** Whose a shard is, by names, and its number within the instance. */
export function shardOwner(registry: Registry, index: number): { driver: string; instance: string; shard: number } {
  const item = registry.shards[index]?.instance ?? 0;
  return { ...instanceOwner(registry, item), shard: index - (registry.instances[item]?.firstShard ?? 0) };
}
