import { threadId } from 'node:worker_threads';
import { KhoError } from '../errors.js';
import { PAGE_SIZE } from '../memblock/index.js';
import type { Driver, ShardSpec } from './driver.js';
import { loadDriver } from './load-driver.js';
import { type DescribedRegistration, type DescribeTask, SKIPPED_CALLBACKS, type TaskAnswer } from './task.js';

/** The largest folio of a guest: 1 GiB, as of hugetlb. */
const MAX_GUEST_ORDER = 18;

/** Answers a {@link DescribeTask}: one {@link DescribedRegistration} each, up to the first that fails. */
export async function describeRegistrations({ registrations, current }: DescribeTask): Promise<TaskAnswer> {
  const values: DescribedRegistration[] = [];
  /** Instances so far, by driver: registrations of one driver add up. */
  const counts = new Map<string, number>();
  const answer = { threadId, attached: true, spans: new Float64Array(0), values, failures: [] };
  for (const [position, { module, count, options }] of registrations.entries()) {
    Atomics.store(new Int32Array(current), 0, position);
    try {
      const driver = await loadDriver(module);
      const first = counts.get(driver.name) ?? 0;
      counts.set(driver.name, first + count);
      values.push(describeRegistration(driver, options, first, count));
    } catch (thrown) {
      return { ...answer, failures: [{ position, error: KhoError.from(thrown, 'KHO_EINVAL').toJSON() }] };
    }
  }
  return answer;
}

function describeRegistration(driver: Driver, raw: unknown, first: number, count: number): DescribedRegistration {
  const { blob = 'fdt' } = driver;
  if (blob === 'raw' && first + count > 1) {
    throw new KhoError(
      'KHO_EINVAL',
      `'${driver.name}' hands over one raw blob, so there can be only one instance of it`,
      {
        driver: driver.name,
        field: 'count',
      },
    );
  }
  const options = parseOptions(driver, raw);
  const shards = call(driver, 'shards', () => driver.shards?.(options) ?? [{}]);
  checkShards(driver.name, shards);
  const instances = Array.from({ length: count }, (_, offset) => {
    const index = first + offset;
    const name =
      blob === 'raw'
        ? driver.name
        : call(driver, 'instanceName', () => driver.instanceName?.(options, index) ?? `${driver.name}${index}`);
    return {
      name,
      index,
      shards: shards.map(({ pages = 0, maxBytes, guest }) => ({
        pages,
        ...(maxBytes && { maxBytes }),
        ...(guest && guest.size > 0 && { guest: { size: guest.size, order: guest.order } }),
      })),
    };
  });
  const { name, compatible, hosted = false } = driver;
  const callbacks = SKIPPED_CALLBACKS.filter((callback) => driver[callback] !== undefined);
  return { name, compatible, hosted, blob, callbacks, instances };
}

function parseOptions(driver: Driver, raw: unknown): unknown {
  if (driver.options === undefined) return raw;
  try {
    return driver.options.parse(raw ?? {});
  } catch (error) {
    throw new KhoError('KHO_EINVAL', `options of ${driver.name}: ${describeIssues(error)}`, {
      driver: driver.name,
      field: 'options',
    });
  }
}

/** The problems of a Zod error, one after another; another error's message as it is. */
function describeIssues(error: unknown): string {
  if (error instanceof Error && 'issues' in error && Array.isArray(error.issues)) {
    return error.issues
      .map(({ path, message }: { path: PropertyKey[]; message: string }) =>
        path.length === 0 ? message : `${path.map(String).join('.')}: ${message}`,
      )
      .join('; ');
  }
  return error instanceof Error ? error.message : String(error);
}

function checkShards(driver: string, shards: readonly ShardSpec[]): void {
  const bad = (what: string): never => {
    throw new KhoError('KHO_EINVAL', `shards() of ${driver}: ${what}`, { driver, call: 'shards' });
  };
  if (!Array.isArray(shards) || shards.length === 0) bad('expected an array of at least one { pages?, maxBytes? }');
  for (const [index, { pages = 0, maxBytes = 1, guest }] of shards.entries()) {
    if (!Number.isSafeInteger(pages) || pages < 0) bad(`pages of shard ${index} is ${pages}`);
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) bad(`maxBytes of shard ${index} is ${maxBytes}`);
    if (guest === undefined) continue;
    const { size, order } = guest;
    if (!Number.isInteger(order) || order < 0 || order > MAX_GUEST_ORDER) {
      bad(`guest of shard ${index} has the order ${order}, expected 0 to ${MAX_GUEST_ORDER}`);
    }
    const folio = PAGE_SIZE * 2 ** order;
    if (!Number.isSafeInteger(size) || size < 0 || size % folio !== 0) {
      bad(`guest of shard ${index} has ${size} bytes, expected a multiple of ${folio}`);
    }
  }
}

function call<T>(driver: Driver, name: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw KhoError.from(thrown).with({ driver: driver.name, call: name });
  }
}
