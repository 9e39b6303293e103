export * from './blob-report.js';
export * from './decoded-dts.js';
export type { Finding, Severity } from './findings.js';
export { type HandoverReport, type HandoverStart, type InspectOptions, inspectHandover } from './handover-report.js';
export { chooseStart, type ImageFileReport, openImageFile, type StartOptions } from './image-file.js';
export * from './inspect-path.js';
export { findingLines, inspectLines } from './lines.js';
export { RecordedMemory } from './recorded-memory.js';
