import { closeSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';

const CHUNK = 2 ** 16;

/**
 * A console that goes through a file, which has no name any more.
 *
 * Not through a pipe: Node makes a socket of it, whose buffer is full after a few hundred writes of one byte each, as an
 * emulated UART makes them. While this process is busy the UART then drops characters, and no line can be trusted.
 */
export class ConsoleFile implements Disposable {
  /** To be given to a child, to write to. */
  readonly descriptor: number;
  readonly #decoder = new StringDecoder('utf8');
  readonly #chunk = Buffer.alloc(CHUNK);
  #at = 0;

  constructor() {
    const directory = mkdtempSync(join(tmpdir(), 'khorus-console-'));
    try {
      this.descriptor = openSync(join(directory, 'console'), 'wx+');
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  /** What was written since the last call; empty if nothing was. */
  read(): string {
    let text = '';
    for (;;) {
      const bytes = readSync(this.descriptor, this.#chunk, 0, CHUNK, this.#at);
      if (bytes === 0) return text;
      this.#at += bytes;
      text += this.#decoder.write(this.#chunk.subarray(0, bytes));
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.descriptor);
  }
}
