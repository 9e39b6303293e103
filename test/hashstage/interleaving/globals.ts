import { CheckerError } from './program.js';
import { type AccessKind, ATOMIC_READ, ATOMIC_UPDATE, ATOMIC_WRITE } from './shared-memory.js';

/**
 * What shipped code finds in place of the language's globals. Real shared memory is never in its reach, only these
 * objects: so no access can go unseen, whatever the code does with an array, and what is not simulated fails loudly.
 * Arrays that are not over a shared buffer are the language's own.
 */
export interface SimulatedGlobals {
  readonly Atomics: typeof Atomics;
  readonly SharedArrayBuffer: typeof SharedArrayBuffer;
  readonly Int32Array: typeof Int32Array;
  readonly [name: string]: unknown;
}

/** One element's value. */
export type Element = number | bigint;

/** A typed array of the language over the simulated memory's bytes, by whose type an access is made. */
export type NativeArray = Int32Array | Uint8Array | BigInt64Array;

/** A function of Atomics that reads or writes one element. */
export type AtomicOperation = (array: NativeArray, index: number, first: unknown, second: unknown) => Element;

/** Who carries out the accesses. */
export interface Accesses {
  readonly buffer: ArrayBuffer;
  reserve(bytes: number): number;
  read(array: NativeArray, index: number): Element | undefined;
  write(array: NativeArray, index: number, value: Element): void;
  atomic(
    array: NativeArray,
    index: number,
    kind: AccessKind,
    operation: AtomicOperation,
    first: unknown,
    second: unknown,
  ): Element;
  /** Ends the exploration: the code uses something that is not simulated. */
  fail(error: CheckerError): never;
}

const ARRAY_TYPES = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
];

type ArrayType = new (
  buffer: ArrayBuffer | number | ArrayLike<Element>,
  byteOffset?: number,
  length?: number,
) => NativeArray;

const UPDATES = ['add', 'sub', 'and', 'or', 'xor', 'exchange', 'compareExchange'] as const;
const NATIVE = Symbol('native');

/** The names that shipped code must not find as the language's own. */
export const REPLACED_GLOBALS = [
  'Atomics',
  'SharedArrayBuffer',
  ...ARRAY_TYPES.map(({ name }) => name),
  'DataView',
  'WebAssembly',
  'globalThis',
  'global',
  'self',
] as const;

/** Objects that stand for the globals and make every access of shared memory through `accesses`. */
export function simulatedGlobals(accesses: Accesses): SimulatedGlobals {
  class SimulatedBuffer {
    readonly at: number;
    readonly byteLength: number;
    constructor(byteLength: number, options?: unknown) {
      if (options !== undefined) accesses.fail(new CheckerError('growable shared memory is not simulated'));
      this.byteLength = byteLength;
      this.at = accesses.reserve(byteLength);
    }
  }

  class SimulatedArray {
    readonly native: NativeArray;
    readonly source: SimulatedBuffer;
    readonly type: ArrayType;
    constructor(type: ArrayType, source: SimulatedBuffer, byteOffset = 0, length?: number) {
      const size = (type as unknown as typeof Int32Array).BYTES_PER_ELEMENT;
      const elements = length ?? (source.byteLength - byteOffset) / size;
      // The bounds and alignment that the language would check.
      if (byteOffset % size !== 0 || !Number.isInteger(elements) || byteOffset + elements * size > source.byteLength) {
        throw new RangeError(`${elements} elements at byte ${byteOffset} do not fit the shared buffer`);
      }
      this.type = type;
      this.source = source;
      this.native = new type(accesses.buffer, source.at + byteOffset, elements);
    }

    get(index: number): Element | undefined {
      return accesses.read(this.native, index);
    }

    /** Properties and methods; a method works element by element, as the language defines it for shared memory. */
    member(name: string | symbol): unknown {
      const { native } = this;
      const { length } = native;
      const range = (start = 0, end = length): [number, number] => [
        start < 0 ? Math.max(0, length + start) : Math.min(start, length),
        end < 0 ? Math.max(0, length + end) : Math.min(end, length),
      ];
      switch (name) {
        case NATIVE:
          return native;
        case 'length':
        case 'byteLength':
        case 'BYTES_PER_ELEMENT':
          return native[name];
        case 'byteOffset':
          return native.byteOffset - this.source.at;
        case 'buffer':
          return this.source;
        case 'set':
          return (from: ArrayLike<Element>, offset = 0) => {
            if (offset < 0 || from.length + offset > length) throw new RangeError('offset is out of bounds');
            // Both may be views of the same memory.
            const values = Array.from(from);
            for (const [index, value] of values.entries()) accesses.write(native, offset + index, value);
          };
        case 'fill':
          return (value: Element, start?: number, end?: number) => {
            const [from, to] = range(start, end);
            for (let index = from; index < to; index++) accesses.write(native, index, value);
          };
        case 'subarray':
          return (start?: number, end?: number) => {
            const [from, to] = range(start, end);
            const offset = native.byteOffset - this.source.at + from * native.BYTES_PER_ELEMENT;
            return wrap(new SimulatedArray(this.type, this.source, offset, Math.max(0, to - from)));
          };
        case 'slice':
          return (start?: number, end?: number) => {
            const [from, to] = range(start, end);
            const copy = new this.type(Math.max(0, to - from)) as Int32Array;
            for (let index = from; index < to; index++) copy[index - from] = this.get(index) as number;
            return copy;
          };
        case 'copyWithin':
          return (target: number, start?: number, end?: number) => {
            const [from, to] = range(start, end);
            const [at] = range(target);
            const values: Element[] = [];
            for (let index = from; index < to && at + index - from < length; index++) {
              values.push(this.get(index) as Element);
            }
            for (const [index, value] of values.entries()) accesses.write(native, at + index, value);
          };
        case Symbol.iterator:
        case 'values':
          return function* (this: SimulatedArray) {
            for (let index = 0; index < length; index++) yield this.get(index);
          }.bind(this);
        default:
          if (typeof name === 'symbol') return undefined;
          return accesses.fail(new CheckerError(`'${name}' of a shared ${this.type.name} is not simulated`));
      }
    }
  }

  const handler: ProxyHandler<SimulatedArray> = {
    get(array, key) {
      if (typeof key === 'string') {
        const index = +key;
        if (!Number.isNaN(index)) return accesses.read(array.native, index);
      }
      return array.member(key);
    },
    set(array, key, value) {
      const index = typeof key === 'string' ? +key : Number.NaN;
      if (Number.isNaN(index))
        return accesses.fail(new CheckerError(`'${String(key)}' of a shared array cannot be set`));
      accesses.write(array.native, index, value);
      return true;
    },
    getPrototypeOf: (array) => array.type.prototype,
  };
  const wrap = (array: SimulatedArray): SimulatedArray => new Proxy(array, handler);

  const globals: Record<string, unknown> = {
    SharedArrayBuffer: SimulatedBuffer,
    globalThis: undefined,
    global: undefined,
    self: undefined,
  };
  for (const type of ARRAY_TYPES) {
    globals[type.name] = new Proxy(type, {
      construct(target, [source, ...rest], newTarget) {
        if (!(source instanceof SimulatedBuffer)) return Reflect.construct(target, [source, ...rest], newTarget);
        return wrap(new SimulatedArray(target as unknown as ArrayType, source, ...(rest as [number?, number?])));
      },
    });
  }
  globals.DataView = new Proxy(DataView, {
    construct(target, [source, ...rest], newTarget) {
      if (source instanceof SimulatedBuffer) accesses.fail(new CheckerError('a shared DataView is not simulated'));
      return Reflect.construct(target, [source, ...rest], newTarget);
    },
  });
  globals.WebAssembly = new Proxy(
    {},
    { get: (_, key) => accesses.fail(new CheckerError(`WebAssembly.${String(key)} is not simulated`)) },
  );

  const nativeOf = (array: unknown): NativeArray | undefined =>
    (array as { [NATIVE]?: NativeArray } | undefined)?.[NATIVE];
  const atomic = (name: (typeof UPDATES)[number] | 'load' | 'store', kind: AccessKind) => {
    const operation = Atomics[name] as unknown as AtomicOperation;
    return (array: NativeArray, index: number, first: unknown, second: unknown): Element => {
      const native = nativeOf(array);
      if (native === undefined) return operation(array, index, first, second);
      return accesses.atomic(native, index, kind, operation, first, second);
    };
  };
  const simulatedAtomics: Record<string, unknown> = {
    load: atomic('load', ATOMIC_READ),
    store: atomic('store', ATOMIC_WRITE),
    isLockFree: Atomics.isLockFree,
  };
  for (const name of UPDATES) simulatedAtomics[name] = atomic(name, ATOMIC_UPDATE);
  for (const name of ['wait', 'waitAsync', 'notify', 'pause']) {
    simulatedAtomics[name] = () => accesses.fail(new CheckerError(`Atomics.${name} is not simulated`));
  }
  globals.Atomics = simulatedAtomics;
  return globals as unknown as SimulatedGlobals;
}
