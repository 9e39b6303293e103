import { z } from 'zod';
import { checkOneFdtRoom, PROFILE_NAMES } from '../abi/index.js';
import {
  BUDGETED_PHASES,
  type BudgetedPhase,
  CMDLINE_MAX,
  CPUS_MAX,
  LATE_WRITE_POLICIES,
  OVERRUN_POLICIES,
  RELEASE_MAX,
  SHUTDOWN_FAILURE_POLICIES,
  TRIGGERS,
} from '../coordinator/plan.js';
import { KhoError } from '../errors.js';
import { MAX_NUMNODES, PHYS_ADDR_MAX } from '../memblock/index.js';
import { MODES as REAL_MODES } from '../workers/index.js';
import { didYouMean } from './suggest.js';
import { DURATION_FORM, formatSize, parseDuration, parseSize, SIZE_FORM } from './units.js';

const MIB = 2 ** 20;
const TIB = 2 ** 40;
/** What the model of the machine can hold. */
export const MEMORY_MIN = 16 * MIB;
export const MEMORY_MAX = 64 * TIB;
/** Memory comes in the kernel's large pages on x86-64. */
export const MEMORY_STEP = 2 * MIB;
/** MAX_NUMNODES of x86-64's defconfig (CONFIG_NODES_SHIFT=6). */
const NODES_MAX = 64;
/** A kernel's image is mapped in pages of 4 KiB at least, and KERNEL_IMAGE_SIZE of x86-64 with KASLR is 1 GiB. */
const KERNEL_SIZE_STEP = 4096;
const KERNEL_SIZE_MAX = 2 ** 30;
/** More instances than this in one entry are surely a slip. */
const COUNT_MAX = 65_536;
export const WORKERS_MAX = 1024;

export const ARCHES = ['x86_64'] as const;
/** What `mode` may be. */
export const MODES = ['auto', ...REAL_MODES] as const;

/** What a range of firmware may be called: memory as the kernel's files call it, and all else. */
export const FIRMWARE_TYPES = ['System RAM', 'Reserved'] as const;
const CMDLINE_RULES = ['strict', 'kernel'] as const;

/** Every schema's `error` is what would be right; {@link describeIssue} puts what was found before it. */
const wholeNumber = (min: number, max: number) => {
  const error = `a whole number from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
};
const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, { error: listed(values) });
const mapping = <Shape extends z.ZodRawShape>(shape: Shape, example: string) =>
  z.strictObject(shape, { error: `a mapping such as ${example}` });

/** A size or duration; the parser's own message says what is wrong. */
const quantity = (form: string, parse: (text: string | number) => number) =>
  z.union([z.string(), z.number()], { error: form }).transform((value, context) => {
    try {
      return parse(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: KhoError.from(error).message });
      return z.NEVER;
    }
  });

const text = (max: number, form: string) => {
  const error = `${form}, at most ${max} printable ASCII characters`;
  return z
    .string({ error })
    .max(max, { error })
    .regex(/^[\x20-\x7e]*$/, { error });
};

const address = wholeNumber(0, PHYS_ADDR_MAX - 1);
const range = { start: address, end: address };
const list = <T extends z.ZodType>(item: T, example: string) => z.array(item, { error: `a list such as [${example}]` });
const RANGE_FORM = '{ start: 0x100000, end: 0xbfffffff }';
const FIRMWARE_FORM = '{ start: 0x100000, end: 0xbfffffff, type: System RAM }';
const NODE_FORM = '{ node: 0, start: 0x100000, end: 0xbfffffff }';

/** As the kernel's files have it: both ends inclusive. */
const memoryMap = mapping(
  {
    firmware: list(mapping({ ...range, type: oneOf(FIRMWARE_TYPES) }, FIRMWARE_FORM), FIRMWARE_FORM),
    nodes: list(mapping({ node: wholeNumber(0, MAX_NUMNODES - 1).default(0), ...range }, NODE_FORM), NODE_FORM),
    kernel: mapping(range, RANGE_FORM).optional(),
    reserved: list(mapping(range, RANGE_FORM), RANGE_FORM).optional(),
  },
  `{ firmware: [${FIRMWARE_FORM}], nodes: [${NODE_FORM}] }`,
);
/** What a scenario says where its memory lies. */
export type MemoryMapFields = z.infer<typeof memoryMap>;

const DIRECTORY_FORM = "a directory that 'khorus capture --dir' wrote";

const host = mapping(
  {
    arch: oneOf(ARCHES).default('x86_64'),
    from: z.string({ error: DIRECTORY_FORM }).min(1, { error: DIRECTORY_FORM }).optional(),
    devices: z.boolean({ error: 'true or false' }).optional(),
    memory: quantity(SIZE_FORM, checkedMemory).optional(),
    nodes: wholeNumber(1, NODES_MAX).optional(),
    guestMemory: quantity(SIZE_FORM, checkedGuestMemory).optional(),
    memoryMap: memoryMap.optional(),
    cpus: wholeNumber(1, CPUS_MAX).optional(),
    kernelSize: quantity(SIZE_FORM, checkedKernelSize).optional(),
    cmdline: text(CMDLINE_MAX, 'a kernel command line').optional(),
    cmdlineRules: oneOf(CMDLINE_RULES).optional(),
    release: text(RELEASE_MAX, 'a kernel release').min(1, { error: 'a kernel release' }).optional(),
  },
  '{ memory: 2G, nodes: 2 }',
);

const phaseBudgets = mapping(
  Object.fromEntries(
    BUDGETED_PHASES.map((phase) => [phase, quantity(DURATION_FORM, checkedBudget).optional()]),
  ) as Record<BudgetedPhase, z.ZodOptional<ReturnType<typeof quantity>>>,
  '{ freeze: 5ms, serialize: 20ms }',
);

const budget = mapping(
  {
    blackout: quantity(DURATION_FORM, checkedBudget).optional(),
    phases: phaseBudgets.optional(),
    onOverrun: oneOf(OVERRUN_POLICIES).default('cancel'),
  },
  '{ blackout: 50ms, onOverrun: cancel }',
);

const driver = mapping(
  {
    use: z
      .string({ error: "the name of a driver or a module's path" })
      .min(1, { error: "the name of a driver or a module's path" }),
    count: wholeNumber(1, COUNT_MAX).default(1),
    // Any YAML: the driver checks it.
    options: z.unknown().optional(),
    after: z.array(z.string({ error: 'the name of a driver' }), { error: 'a list such as [iommu]' }).default([]),
    priority: wholeNumber(-1_000_000, 1_000_000).default(0),
    budget: quantity(DURATION_FORM, checkedBudget).optional(),
    freezeEarly: z.boolean({ error: 'true or false' }).default(false),
  },
  '{ use: netdevsim, count: 64 }',
);

export const DRIVERS_FORM = "a list with at least one entry such as '- { use: netdevsim }'";

/** What a scenario file may say. */
export const scenarioSchema = mapping(
  {
    host,
    profile: oneOf(PROFILE_NAMES).default('kho-v4'),
    fdtMax: quantity(SIZE_FORM, checkedFdtMax).optional(),
    mode: oneOf(MODES).optional(),
    workers: wholeNumber(1, WORKERS_MAX).optional(),
    seed: wholeNumber(0, Number.MAX_SAFE_INTEGER).default(0),
    budget: budget.optional(),
    trigger: oneOf(TRIGGERS).optional(),
    onShutdownFailure: oneOf(SHUTDOWN_FAILURE_POLICIES).optional(),
    lateWrites: oneOf(LATE_WRITE_POLICIES).optional(),
    callbackLimit: quantity(DURATION_FORM, checkedBudget).optional(),
    // At least one, unless the host is captured and brings some: hostProblems() in scenario-host.ts sees to it.
    drivers: z.array(driver, { error: DRIVERS_FORM }).optional(),
  },
  "'host:' and 'drivers:'",
);

/** `memory`: KHO_EINVAL unless it is 16M to 64T and a multiple of 2M. */
function checkedMemory(size: string | number): number {
  const bytes = parseSize(size);
  if (bytes < MEMORY_MIN || bytes > MEMORY_MAX) {
    const range = `${formatSize(MEMORY_MIN)} to ${formatSize(MEMORY_MAX)}`;
    throw new KhoError('KHO_EINVAL', `'${size}' is too ${bytes < MEMORY_MIN ? 'small' : 'large'}; expected ${range}`);
  }
  if (bytes % MEMORY_STEP !== 0) {
    const below = bytes - (bytes % MEMORY_STEP);
    const near = `${formatSize(below)} or ${formatSize(below + MEMORY_STEP)}`;
    throw new KhoError('KHO_EINVAL', `'${size}' is not a multiple of ${formatSize(MEMORY_STEP)}; expected ${near}`);
  }
  return bytes;
}

/** `guestMemory`: KHO_EINVAL unless it is a multiple of 2M, or 0. Whether a host has so much, the host says. Also what `--guest-memory` is parsed with. */
export function checkedGuestMemory(size: string | number): number {
  const bytes = parseSize(size, { step: MEMORY_STEP });
  if (bytes === 0 || (bytes <= MEMORY_MAX && bytes % MEMORY_STEP === 0)) return bytes;
  const step = formatSize(MEMORY_STEP);
  throw new KhoError('KHO_EINVAL', `'${size}' is not a multiple of ${step} up to ${formatSize(MEMORY_MAX)}`);
}

/** `kernelSize`: KHO_EINVAL unless it is 4K to 1G and a multiple of 4K. */
function checkedKernelSize(size: string | number): number {
  const bytes = parseSize(size);
  if (bytes < KERNEL_SIZE_STEP || bytes > KERNEL_SIZE_MAX || bytes % KERNEL_SIZE_STEP !== 0) {
    throw new KhoError('KHO_EINVAL', `'${size}' is no kernel's size; expected 4K to 1G, a multiple of 4K`);
  }
  return bytes;
}

/** `fdtMax`: KHO_EINVAL unless it is 4K to 256M and a multiple of 4K. Also what `--fdt-max` is parsed with. */
export function checkedFdtMax(size: string | number): number {
  const bytes = parseSize(size);
  checkOneFdtRoom(bytes);
  return bytes;
}

/** The budget: KHO_EINVAL unless it is longer than nothing. Also what `--budget` is parsed with. */
export function checkedBudget(duration: string | number): number {
  const milliseconds = parseDuration(duration);
  if (milliseconds <= 0) throw new KhoError('KHO_EINVAL', `a budget of '${duration}' can never be met`);
  return milliseconds;
}

/** The fields of the mapping at `path`. */
function fieldsAt(path: readonly PropertyKey[]): string[] {
  const [first] = path;
  if (first === 'host') return hostFieldsAt(path.slice(1));
  if (first === 'budget') return Object.keys((path[1] === 'phases' ? phaseBudgets : budget).shape);
  return Object.keys(first === 'drivers' ? driver.shape : scenarioSchema.shape);
}

function hostFieldsAt([first, list]: readonly PropertyKey[]): string[] {
  if (first !== 'memoryMap') return Object.keys(host.shape);
  if (list === 'firmware') return [...Object.keys(range), 'type'];
  if (list === 'nodes') return ['node', ...Object.keys(range)];
  return Object.keys(list === undefined ? memoryMap.shape : range);
}

/** One finding of the schema in words, and whether it concerns a key or a value. */
export interface SchemaFinding {
  readonly what: string;
  readonly path: readonly PropertyKey[];
  readonly of: 'key' | 'value';
}

/** An issue of Zod's as findings; `found` is the value at the issue's path. */
export function describeIssue(issue: z.core.$ZodIssue, found: unknown): SchemaFinding[] {
  const { path } = issue;
  if (issue.code === 'unrecognized_keys') {
    const known = fieldsAt(path);
    return issue.keys.map((key) => ({
      what: `unknown field '${key}'${didYouMean(key, known) || `; known here: ${known.join(', ')}`}`,
      path: [...path, key],
      of: 'key',
    }));
  }
  if (found === undefined && path.length > 0) {
    const what = `the field '${String(path[path.length - 1])}' is missing; expected ${issue.message}`;
    return [{ what, path, of: 'value' }];
  }
  if (issue.code === 'custom') return [{ what: issue.message, path, of: 'value' }];
  const suggestion =
    issue.code === 'invalid_value' && issue.values.length > 1 && typeof found === 'string'
      ? didYouMean(found, issue.values.map(String))
      : '';
  return [{ what: `found ${show(found)}; expected ${issue.message}${suggestion}`, path, of: 'value' }];
}

/** `'a'`, `'a' or 'b'`, `one of 'a', 'b', 'c'`. */
export function listed(values: readonly string[]): string {
  const quoted = values.map((value) => `'${value}'`);
  return quoted.length > 2 ? `one of ${quoted.join(', ')}` : quoted.join(' or ');
}

function show(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object') return 'a mapping';
  const text = String(value);
  return `'${text.length > 60 ? `${text.slice(0, 60)}…` : text}'`;
}
