import type { Writable } from 'node:stream';
import { KhoError } from '../errors.js';

/** Where a command writes: results to stdout, everything else to stderr. */
export interface Streams {
  readonly stdout: Writable & { isTTY?: boolean };
  readonly stderr: Writable & { isTTY?: boolean; columns?: number };
}

/** Exit codes of the command. */
export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Ended by a signal: 128 and its number. KHO_ECANCELED carries it as the reason of an abort. */
export class SignalReceived extends KhoError {
  readonly exitCode: number;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super('KHO_ECANCELED', `ended by ${signal}; everything was rolled back`);
    this.exitCode = signal === 'SIGINT' ? 130 : 143;
  }
}

/** Version of the documents that `--json` prints. */
export const JSON_SCHEMA_VERSION = 1;

/** What the commands share: streams, and the options every command has. */
export class Terminal {
  readonly streams: Streams;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;

  constructor(streams: Streams, options: { json?: boolean; quiet?: boolean; verbose?: boolean }) {
    this.streams = streams;
    this.json = options.json === true;
    this.quiet = options.quiet === true;
    this.verbose = options.verbose === true;
  }

  /** True if progress may be shown: on a terminal, and nobody asked for silence. */
  get showsProgress(): boolean {
    const { isTTY, columns = 0 } = this.streams.stderr;
    // A terminal that says it has no columns (a bare pty) would make the spinner erase lines for ever.
    return isTTY === true && columns > 0 && !this.quiet && !this.json;
  }

  /** A line of the result. */
  print(line: string): void {
    this.streams.stdout.write(`${line}\n`);
  }

  /** The result as one document, which is all that stdout gets under `--json`. */
  printJson(document: Record<string, unknown>): void {
    this.print(JSON.stringify({ schemaVersion: JSON_SCHEMA_VERSION, ...document }));
  }

  /** A message that is no result. */
  say(line: string): void {
    if (!this.quiet) this.streams.stderr.write(`${line}\n`);
  }

  /** An error: one clear message, or one document under `--json`; the stack only with `-v`. */
  fail(error: KhoError): void {
    if (this.json) {
      this.printJson({ error: { code: error.code, message: error.message, details: error.details } });
      return;
    }
    this.streams.stderr.write(`khorus: ${describeError(error)}\n`);
    if (this.verbose && error.stack !== undefined) this.streams.stderr.write(`${error.stack}\n`);
  }
}

/** The message and what it concerns, in one line where the message is one. */
export function describeError({ message, details }: KhoError): string {
  const { driver, instance, shard, phase, path, file } = details;
  const where = [
    driver === undefined ? undefined : `driver ${driver}`,
    instance === undefined ? undefined : `instance ${instance}`,
    shard === undefined ? undefined : `shard ${shard}`,
    phase === undefined ? undefined : `in ${phase}`,
    path === undefined || message.includes(path) ? undefined : `node ${path}`,
    file === undefined || message.includes(file) ? undefined : file,
  ].filter((part) => part !== undefined && !message.includes(`(${part})`));
  return where.length === 0 ? message : `${message} (${where.join(', ')})`;
}

/** Errors of the user's making end with exit code 2, all others with 1. */
export function exitCodeOf(error: KhoError): number {
  if (error instanceof SignalReceived) return error.exitCode;
  const { driver, field, phase } = error.details;
  const usage = new Set(['KHO_ESCENARIO', 'KHO_EINVAL', 'KHO_ENOENT', 'KHO_EEXIST', 'KHO_EOPNOTSUPP', 'KHO_EBUSY']);
  // What a driver's callback did wrong is a failed run; what was asked for wrongly is wrong usage.
  if (usage.has(error.code) && phase === undefined && (driver === undefined || field !== undefined)) return EXIT_USAGE;
  return EXIT_FAILED;
}
