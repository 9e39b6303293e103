import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Samples, VariantSpec } from './comparison.js';
import type { Answer, Request } from './variant-main.js';

const MAIN = fileURLToPath(new URL('./variant-main.js', import.meta.url));

/**
 * A variant in a process of its own, which stays for all rounds of a comparison. So each has its own garbage to pay for,
 * and its own compiled code: in one process, the objects that one variant leaves behind make the collector come while
 * another is measured, and V8 throws code away whose types it has not seen alive for a while.
 */
export class VariantProcess implements AsyncDisposable {
  readonly name: string;
  readonly #child: ChildProcess;
  #ended: string | undefined;
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined;

  private constructor(name: string) {
    this.name = name;
    this.#child = fork(MAIN, { serialization: 'advanced' });
    this.#child.on('message', (answer: Answer) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting?.resolve(answer);
    });
    this.#child.on('exit', (code, signal) => {
      this.#ended = `its process ended with ${signal ?? `code ${code}`}`;
      this.#waiting?.reject(this.#failure(this.#ended));
    });
  }

  /** Resolves when the variant is set up. */
  static async start({ name, module, parameters }: VariantSpec): Promise<VariantProcess> {
    const variant = new VariantProcess(name);
    try {
      await variant.#ask({ kind: 'set-up', module: module.href, parameters });
      return variant;
    } catch (error) {
      await variant[Symbol.asyncDispose]();
      throw error;
    }
  }

  async measure(): Promise<Samples> {
    return (await this.#ask({ kind: 'measure' })).samples;
  }

  async notes(): Promise<readonly string[]> {
    return (await this.#ask({ kind: 'notes' })).notes;
  }

  /** CPU time of the process so far, in milliseconds. */
  async cpuTime(): Promise<number> {
    return (await this.#ask({ kind: 'cpu-time' })).cpuTime;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended !== undefined) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill();
    await ended;
  }

  async #ask(request: Request): Promise<Extract<Answer, { kind: 'done' }>> {
    const answer = await new Promise<Answer>((resolve, reject) => {
      if (this.#ended !== undefined) reject(this.#failure(this.#ended));
      this.#waiting = { resolve, reject };
      this.#child.send(request, (error) => {
        if (error !== null) reject(this.#failure(error.message));
      });
    });
    if (answer.kind === 'failed') throw this.#failure(answer.error);
    return answer;
  }

  #failure(reason: string): Error {
    return new Error(`variant '${this.name}': ${reason}`);
  }
}
