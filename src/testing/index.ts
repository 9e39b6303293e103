/** khorus/testing: what a test of a driver, or of a tool that embeds khorus, needs. This file only exports. */
export type { DriverToTest } from './driver-to-test.js';
export { FAULT_CALLBACKS, FAULT_KINDS, type Fault, type FaultCallback, type FaultKind, impossible } from './fault.js';
export { type ExpectedFailure, HandoverHarness } from './harness.js';
export type { HarnessOptions } from './harness-options.js';
export type { Leaks } from './leaks.js';
export { ManualClock } from './manual-clock.js';
export type { HandedOver, Outcome, RolledBack } from './outcome.js';
export { TestThreads, type TestThreadsOptions } from './test-threads.js';
