import { BUILTIN_DRIVERS } from '#dist/drivers/builtin.js';
import type { Instances } from './handover-runner.js';

/**
 * The drivers of scenarios/host.yaml with the instances that they have there. Their FDT state is as there, but their memory
 * is small: the state is what the modes differ in, and ten thousand instances must fit.
 */
const SIX: readonly { readonly name: string; readonly share: number; readonly options: unknown }[] = [
  { name: 'iommu', share: 16, options: { regions: 1, pages: 8, superpages: 0 } },
  { name: 'netdevsim', share: 160, options: { queues: 24 } },
  { name: 'vfio-pci', share: 96, options: {} },
  { name: 'kvm-vcpu', share: 48, options: {} },
  { name: 'ftrace', share: 4, options: { cpus: 1, pages: 2 } },
  { name: 'memfd', share: 6, options: { size: 65536 } },
];

/** A host of `total` instances, at least 6, in the proportions of the scenario; each driver has one at least. */
export function sixDrivers(total: number): Instances[] {
  const whole = SIX.reduce((sum, { share }) => sum + share, 0);
  const exact = SIX.map(({ share }) => (total * share) / whole);
  const counts = exact.map((count) => Math.max(1, Math.floor(count)));
  const missing = (): number => total - counts.reduce((sum, count) => sum + count, 0);
  // One by one: to the driver that is furthest below its share, or from the one that is furthest above it and has others.
  while (missing() !== 0) {
    const step = Math.sign(missing());
    const lack = (index: number): number => step * ((exact[index] ?? 0) - (counts[index] ?? 0));
    const able = SIX.map((_, index) => index).filter((index) => (counts[index] ?? 0) + step >= 1);
    const index = able.reduce((best, other) => (lack(other) > lack(best) ? other : best));
    counts[index] = (counts[index] ?? 0) + step;
  }
  return SIX.map(({ name, options }, index) => ({
    module: { url: BUILTIN_DRIVERS.get(name) ?? name, origin: name },
    count: counts[index] ?? 0,
    options,
  }));
}
