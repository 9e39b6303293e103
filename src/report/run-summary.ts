import type { RunRecord } from '../coordinator/run-record.js';
import { type BlackoutReport, blackoutLine, blackoutReport } from './blackout-line.js';
import { earlyLine, earlyState } from './early-state.js';
import { formatBytes, plural } from './format.js';

/** How a run ended, in numbers; `khorus run --json` prints it. */
export interface RunSummary {
  readonly drivers: { readonly total: number; readonly restored: number };
  readonly instances: { readonly total: number; readonly restored: number };
  /** Bytes of the restored drivers: their preserved pages and their FDTs. */
  readonly restoredBytes: number;
  /** Bytes of guest memory that was handed over: tracked and claimed, but without content that could be verified. */
  readonly unverifiableBytes: number;
  /** Drivers that came back not at all, in part, or with another state. */
  readonly notRestored: readonly { readonly driver: string; readonly instances: number; readonly restored: number }[];
  readonly revived: readonly { readonly name: string; readonly size: number }[];
  readonly unclaimed: { readonly objects: number; readonly bytes: number };
  readonly blackout: BlackoutReport;
}

const PAGE_SIZE = 4096;

/**
 * An instance counts as restored only when the digest of its rebuilt state equals the one taken of the original,
 * and a driver only when each of its instances does.
 */
export function runSummary(record: RunRecord): RunSummary {
  const { successor } = record;
  const key = (instance: { driver: string; name: string; digest: string }) =>
    `${instance.driver}\0${instance.name}\0${instance.digest}`;
  const rebuilt = new Set(successor?.restored.map(key));
  const restoredOf = new Map<string, number>();
  for (const instance of record.instances) {
    if (rebuilt.has(key(instance))) restoredOf.set(instance.driver, (restoredOf.get(instance.driver) ?? 0) + 1);
  }
  const drivers = record.drivers.map((driver) => ({ ...driver, restored: restoredOf.get(driver.name) ?? 0 }));
  const whole = successor === undefined ? [] : drivers.filter(({ instances, restored }) => restored === instances);
  return {
    drivers: { total: drivers.length, restored: whole.length },
    instances: {
      total: record.instances.length,
      restored: [...restoredOf.values()].reduce((sum, count) => sum + count, 0),
    },
    restoredBytes: whole.reduce((sum, { pageBytes, blob }) => sum + pageBytes + blob.size, 0),
    unverifiableBytes: record.drivers.reduce((sum, { guestBytes = 0 }) => sum + guestBytes, 0),
    notRestored: drivers
      .filter((driver) => !whole.includes(driver))
      .map(({ name, instances, restored }) => ({ driver: name, instances, restored })),
    revived: successor?.revived.map(({ name, size }) => ({ name, size })) ?? [],
    unclaimed: {
      objects: successor?.unclaimed.length ?? 0,
      bytes: successor?.unclaimed.reduce((sum, { order }) => sum + PAGE_SIZE * 2 ** order, 0) ?? 0,
    },
    blackout: blackoutReport(record),
  };
}

/** The closing lines of `khorus run`: the blackout, then `restored 6 of 6 drivers: 356 instances, 61.2 MiB`. */
export function runSummaryLines(record: RunRecord): string[] {
  const lines = [blackoutLine(record)];
  const early = earlyState(record);
  if (early.bytes > 0) lines.push(earlyLine(early));
  if (record.successor === undefined) return lines;
  const { drivers, instances, restoredBytes, notRestored, revived, unclaimed, unverifiableBytes } = runSummary(record);
  if (revived.length > 0) {
    lines.push(`revived reserve_mem: ${revived.map(({ name, size }) => `${name} (${formatBytes(size)})`).join(', ')}`);
  }
  if (unclaimed.objects > 0) {
    lines.push(`nobody claimed ${plural(unclaimed.objects, 'preserved object')}, ${formatBytes(unclaimed.bytes)}`);
  }
  if (unverifiableBytes > 0) {
    lines.push(`not verifiable: ${formatBytes(unverifiableBytes)} of guest memory, which has no content here`);
  }
  lines.push(
    ...notRestored.map((lost) => `not restored: ${lost.driver} (${lost.restored} of ${lost.instances} instances)`),
  );
  lines.push(
    `restored ${drivers.restored} of ${drivers.total} drivers: ` +
      `${plural(instances.restored, 'instance')}, ${formatBytes(restoredBytes)}`,
  );
  return lines;
}
