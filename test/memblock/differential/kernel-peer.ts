import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Operation, Peer, Sequence } from './peer.js';

/** The kernel's memblock: a program that reads operations and answers each (driver.c). It runs once for each call. */
export class KernelPeer implements Peer {
  readonly #program: string;
  readonly #signal: AbortSignal | undefined;

  constructor(program: string, signal?: AbortSignal) {
    this.#program = program;
    this.#signal = signal;
  }

  async run(sequences: readonly Sequence[]): Promise<string[][]> {
    const child = spawn(this.#program, [], {
      stdio: ['pipe', 'pipe', 'inherit'],
      ...(this.#signal && { signal: this.#signal }),
    });
    const parts: string[] = [];
    child.stdout.setEncoding('utf8').on('data', (text: string) => parts.push(text));
    // What it did not read when it died is not the error to report.
    child.stdin.on('error', () => undefined).end(sequences.map(sequenceText).join(''));
    const [status, signal] = (await once(child, 'close')) as [number | null, string | null];
    if (status !== 0) throw new Error(`the kernel's memblock ended with ${status ?? signal}`);
    const lines = parts.join('').split('\n');
    let next = 0;
    return sequences.map(({ operations }) => {
      const first = next;
      next += operations.length;
      return lines.slice(first, next);
    });
  }
}

/** Arguments as the driver reads them: hexadecimal, with a sign where they are negative. */
function operationText({ call, args }: Operation): string {
  return [call, ...args.map((value) => value.toString(16))].join(' ');
}

function sequenceText({ initialRegions, operations }: Sequence): string {
  return `boot ${initialRegions.toString(16)}\n${operations.map((one) => `${operationText(one)}\n`).join('')}`;
}
