import * as z from 'zod';
import { PAGE_SIZE } from '../driver.js';

const UNITS = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 } as const;

/**
 * A schema for an amount of memory: a number of bytes, or text such as `6M` with K, M, G or T, as in the kernel's
 * parameters. Parsed, it is a number of bytes.
 */
export const byteSize = (bounds: { readonly min: number; readonly max: number }) =>
  z
    .union([z.number(), z.string().regex(/^[0-9]+[KMGT]?$/, 'expected bytes, or a whole number with K, M, G or T')])
    .transform((size) => (typeof size === 'number' ? size : parseSize(size)))
    .pipe(z.int().min(bounds.min).max(bounds.max));

/** The same in whole pages. */
export const memorySize = (bounds: { readonly min: number; readonly max: number }) =>
  byteSize(bounds).pipe(z.number().multipleOf(PAGE_SIZE));

function parseSize(text: string): number {
  const unit = Object.entries(UNITS).find(([suffix]) => text.endsWith(suffix));
  return Number.parseInt(text, 10) * (unit === undefined ? 1 : unit[1]);
}
