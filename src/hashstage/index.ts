export { Finalizer, type RenderedBlob } from './finalizer.js';
export * from './layout.js';
export { Stage, type StageHandle, type StageOptions } from './stage.js';
export { propertyWords, ShardWriter } from './writer.js';
