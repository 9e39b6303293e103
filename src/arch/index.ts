export * from './architecture.js';
export { architectureNamed } from './architectures.js';
export { SegmentPlacer } from './segment-placer.js';
export { X86_64 } from './x86_64/x86-64.js';
