/**
 * The stable codes of {@link KhoError}. Where Linux has an errno for the case, the code carries its name;
 * `KHO_FDT_*` are the findings of the flattened-device-tree room, named after libfdt's FDT_ERR_*.
 */
export type KhoErrorCode =
  | 'KHO_EPERM' // the call is not allowed in this phase, or by this caller
  | 'KHO_ENOENT' // no such node, subtree, page or file
  | 'KHO_EIO' // a file could not be read or written
  | 'KHO_E2BIG' // larger than any place that could hold it
  | 'KHO_EAGAIN' // not possible now, though it may be later
  | 'KHO_ENOMEM' // pages, memblock regions or arenas ran out
  | 'KHO_EFAULT' // an address outside the modelled memory, or in unbacked memory
  | 'KHO_EBUSY' // taken, in use, or already finished
  | 'KHO_EEXIST' // the name, or the object, is there already
  | 'KHO_EINVAL' // a malformed argument, option or value
  | 'KHO_ENOSPC' // a declared bound is used up
  | 'KHO_EADDRNOTAVAIL' // does not fit into any scratch area
  | 'KHO_EOPNOTSUPP' // known, but not supported here
  | 'KHO_ETIMEDOUT' // the budget was overrun
  | 'KHO_ECANCELED' // ended by an AbortSignal or a signal
  | 'KHO_EDRIVER' // a driver's callback failed
  | 'KHO_EWORKER' // a worker thread died
  | 'KHO_ESCENARIO' // a scenario file is wrong
  | 'KHO_EIMAGE' // a memory image holds no usable handover
  | 'KHO_ETRACKER' // the preserved-page tracker is damaged
  | 'KHO_EDIGEST' // bytes or a state differ from what was handed over
  | 'KHO_FDT_TRUNCATED'
  | 'KHO_FDT_BADMAGIC'
  | 'KHO_FDT_BADVERSION'
  | 'KHO_FDT_BADLAYOUT'
  | 'KHO_FDT_BADSTRUCTURE'
  | 'KHO_FDT_BADVALUE'
  | 'KHO_FDT_BADSTATE'
  | 'KHO_FDT_NOSPACE'
  | 'KHO_FDT_NOTFOUND';

/** Linux errno values (asm-generic/errno-base.h, errno.h) of the codes that have one. */
const ERRNO: Partial<Record<KhoErrorCode, number>> = {
  KHO_EPERM: 1,
  KHO_ENOENT: 2,
  KHO_EIO: 5,
  KHO_E2BIG: 7,
  KHO_EAGAIN: 11,
  KHO_ENOMEM: 12,
  KHO_EFAULT: 14,
  KHO_EBUSY: 16,
  KHO_EEXIST: 17,
  KHO_EINVAL: 22,
  KHO_ENOSPC: 28,
  KHO_EOPNOTSUPP: 95,
  KHO_EADDRNOTAVAIL: 99,
  KHO_ETIMEDOUT: 110,
  KHO_ECANCELED: 125,
};

/** What a {@link KhoError} concerns. Every field is optional and structured-cloneable. */
export interface KhoErrorDetails {
  driver?: string;
  instance?: string;
  shard?: number;
  phase?: string;
  call?: string;
  /** Path of an FDT node, such as `/netdevsim0/queue3`. */
  path?: string;
  property?: string;
  /** Byte offset in the blob, file or page concerned. */
  offset?: number;
  /** Physical address. */
  address?: number;
  size?: number;
  file?: string;
  line?: number;
  column?: number;
  field?: string;
}

/** The plain form in which a {@link KhoError} crosses threads and processes. */
export interface SerializedKhoError {
  name: 'KhoError';
  code: KhoErrorCode;
  message: string;
  details: KhoErrorDetails;
  stack?: string;
  cause?: SerializedKhoError | { name: string; message: string; stack?: string };
}

/**
 * The one error that khorus throws on purpose.
 *
 * `code` is stable and meant for programs; `message` is meant for people and may change.
 * Structured clone drops an error's own fields, so between threads it travels as {@link KhoError.toJSON}
 * and comes back through {@link KhoError.from}.
 *
 * @example
 * ```ts
 * import { KhoError } from 'khorus';
 *
 * const error = new KhoError('KHO_EEXIST', "the name 'port0' is taken", { driver: 'netdevsim' });
 * console.log(error.code, error.errno, KhoError.from(error.toJSON()).details.driver); // KHO_EEXIST 17 netdevsim
 * ```
 */
export class KhoError extends Error {
  override readonly name = 'KhoError';
  readonly code: KhoErrorCode;
  readonly details: KhoErrorDetails;

  constructor(code: KhoErrorCode, message: string, details: KhoErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  /** The kernel's errno for this code (positive), where it has one. */
  get errno(): number | undefined {
    return ERRNO[this.code];
  }

  /** The same error with more said about what it concerns; fields already set win. */
  with(details: KhoErrorDetails): KhoError {
    const more = new KhoError(this.code, this.message, { ...details, ...this.details }, { cause: this.cause });
    if (this.stack !== undefined) more.stack = this.stack;
    return more;
  }

  toJSON(): SerializedKhoError {
    const { cause } = this;
    return {
      name: 'KhoError',
      code: this.code,
      message: this.message,
      details: this.details,
      ...(this.stack === undefined ? {} : { stack: this.stack }),
      ...(cause === undefined ? {} : { cause: plainCause(cause) }),
    };
  }

  /**
   * A KhoError from whatever was thrown: itself, its serialized form, or anything else,
   * which becomes `fallback` with the thrown thing as its cause.
   */
  static from(thrown: unknown, fallback: KhoErrorCode = 'KHO_EDRIVER'): KhoError {
    if (thrown instanceof KhoError) return thrown;
    if (isSerialized(thrown)) {
      const error = new KhoError(
        thrown.code,
        thrown.message,
        thrown.details,
        thrown.cause === undefined ? undefined : { cause: thrown.cause },
      );
      if (thrown.stack !== undefined) error.stack = thrown.stack;
      return error;
    }
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new KhoError(fallback, message, {}, { cause: thrown });
  }
}

function isSerialized(value: unknown): value is SerializedKhoError {
  return typeof value === 'object' && value !== null && 'name' in value && value.name === 'KhoError' && 'code' in value;
}

function plainCause(cause: unknown): NonNullable<SerializedKhoError['cause']> {
  if (cause instanceof KhoError) return cause.toJSON();
  if (isSerialized(cause)) return cause;
  if (cause instanceof Error) {
    return { name: cause.name, message: cause.message, ...(cause.stack === undefined ? {} : { stack: cause.stack }) };
  }
  return { name: typeof cause, message: String(cause) };
}
