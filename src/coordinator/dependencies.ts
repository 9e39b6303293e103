import { closest, distance } from 'fastest-levenshtein';
import { KhoError } from '../errors.js';

/** What ordering needs to know of a driver. */
export interface Dependent {
  readonly name: string;
  /** Names of drivers that come first. */
  readonly after: readonly string[];
  /** Higher goes first where there is a choice. */
  readonly priority: number;
}

/**
 * Indexes of the drivers, each after all that it names in `after`; among those that are free to go, the highest
 * priority first, then the order of the list.
 *
 * KHO_EINVAL for a name that is not in the list, with the nearest one, and for a circle, which is spelled out.
 */
export function orderByDependencies(drivers: readonly Dependent[]): number[] {
  const byName = new Map(drivers.map((driver, index) => [driver.name, index]));
  const waitsFor = drivers.map((driver) => new Set(driver.after.map((name) => indexOf(name, driver, byName))));
  const order: number[] = [];
  const placed = new Set<number>();
  while (order.length < drivers.length) {
    let next: number | undefined;
    for (const [index, driver] of drivers.entries()) {
      if (placed.has(index) || [...(waitsFor[index] ?? [])].some((other) => !placed.has(other))) continue;
      if (next === undefined || driver.priority > (drivers[next]?.priority ?? 0)) next = index;
    }
    if (next === undefined) throw circle(drivers, waitsFor, placed);
    order.push(next);
    placed.add(next);
  }
  return order;
}

function indexOf(name: string, driver: Dependent, byName: ReadonlyMap<string, number>): number {
  const index = byName.get(name);
  if (index !== undefined) return index;
  const near = closest(
    name,
    [...byName.keys()].filter((other) => other !== driver.name),
  );
  // Three edits may be a misspelling, but not where they leave no letter of the name as it was.
  const isNear = near !== undefined && distance(name, near) <= Math.min(3, name.length - 1);
  const hint = isNear ? `; did you mean '${near}'?` : '';
  throw new KhoError('KHO_EINVAL', `'${driver.name}' comes after '${name}', which is not in this run${hint}`, {
    driver: driver.name,
    field: 'after',
  });
}

function circle(drivers: readonly Dependent[], waitsFor: readonly Set<number>[], placed: Set<number>): KhoError {
  const path: number[] = [];
  let at = drivers.findIndex((_, index) => !placed.has(index));
  while (!path.includes(at)) {
    path.push(at);
    at = [...(waitsFor[at] ?? [])].find((other) => !placed.has(other)) ?? at;
  }
  const names = [...path.slice(path.indexOf(at)), at].map((index) => drivers[index]?.name ?? '');
  return new KhoError('KHO_EINVAL', `the drivers wait for each other in a circle: ${names.join(' after ')}`, {
    driver: names[0] ?? '',
    field: 'after',
  });
}
