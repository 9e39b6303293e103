export { CallbackScope } from './callback-scope.js';
export * from './driver.js';
export { DriverHost, type TaskRunner } from './driver-host.js';
export { loadDriver } from './load-driver.js';
export { Random } from './random.js';
export * from './run-description.js';
export { stateDigest } from './state-digest.js';
export * from './task.js';
export { WorkerPool, type WorkerPoolOptions } from './worker-pool.js';
