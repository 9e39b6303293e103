export * from './architecture.js';
export { architectureNamed } from './architectures.js';
export { SegmentPlacer } from './segment-placer.js';
export { usableMemory } from './usable-memory.js';
export { findQemuRamExtents, qemuRamExtents } from './x86_64/qemu-ram-file.js';
export { X86_64 } from './x86_64/x86-64.js';
