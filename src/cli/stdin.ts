import { KhoError } from '../errors.js';
import { BLOB_MAX } from '../inspect/index.js';

/** All of stdin. KHO_E2BIG beyond 256 MiB: a memory image must be a file, because it is read here and there. */
export async function readStdin(): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > BLOB_MAX) {
      throw new KhoError(
        'KHO_E2BIG',
        'stdin holds more than 256 MiB: a memory image must be named, it cannot be piped',
      );
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}
