import type { PropertyName } from 'khorus/driver';

/**
 * What the suites write: instances of many small nodes, with properties of 8 bytes. Every variant writes the same tree, so
 * that what differs is the way it takes.
 */
export interface Load {
  /** Nodes below each instance. */
  readonly nodes: number;
  /** Properties of each node. */
  readonly properties: number;
  /** `strings`: each property is named by text; `ids`: by what `ctx.name()` returned, once for a callback. */
  readonly names: 'strings' | 'ids';
  /** Steps of work for each property; see {@link busyWork}. */
  readonly workSteps: number;
}

export const INSTANCES = 10;
export const PROPERTIES_PER_NODE = 10;
export const INSTANCE_NAMES: readonly string[] = Array.from({ length: INSTANCES }, (_, index) => `load${index}`);
export const NAMES: readonly string[] = Array.from({ length: 16 }, (_, index) => `property-${index}`);
const NAME_MASK = NAMES.length - 1;

/** The part of a driver's context that a load needs; the peers have it too. */
export interface LoadContext {
  node(name: string): LoadNode;
  name(text: string): PropertyName;
}

export interface LoadNode {
  u64(name: string | PropertyName, value: number): unknown;
}

/** What `instance` hands over. The body of the driver's `serialize`, and of the peers'. */
export function writeLoad(ctx: LoadContext, load: Load, instance: number): void {
  const { nodes, properties, workSteps } = load;
  if (load.names === 'ids') {
    const ids = NAMES.map((name) => ctx.name(name));
    for (let index = 0; index < nodes; index++) {
      const node = ctx.node(`node${index}`);
      for (let property = 0; property < properties; property++) {
        node.u64(
          ids[(index + property) & NAME_MASK] as PropertyName,
          propertyValue(instance, index, property, workSteps),
        );
      }
    }
    return;
  }
  for (let index = 0; index < nodes; index++) {
    const node = ctx.node(`node${index}`);
    for (let property = 0; property < properties; property++) {
      node.u64(NAMES[(index + property) & NAME_MASK] as string, propertyValue(instance, index, property, workSteps));
    }
  }
}

function propertyValue(instance: number, index: number, property: number, workSteps: number): number {
  const value = instance * 1_000_000 + index * 16 + property;
  return workSteps === 0 ? value : busyWork(value, workSteps);
}

/** Work whose result is needed, so that no compiler leaves it out: each step of xorshift waits for the one before. */
export function busyWork(value: number, steps: number): number {
  let state = value | 1;
  for (let step = 0; step < steps; step++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
  }
  return state >>> 0;
}

/** How many steps of {@link busyWork} take `nanoseconds` on this machine: the best of some tries. */
export function calibrateWork(nanoseconds: number): number {
  if (nanoseconds === 0) return 0;
  stepNanoseconds ??= measureStep();
  return Math.max(1, Math.round(nanoseconds / stepNanoseconds));
}

let stepNanoseconds: number | undefined;

function measureStep(): number {
  const calls = 2000;
  const steps = 200;
  let best = Number.POSITIVE_INFINITY;
  let sum = 0;
  for (let round = 0; round < 20; round++) {
    const start = process.hrtime.bigint();
    for (let call = 0; call < calls; call++) sum += busyWork(call, steps);
    best = Math.min(best, Number(process.hrtime.bigint() - start) / (calls * steps));
  }
  if (Number.isNaN(sum)) throw new Error('the work was lost');
  return best;
}

/** The upper half of a value that mostly has none: a division only where it is needed. */
export function highHalf(value: number): number {
  return value >>> 0 === value ? 0 : value / 2 ** 32;
}
