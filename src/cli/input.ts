import { constants, createReadStream, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { isatty, ReadStream } from 'node:tty';
import { KhoError } from '../errors.js';
import { BLOB_MAX } from '../inspect/index.js';

/**
 * Opens what the user has named, which may be a pipe or a terminal: `<(…)`, /dev/stdin. Those are waited for on the event
 * loop: a thread of the pool that waits cannot be interrupted, and the process not end without it. Throws what open(2) does.
 */
export function openInput(path: string): Readable {
  // Else opening a pipe would wait for its writer. That there is none yet is not its end: nothing is read until there was one.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  if (isatty(fd)) return new ReadStream(fd);
  if (fstatSync(fd).isFIFO()) return new Socket({ fd, writable: false });
  return createReadStream(path, { fd });
}

/** What is read from a stream. An abort destroys it, so that it ends however long its writer takes, and throws the reason. */
export async function* untilAborted(stream: Readable, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const end = (): void => void stream.destroy(signal?.reason);
  if (signal?.aborted) end();
  signal?.addEventListener('abort', end);
  try {
    yield* stream as AsyncIterable<Buffer>;
  } finally {
    signal?.removeEventListener('abort', end);
  }
}

/**
 * All of stdin. KHO_E2BIG beyond 256 MiB: a memory image must be a file, because it is read here and there. The reason of
 * an abort.
 */
export async function readStdin(signal: AbortSignal): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of untilAborted(process.stdin, signal)) {
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
