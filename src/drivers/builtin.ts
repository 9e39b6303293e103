const url = (file: string): string => new URL(file, import.meta.url).href;

/**
 * The drivers that come with khorus: the name that a scenario's `use` may have, and the URL of the module. None is
 * imported here; each thread that needs a driver imports it for itself.
 */
export const BUILTIN_DRIVERS: ReadonlyMap<string, string> = new Map([
  ['ftrace', url('./ftrace.js')],
  ['guest-memory', url('./guest-memory.js')],
  ['iommu', url('./iommu.js')],
  ['kho-test', url('./kho-test.js')],
  ['kvm-vcpu', url('./kvm-vcpu.js')],
  ['luo', url('./luo.js')],
  ['memfd', url('./memfd.js')],
  ['netdevsim', url('./netdevsim.js')],
  ['vfio-pci', url('./vfio-pci.js')],
]);
