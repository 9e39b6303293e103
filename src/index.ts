/** khorus: parallel Kexec HandOver (KHO) serialization. The public API; this file only exports. */
export { KhoError, type KhoErrorCode, type KhoErrorDetails, type SerializedKhoError } from './errors.js';
