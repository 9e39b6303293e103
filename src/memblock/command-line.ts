import { KhoError, type KhoErrorCode } from '../errors.js';
import { PAGE_SIZE } from './address.js';
import { kstrtobool, kstrtouint, memparse } from './kstrtox.js';
import { SMP_CACHE_BYTES } from './memblock.js';
import { isPowerOfTwo } from './round.js';

/** The most `reserve_mem=` that a kernel takes (mm/memblock.c). */
export const RESERVE_MEM_MAX_ENTRIES = 8;
/** Room for the name of one, its terminating zero included. */
export const RESERVE_MEM_NAME_SIZE = 16;
/** What scratch is scaled by without `kho_scratch=`, in percent of what the kernel allocated while booting. */
export const DEFAULT_SCRATCH_SCALE = 200;
/** More digits do not fit into an unsigned int. */
const SCALE_MAX_DIGITS = 10;

/** One word of a command line. */
export interface KernelArgument {
  name: string;
  /** Undefined without `=`; without its quotes. */
  value: string | undefined;
  /** Where the word begins in the text. */
  offset: number;
}

/**
 * How large scratch shall be. With a `scale` (percent, not 0) it is computed from what the kernel allocated; else by the
 * three sizes, in bytes, each of which may be 0. The kernel keeps the four of them in the same way.
 */
export interface ScratchParameter {
  scale: number;
  lowmem: number;
  global: number;
  pernode: number;
}

/** `reserve_mem=<size>:<align>:<name>`. Bytes; `align` is at least {@link SMP_CACHE_BYTES}, as the kernel makes it. */
export interface ReserveMemParameter {
  name: string;
  size: number;
  align: number;
}

/** What a command line says of the handover. */
export interface KernelParameters {
  kho: boolean;
  scratch: ScratchParameter;
  reserveMem: ReserveMemParameter[];
  /** What the kernel ignores or does otherwise than was probably meant. */
  warnings: string[];
  /** Words of other parts of the kernel, as they stand. */
  unknown: string[];
}

/** How to read a command line. */
export interface CommandLineOptions {
  /** `strict`, for a scenario: what the kernel would refuse is an error. `kernel`, for a captured host: it is a warning, and goes as in the kernel. */
  mode: 'strict' | 'kernel';
  /** CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT: whether KHO is on without `kho=`. */
  khoDefault: boolean;
}

const SPACE = /[\t-\r \u00a0]/;

/**
 * Splits a command line into words as the kernel's next_arg() does: spaces separate, double quotes around a word or
 * around a value keep them, nothing escapes a quote, and an `=` that begins a word is part of its name. A word `--` ends
 * the kernel's part; the rest is for init.
 */
export function tokenizeCommandLine(text: string): KernelArgument[] {
  const words: KernelArgument[] = [];
  let at = 0;
  for (;;) {
    while (at < text.length && SPACE.test(text[at])) at++;
    if (at >= text.length) return words;
    const offset = at;
    const quoted = text[at] === '"';
    if (quoted) at++;
    const start = at;
    let inQuotes = quoted;
    let equals = -1;
    for (; at < text.length && (inQuotes || !SPACE.test(text[at])); at++) {
      if (equals < 0 && at > start && text[at] === '=') equals = at;
      if (text[at] === '"') inQuotes = !inQuotes;
    }
    const valueQuoted = equals >= 0 && text[equals + 1] === '"';
    const end = (quoted || valueQuoted) && text[at - 1] === '"' ? at - 1 : at;
    const name = text.slice(start, equals < 0 ? Math.max(start, end) : equals);
    const value = equals < 0 ? undefined : text.slice(equals + (valueQuoted ? 2 : 1), Math.max(equals, end));
    if (name === '--' && value === undefined) return words;
    words.push({ name, value, offset });
  }
}

/**
 * Reads `kho=`, `kho_scratch=` and `reserve_mem=` by the rules of Linux 7.2. In names, `-` and `_` are the same.
 * In strict mode: KHO_EINVAL for a value that the kernel refuses or misreads, KHO_EBUSY for a reserve_mem name used
 * twice and for the ninth; `details` name field and offset.
 */
export function parseCommandLine(text: string, { mode, khoDefault }: CommandLineOptions): KernelParameters {
  const parameters: KernelParameters = {
    kho: khoDefault,
    scratch: { scale: DEFAULT_SCRATCH_SCALE, lowmem: 0, global: 0, pernode: 0 },
    reserveMem: [],
    warnings: [],
    unknown: [],
  };
  for (const { name, value, offset } of tokenizeCommandLine(text)) {
    const word = value === undefined ? name : `${name}=${value}`;
    const settle = <T>({ value: read, problem, consequence, code = 'KHO_EINVAL' }: Reading<T>): T | undefined => {
      if (problem !== undefined && mode === 'strict') {
        throw new KhoError(code, `${word}: ${problem}`, { field: name, offset });
      }
      if (problem !== undefined) parameters.warnings.push(`${word}: ${problem}; ${consequence}`);
      return read;
    };
    const known = name.replaceAll('-', '_');
    if (known === 'kho') {
      parameters.kho = settle(readKho(value, parameters.kho)) ?? parameters.kho;
    } else if (known === 'kho_scratch') {
      parameters.scratch = settle(readScratch(value ?? '', parameters.scratch)) ?? parameters.scratch;
    } else if (known === 'reserve_mem' && value !== undefined) {
      const reservation = settle(readReserveMem(value, parameters.reserveMem));
      if (reservation === undefined) continue;
      parameters.reserveMem.push(reservation);
      if (reservation.size % PAGE_SIZE !== 0) {
        parameters.warnings.push(`${word}: only the whole pages of its ${reservation.size} bytes are preserved`);
      }
    } else {
      parameters.unknown.push(word);
    }
  }
  return parameters;
}

/** What a value says (undefined: nothing that the kernel takes), and what is wrong with it. */
interface Reading<T> {
  value?: T;
  problem?: string;
  /** What the kernel does then. */
  consequence?: string;
  /** KHO_EINVAL, if nothing else is said. */
  code?: KhoErrorCode;
}

function readKho(text: string | undefined, current: boolean): Reading<boolean> {
  const value = text === undefined ? undefined : kstrtobool(text);
  if (value !== undefined) return { value };
  return { problem: 'expected on or off', consequence: `KHO stays ${current ? 'on' : 'off'}` };
}

const SCRATCH_FORMS = 'expected <lowmem>,<global>,<per node>, such as 16M,256M,64M, or a percentage, such as 200%';

function readScratch(text: string, current: ScratchParameter): Reading<ScratchParameter> {
  const consequence = current.scale === 0 ? 'the sizes given before it stay' : `scratch stays at ${current.scale} %`;
  if (text.endsWith('%')) {
    const digits = text.slice(0, -1);
    const scale = digits.length <= SCALE_MAX_DIGITS ? kstrtouint(digits) : undefined;
    if (scale === undefined) return { problem: 'expected a whole percentage, such as 200%', consequence };
    const value = { ...current, scale };
    if (scale > 0) return { value };
    const fixed = 'the fixed sizes count, which are 0 unless given';
    return { value, problem: '0 % leaves no scratch to boot in', consequence: fixed };
  }
  const sizes: number[] = [];
  let rest = text;
  for (const separator of ['', ',', ',']) {
    const size = memparse(rest.slice(separator.length));
    if (!rest.startsWith(separator) || size.rest.length === rest.length - separator.length) {
      return { problem: SCRATCH_FORMS, consequence };
    }
    sizes.push(size.value);
    rest = size.rest;
  }
  if (rest !== '') return { problem: `'${rest}' is left over; ${SCRATCH_FORMS}`, consequence };
  const [lowmem, global, pernode] = sizes;
  if (lowmem + global + pernode === 0) return { problem: 'at least one of the sizes must not be 0', consequence };
  return { value: { scale: 0, lowmem, global, pernode } };
}

const RESERVE_MEM_FORM = 'expected <size>:<alignment>:<name>, such as 1M:4096:trace';

function readReserveMem(text: string, taken: readonly ReserveMemParameter[]): Reading<ReserveMemParameter> {
  const consequence = 'nothing is reserved for it';
  if (taken.length >= RESERVE_MEM_MAX_ENTRIES) {
    const problem = `no more room, ${RESERVE_MEM_MAX_ENTRIES} reservations are the most`;
    return { problem, consequence, code: 'KHO_EBUSY' };
  }
  const size = memparse(text);
  if (size.value === 0 || !size.rest.startsWith(':')) return { problem: RESERVE_MEM_FORM, consequence };
  // No digits at all are an alignment of 0 here: `1M::trace` is valid.
  const align = memparse(size.rest.slice(1));
  if (!align.rest.startsWith(':')) return { problem: RESERVE_MEM_FORM, consequence };
  const name = align.rest.slice(1);
  if (name.length === 0 || name.length >= RESERVE_MEM_NAME_SIZE || [...name].every((char) => SPACE.test(char))) {
    const problem = `the name must have 1 to ${RESERVE_MEM_NAME_SIZE - 1} characters, not spaces alone`;
    return { problem, consequence };
  }
  if (taken.some((other) => other.name === name)) {
    return { problem: `the name '${name}' is taken`, consequence, code: 'KHO_EBUSY' };
  }
  const value = { name, size: size.value, align: Math.max(align.value, SMP_CACHE_BYTES) };
  if (align.value === 0 || isPowerOfTwo(align.value)) return { value };
  const problem = `the alignment ${align.value} is no power of two`;
  return { value, problem, consequence: 'the kernel uses it as a bit mask all the same' };
}
