import { KhoError } from '../errors.js';
import { checkNodeName, checkPropertyName, FDT_MAX_DEPTH } from '../fdt/index.js';
import type { NodeRef } from '../hashstage/index.js';
import type { CallbackScope } from './callback-scope.js';
import type { NodeWriter, PropertyName } from './driver.js';
import type { NodeSink } from './sink.js';

/** An instance's node is the second level of its driver's FDT. */
const INSTANCE_DEPTH = 2;
const EMPTY = new Uint8Array(0);
const encoder = new TextEncoder();
/** Splits a bigint into halves without arithmetic on bigints: 4 ns instead of 56. */
const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);

/** The {@link NodeWriter} that drivers get: checks values and names, then hands over to the shard's sink. */
export class SinkNodeWriter implements NodeWriter {
  readonly #scope: CallbackScope;
  readonly #sink: NodeSink;
  readonly #node: NodeRef;
  readonly #depth: number;

  constructor(scope: CallbackScope, sink: NodeSink, node: NodeRef, depth = INSTANCE_DEPTH) {
    this.#scope = scope;
    this.#sink = sink;
    this.#node = node;
    this.#depth = depth;
  }

  node(name: string): NodeWriter {
    this.#scope.checkNodes('node');
    this.#checkChild(name);
    return this.#child(this.#sink.open(this.#node, name));
  }

  has(name: string): boolean {
    this.#scope.checkNodes('has');
    return this.#sink.has(this.#node, name);
  }

  remove(name: string): boolean {
    this.#scope.checkNodes('remove');
    const before = this.#sink.usedBytes;
    const removed = this.#sink.remove(this.#node, name);
    this.#sink.takenOut += before - this.#sink.usedBytes;
    return removed;
  }

  replace(name: string): NodeWriter {
    this.#scope.checkNodes('replace');
    this.#checkChild(name);
    const before = this.#sink.usedBytes;
    const child = this.#sink.replace(this.#node, name);
    this.#sink.takenOut += Math.max(0, before - this.#sink.usedBytes);
    return this.#child(child);
  }

  u32(name: string | PropertyName, value: number): NodeWriter {
    this.#scope.checkNodes('u32');
    if (!(value >= 0 && value <= 0xffffffff && Number.isInteger(value))) throw outOfRange(name, value, 32);
    this.#sink.u32(this.#node, this.#name(name), value);
    return this;
  }

  u64(name: string | PropertyName, value: bigint | number): NodeWriter {
    this.#scope.checkNodes('u64');
    const id = typeof name === 'number' ? name : this.#name(name);
    // A small number, the usual case, needs no splitting.
    if (typeof value === 'number' && value >>> 0 === value) this.#sink.u64(this.#node, id, 0, value);
    else {
      splitU64(name, value);
      this.#sink.u64(this.#node, id, halves[1] as number, halves[0] as number);
    }
    return this;
  }

  u32s(name: string | PropertyName, values: ArrayLike<number>): NodeWriter {
    this.#scope.checkNodes('u32s');
    const words = new Uint32Array(values.length);
    for (let index = 0; index < values.length; index++) {
      const value = values[index] as number;
      if (!(value >= 0 && value <= 0xffffffff && Number.isInteger(value))) throw outOfRange(name, value, 32);
      words[index] = value;
    }
    this.#sink.bytes(this.#node, this.#name(name), new Uint8Array(words.buffer));
    return this;
  }

  u64s(name: string | PropertyName, values: ArrayLike<bigint | number>): NodeWriter {
    this.#scope.checkNodes('u64s');
    const words = new Uint32Array(values.length * 2);
    for (let index = 0; index < values.length; index++) {
      splitU64(name, values[index] as bigint | number);
      words[index * 2] = halves[0] as number;
      words[index * 2 + 1] = halves[1] as number;
    }
    this.#sink.bytes(this.#node, this.#name(name), new Uint8Array(words.buffer));
    return this;
  }

  string(name: string | PropertyName, text: string): NodeWriter {
    this.#scope.checkNodes('string');
    if (typeof text !== 'string' || text.includes('\0')) {
      throw new KhoError('KHO_EINVAL', `the text of '${String(name)}' must be a string without NUL characters`);
    }
    this.#sink.bytes(this.#node, this.#name(name), encoder.encode(`${text}\0`));
    return this;
  }

  bytes(name: string | PropertyName, value: Uint8Array): NodeWriter {
    this.#scope.checkNodes('bytes');
    if (!(value instanceof Uint8Array)) {
      throw new KhoError('KHO_EINVAL', `the value of '${String(name)}' must be a Uint8Array, found ${typeof value}`);
    }
    this.#sink.bytes(this.#node, this.#name(name), value);
    return this;
  }

  flag(name: string | PropertyName): NodeWriter {
    this.#scope.checkNodes('flag');
    this.#sink.bytes(this.#node, this.#name(name), EMPTY);
    return this;
  }

  #checkChild(name: string): void {
    checkNodeName(name);
    if (this.#depth >= FDT_MAX_DEPTH) {
      throw new KhoError('KHO_EINVAL', `the node '${name}' would lie deeper than ${FDT_MAX_DEPTH} levels`);
    }
  }

  #child(node: NodeRef): NodeWriter {
    return new SinkNodeWriter(this.#scope, this.#sink, node, this.#depth + 1);
  }

  #name(name: string | PropertyName): number {
    return typeof name === 'number' ? name : propertyId(this.#scope, this.#sink, name);
  }
}

/** The run's id of a property name, whose characters are checked when this thread first meets it in a run. */
export function propertyId(scope: CallbackScope, sink: NodeSink, name: string): number {
  const known = scope.nameIds.get(name);
  if (known !== undefined) return known;
  checkPropertyName(name);
  const id = sink.nameId(name);
  scope.nameIds.set(name, id);
  return id;
}

/** Leaves the halves of a 64-bit value in `halves`. */
function splitU64(name: string | PropertyName, value: bigint | number): void {
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) throw outOfRange(name, value, 64);
    halves[0] = value;
    halves[1] = value / 2 ** 32;
    return;
  }
  // A bigint array would take text and booleans, and throw an error of its own for the rest.
  if (typeof value !== 'bigint') throw outOfRange(name, value, 64);
  wide[0] = value;
  if (wide[0] !== value) throw outOfRange(name, value, 64);
}

function outOfRange(name: string | PropertyName, value: unknown, bits: number): KhoError {
  const property = typeof name === 'string' ? name : `#${name}`;
  const hint = typeof value === 'number' && bits === 64 ? ' (above 2^53-1 use a bigint)' : '';
  return new KhoError(
    'KHO_EINVAL',
    `property '${property}': ${String(value)} is not an unsigned ${bits}-bit integer${hint}`,
    { property },
  );
}
