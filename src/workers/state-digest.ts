import { createHash, type Hash } from 'node:crypto';
import { KhoError } from '../errors.js';

/**
 * A SHA-256 of plain data: null, booleans, numbers, bigints, strings, byte and typed arrays, arrays, Maps, Sets and
 * plain objects (whose keys are sorted, so that the order of assignment does not matter). The same value gives the
 * same digest in every process; values of different types never do. KHO_EINVAL for anything else, such as a function.
 */
export function stateDigest(value: unknown): string {
  const hash = createHash('sha256');
  add(hash, value, 'the snapshot');
  return hash.digest('hex');
}

function add(hash: Hash, value: unknown, where: string): void {
  if (value === null || value === undefined) hash.update(`${value};`);
  else if (typeof value === 'boolean') hash.update(`b${value};`);
  else if (typeof value === 'number') hash.update(`n${Object.is(value, -0) ? '-0' : value};`);
  else if (typeof value === 'bigint') hash.update(`i${value};`);
  else if (typeof value === 'string') hash.update(`s${Buffer.byteLength(value)}:${value};`);
  else if (ArrayBuffer.isView(value)) {
    hash.update(`${value.constructor.name}${value.byteLength}:`);
    hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  } else if (Array.isArray(value)) {
    hash.update(`a${value.length}:`);
    for (const [index, element] of value.entries()) add(hash, element, `${where}[${index}]`);
  } else if (value instanceof Map) {
    hash.update(`m${value.size}:`);
    for (const [key, element] of value) {
      add(hash, key, `a key of ${where}`);
      add(hash, element, `${where}.get(${String(key)})`);
    }
  } else if (value instanceof Set) {
    hash.update(`t${value.size}:`);
    for (const element of value) add(hash, element, `an element of ${where}`);
  } else if (typeof value === 'object' && isPlain(value)) {
    const keys = Object.keys(value).sort();
    hash.update(`o${keys.length}:`);
    for (const key of keys) {
      add(hash, key, where);
      add(hash, (value as Record<string, unknown>)[key], `${where}.${key}`);
    }
  } else {
    throw new KhoError('KHO_EINVAL', `${where} is ${describe(value)}; a snapshot is plain data`);
  }
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

function describe(value: unknown): string {
  if (typeof value === 'object' && value !== null) return `an instance of ${value.constructor?.name ?? 'a class'}`;
  return `a ${typeof value}`;
}
