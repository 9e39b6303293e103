import { hex } from '../memblock/index.js';
import type { FailureRecord, InstanceRecord, SuccessorReport } from './run-record.js';

/** An instance as it was frozen. */
export type FrozenInstance = Pick<InstanceRecord, 'driver' | 'name' | 'digest'>;

/** Everything that went wrong in a restore, by its report; empty if every instance is back with the state it had. */
export function restoreFailures(instances: readonly FrozenInstance[], report: SuccessorReport): FailureRecord[] {
  return [...report.failures, ...compareStates(instances, report), ...unclaimedObjects(report)];
}

/** Instances whose rebuilt state is missing or another one than was frozen. */
export function compareStates(instances: readonly FrozenInstance[], report: SuccessorReport): FailureRecord[] {
  const restored = new Map(report.restored.map(({ driver, name, digest }) => [`${driver}/${name}`, digest]));
  const failed = new Set(report.failures.map(({ driver, instance }) => `${driver}/${instance}`));
  return instances.flatMap(({ driver, name, digest }) => {
    const key = `${driver}/${name}`;
    const found = restored.get(key);
    if (found === digest || failed.has(key)) return [];
    const message = found === undefined ? 'was not restored' : 'was restored to another state than was frozen';
    return [{ code: 'KHO_EDIGEST', message: `${driver} ${name} ${message}`, driver, instance: name }];
  });
}

/** Preserved memory that nobody claimed. */
export function unclaimedObjects(report: SuccessorReport): FailureRecord[] {
  return report.unclaimed.map(({ address, order }) => ({
    code: 'KHO_EBUSY',
    message: `nobody claimed the preserved object of order ${order} at ${hex(address)}`,
    address,
  }));
}
