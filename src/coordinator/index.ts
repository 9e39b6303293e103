export { Coordinator, type CoordinatorOptions, type HandoverOptions, type ProgressEvent } from './coordinator.js';
export { orderByDependencies } from './dependencies.js';
export { digestsOf, Handover, kexecRecord } from './handover.js';
export { Host } from './host.js';
export { type KexecPlan, readKexecFiles } from './kexec-files.js';
export * from './plan.js';
export { readRecord } from './read-record.js';
export * from './run-record.js';
export * from './timeline.js';
