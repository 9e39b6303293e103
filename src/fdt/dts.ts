import type { FdtReader } from './reader.js';
export function formatDts(reader: FdtReader): string {
  return String(reader.totalSize);
}
