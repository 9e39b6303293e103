import type { RunRecord } from '#dist/coordinator/run-record.js';

/** A small run, written by hand: two drivers, two workers, a host thread; the second instance of `iommu` waited. */
export function handWrittenRecord(): RunRecord {
  return {
    schemaVersion: 1,
    khorus: '0.1.0',
    node: 'v20.20.2',
    date: '2026-01-01T00:00:00.000Z',
    host: {
      arch: 'x86_64',
      memory: 2 ** 31,
      nodes: 1,
      cpus: 2,
      cmdline: 'kho=on',
      release: '7.2.0-khorus',
      ranges: [],
      scratch: [],
      reserveMem: [],
    },
    profile: 'kho-v4',
    mode: 'hash',
    workers: 2,
    seed: 0,
    budget: { blackout: 500, onOverrun: 'cancel' },
    drivers: [driver('iommu', 2, 2 ** 20, 4096), driver('netdevsim', 1, 0, 8192)],
    instances: [
      { driver: 'iommu', name: 'iommu0', digest: 'a', blobOffset: 0 },
      { driver: 'iommu', name: 'iommu1', digest: 'b', blobOffset: 0 },
      { driver: 'netdevsim', name: 'netdevsim0', digest: 'c', blobOffset: 0 },
    ],
    root: { address: 0x1000, size: 300 },
    ranges: [],
    tracker: [],
    timeline: {
      threads: [
        { role: 'main', threadId: 0 },
        { role: 'worker', threadId: 1 },
        { role: 'worker', threadId: 2 },
      ],
      phases: [
        { phase: 'prepare', start: 0, end: 120.3 },
        { phase: 'freeze', start: 121, end: 122.2 },
        { phase: 'serialize', start: 122.2, end: 130.6 },
        { phase: 'finalize', start: 130.6, end: 132.7 },
        { phase: 'jump', start: 132.7, end: 132.8 },
        { phase: 'snapshot', start: 133, end: 145 },
        { phase: 'boot', start: 145, end: 156 },
        { phase: 'restore', start: 156, end: 186.2 },
        { phase: 'finish', start: 186.2, end: 190.2 },
      ],
      spans: [
        { phase: 'freeze', driver: 'iommu', instance: 'iommu0', thread: 1, queued: 121, start: 121, end: 122 },
        {
          phase: 'serialize',
          driver: 'iommu',
          instance: 'iommu0',
          shard: 0,
          thread: 1,
          queued: 122,
          start: 122,
          end: 126,
        },
        {
          phase: 'serialize',
          driver: 'iommu',
          instance: 'iommu1',
          shard: 0,
          thread: 2,
          queued: 122,
          start: 125,
          end: 130,
        },
        {
          phase: 'serialize',
          driver: 'netdevsim',
          instance: 'netdevsim0',
          shard: 0,
          thread: 2,
          queued: 122,
          start: 122,
          end: 124.5,
        },
        { phase: 'finalize', step: 'root FDT', thread: 0, queued: 130, start: 130, end: 132 },
      ],
    },
    successor: {
      bootRecord: { kind: 'setup_data', address: 0x2000, root: 0x1000 },
      previousRelease: '7.2.0-khorus',
      kexecCount: 1,
      preservedObjects: 3,
      preservedBytes: 2 ** 20 + 3 * 4096,
      restored: [
        { driver: 'iommu', name: 'iommu0', digest: 'a' },
        { driver: 'iommu', name: 'iommu1', digest: 'b' },
        { driver: 'netdevsim', name: 'netdevsim0', digest: 'c' },
      ],
      revived: [{ name: 'trace', address: 0x100000, size: 2 ** 20 }],
      unclaimed: [],
      failures: [],
      timeline: { threads: [], phases: [], spans: [] },
    },
  };
}

function driver(name: string, instances: number, pageBytes: number, size: number): RunRecord['drivers'][number] {
  return {
    name,
    compatible: `${name}-v1`,
    hosted: false,
    module: { url: `file:///drivers/${name}.js`, origin: name },
    instances,
    shards: instances,
    nodes: 1,
    properties: 1,
    blob: { address: 0x3000, size },
    pageBytes,
  };
}
