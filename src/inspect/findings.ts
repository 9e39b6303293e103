import { KhoError, type KhoErrorCode } from '../errors.js';

/**
 * `error`: a check failed, the next kernel would refuse it, lose it or warn. `warning`: it may be right, but somebody
 * should know. `info`: nothing is wrong.
 */
export type Severity = 'error' | 'warning' | 'info';

export interface Finding {
  readonly severity: Severity;
  readonly code: KhoErrorCode;
  readonly message: string;
  /** The physical address that it concerns. */
  readonly address?: number;
}

/** Findings of one kind that are listed; of the others only the number is told. */
const LISTED_OF_A_KIND = 20;

/** What was found while a handover was read. Damage in one place never hides the rest: it is noted, and reading goes on. */
export class Findings {
  readonly #list: Finding[] = [];
  readonly #kinds = new Map<string, number>();

  /** Notes something. Of one `kind` only the first {@link LISTED_OF_A_KIND} are listed. */
  add(severity: Severity, error: KhoError, kind: string = error.code): void {
    const count = (this.#kinds.get(kind) ?? 0) + 1;
    this.#kinds.set(kind, count);
    const { address } = error.details;
    const finding = {
      severity,
      code: error.code,
      message: error.message,
      ...(address === undefined ? {} : { address }),
    };
    if (count <= LISTED_OF_A_KIND) this.#list.push(finding);
  }

  error(error: KhoError, kind?: string): void {
    this.add('error', error, kind);
  }

  /** Runs `read`; a KhoError that it throws is an error found, and the result undefined. */
  attempt<T>(read: () => T, kind?: string): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof KhoError)) throw error;
      this.error(error, kind);
      return undefined;
    }
  }

  /** All findings, errors first. */
  list(): Finding[] {
    const more = [...this.#kinds].flatMap(([kind, count]): Finding[] =>
      count <= LISTED_OF_A_KIND
        ? []
        : [
            {
              severity: 'info',
              code: 'KHO_E2BIG',
              message: `${count - LISTED_OF_A_KIND} more findings (${kind}) are not listed`,
            },
          ],
    );
    const all = [...this.#list, ...more];
    return (['error', 'warning', 'info'] as const).flatMap((severity) =>
      all.filter((one) => one.severity === severity),
    );
  }

  get failed(): boolean {
    return this.#list.some(({ severity }) => severity === 'error');
  }
}
