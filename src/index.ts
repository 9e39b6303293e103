/** khorus: parallel Kexec HandOver (KHO) serialization. The public API; this file only exports. */
export { type CalibrateOptions, calibrate } from './calibration/index.js';
export * from './coordinator/index.js';
export { KhoError, type KhoErrorCode, type KhoErrorDetails, type SerializedKhoError } from './errors.js';
export {
  type Finding,
  type HandoverReport,
  type ImageReport,
  type InspectPathOptions,
  type InspectReport,
  inspectPath,
} from './inspect/index.js';
export { type RunOptions, type RunResult, runHandover, type VerifyResult, verifyDirectory } from './run.js';
export { restoreImage, type SuccessorInput, startSuccessor } from './successor/index.js';
export { VERSION } from './version.js';
export { type DriverModule, type Mode, WorkerPool, type WorkerPoolOptions } from './workers/index.js';
