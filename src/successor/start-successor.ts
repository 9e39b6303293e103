import { fork } from 'node:child_process';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { SuccessorReport } from '../coordinator/index.js';
import { KhoError, type SerializedKhoError } from '../errors.js';
import type { SuccessorInput, SuccessorStep } from './restore.js';

type Answer = { readonly report: SuccessorReport } | { readonly error: SerializedKhoError };

/** Where the successor's process writes its steps. */
export const STEPS_FD = 4;
/** Milliseconds that one piece of a driver's code may take; default of `limit`. */
const DEFAULT_LIMIT = 60_000;

export interface SuccessorOptions {
  readonly signal?: AbortSignal;
  /** Milliseconds that one callback of a driver, or the loading of its module, may take before it has hung; default 60,000. */
  readonly limit?: number;
}

/**
 * Starts a successor in a process of its own, which knows only its input, and waits for its report.
 *
 * Rejects with what early boot found wrong; with KHO_EWORKER if the process ends without an answer, and KHO_ETIMEDOUT if a
 * driver's code takes longer than the limit, both of which name driver and instance; with KHO_ECANCELED (or the signal's own
 * KhoError) when aborted. The process is gone in every case.
 */
export async function startSuccessor(
  input: SuccessorInput,
  { signal, limit = DEFAULT_LIMIT }: SuccessorOptions = {},
): Promise<SuccessorReport> {
  const child = fork(fileURLToPath(new URL('./successor-process.js', import.meta.url)), {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc', 'pipe'],
    execArgv: [],
  });
  let words = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString()).slice(-2000);
  });
  const abort = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', abort);
  const steps = new Steps(child.stdio[STEPS_FD] as Readable);
  try {
    const answer = await new Promise<Answer>((resolve, reject) => {
      steps.watch(limit, (error) => {
        reject(error);
        abort();
      });
      child.once('message', (message) => resolve(message as Answer));
      child.once('error', reject);
      // Not 'exit': what it wrote last is to be read before.
      child.once('close', (code, name) => {
        const how = name === null ? `exited with code ${code}` : `was ended by ${name}`;
        const where = steps.where === '' ? '' : ` in ${steps.where}`;
        const text = `the successor ${how} without an answer${where}${words === '' ? '' : `: ${words.trim()}`}`;
        reject(new KhoError('KHO_EWORKER', text, steps.concerning));
      });
      if (signal?.aborted) abort();
      else child.send(input);
    });
    if ('error' in answer) throw KhoError.from(answer.error);
    return answer.report;
  } catch (error) {
    if (signal?.aborted) {
      throw signal.reason instanceof KhoError
        ? signal.reason
        : new KhoError('KHO_ECANCELED', 'the restore was aborted');
    }
    throw KhoError.from(error, 'KHO_EWORKER');
  } finally {
    steps[Symbol.dispose]();
    signal?.removeEventListener('abort', abort);
    child.kill('SIGKILL');
  }
}

/** What the successor said last that it is about to do, and how long ago. */
class Steps implements Disposable {
  #line = '';
  #last: SuccessorStep | undefined;
  #timer: NodeJS.Timeout | undefined;
  #onStep: () => void = () => {};

  constructor(stream: Readable) {
    stream.on('data', (chunk: Buffer) => {
      const lines = (this.#line + chunk.toString()).split('\n');
      this.#line = lines.pop() ?? '';
      const last = lines.at(-1);
      if (last === undefined) return;
      this.#last = JSON.parse(last) as SuccessorStep;
      this.#onStep();
    });
  }

  /** As text, '' before the first. */
  get where(): string {
    if (this.#last === undefined) return '';
    const { call, driver, instance } = this.#last;
    return instance === undefined ? `loading the driver ${driver}` : `${call} of ${driver} ${instance}`;
  }

  /** As details of an error. */
  get concerning(): { driver?: string; instance?: string } {
    if (this.#last === undefined) return {};
    const { driver, instance } = this.#last;
    return { driver, ...(instance !== undefined && { instance }) };
  }

  /** Calls `hung` if a step takes longer than `limit` ms; the time before the first step does not count. */
  watch(limit: number, hung: (error: KhoError) => void): void {
    this.#onStep = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => {
        const text = `the successor hangs: ${this.where} has taken more than ${limit} ms`;
        hung(new KhoError('KHO_ETIMEDOUT', text, this.concerning));
      }, limit);
    };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#onStep = () => {};
  }
}
