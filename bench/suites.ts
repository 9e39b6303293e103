import type { Suite } from './harness/suite.js';

/** The suites that there are, in the order in which they run. Each is loaded when it is wanted. */
export const SUITES: readonly { name: string; summary: string; load: () => Promise<Suite> }[] = [
  {
    name: 'stage',
    summary: 'the shared table: insertion by 1 and 2 threads beside its peers; lookup, removal, replacement; its bytes',
    load: async () => (await import('./suites/stage.js')).stageSuite,
  },
  {
    name: 'finalize',
    summary: 'stage to FDT: what a property costs from 10,000 to 1,000,000, with 16 and with 30,000 names',
    load: async () => (await import('./suites/finalize.js')).finalizeSuite,
  },
  {
    name: 'end-to-end',
    summary: 'callback to finished blob: mode hash beside structured clone, transferred buffers, libfdt in C',
    load: async () => (await import('./suites/end-to-end.js')).endToEndSuite,
  },
  {
    name: 'modes',
    summary: 'which mode wins where: a grid of instances, properties and work, at 2 workers',
    load: async () => (await import('./suites/modes.js')).modesSuite,
  },
  {
    name: 'blackout',
    summary: 'the six drivers of scenarios/host.yaml: freeze to finalized at 10 to 10,000 instances, in each mode',
    load: async () => (await import('./suites/blackout.js')).blackoutSuite,
  },
  {
    name: 'cores',
    summary: 'serial parts and contention, with one and two workers, and a model of 8, 32 and 128 cores made of them',
    load: async () => (await import('./suites/cores.js')).coresSuite,
  },
  {
    name: 'lifecycle',
    summary:
      'devices that need time to be quiet: serializing during shutdown or after it; freezing early, at once or in turn',
    load: async () => (await import('./suites/lifecycle.js')).lifecycleSuite,
  },
  {
    name: 'memory',
    summary: 'preserved pages, the page allocator, words of physical memory',
    load: async () => (await import('./suites/memory.js')).memorySuite,
  },
  {
    name: 'late-writes',
    summary: 'digests of frozen pages: what a page costs, and a blackout with and without them',
    load: async () => (await import('./suites/late-writes.js')).lateWritesSuite,
  },
];
