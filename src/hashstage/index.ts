export { Finalizer } from './finalizer.js';
export * from './frame.js';
export * from './layout.js';
export { Stage, type StageHandle, type StageOptions } from './stage.js';
export { propertyWords, ShardWriter } from './writer.js';
