import type { FailureRecord, RunRecord, SuccessorReport } from '../coordinator/index.js';
import { hex } from '../memblock/index.js';

/** Instances whose rebuilt state is missing or another one than was frozen. */
export function compareStates(record: RunRecord, report: SuccessorReport): FailureRecord[] {
  const restored = new Map(report.restored.map(({ driver, name, digest }) => [`${driver}/${name}`, digest]));
  const failed = new Set(report.failures.map(({ driver, instance }) => `${driver}/${instance}`));
  return record.instances.flatMap(({ driver, name, digest }) => {
    const key = `${driver}/${name}`;
    const found = restored.get(key);
    if (found === digest || failed.has(key)) return [];
    const message = found === undefined ? 'was not restored' : 'was restored to another state than was frozen';
    return [{ code: 'KHO_EDIGEST', message: `${driver} ${name} ${message}`, driver, instance: name }];
  });
}

/** What was preserved, and nobody claimed. */
export function unclaimed(report: SuccessorReport): FailureRecord[] {
  return report.unclaimed.map(({ address, order }) => ({
    code: 'KHO_EBUSY',
    message: `nobody claimed the preserved object of order ${order} at ${hex(address)}`,
    address,
  }));
}
