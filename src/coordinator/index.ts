export { Coordinator, type CoordinatorOptions, type HandoverOptions, type ProgressEvent } from './coordinator.js';
export { orderByDependencies } from './dependencies.js';
export { digestsOf, Handover } from './handover.js';
export { Host } from './host.js';
export * from './plan.js';
export * from './run-record.js';
export * from './timeline.js';
