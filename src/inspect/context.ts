import { createHash } from 'node:crypto';
import type { KhoError } from '../errors.js';
import { after, type PhysicalAddress, type PhysicalMemory } from '../memblock/index.js';
import type { Claims } from './claims.js';
import type { Findings } from './findings.js';

/** What everybody has who reads a part of a handover. */
export interface InspectContext {
  readonly memory: PhysicalMemory;
  readonly findings: Findings;
  /** Undefined if the tracker cannot be read: then nothing can be said of what is preserved. */
  readonly claims: Claims | undefined;
  /** Whether contents are read too, for digests and checksums. */
  readonly contents: boolean;
  /**
   * What may still be spent: a damaged or hostile handover can name the same memory again and again, and must neither
   * take for ever nor fill this machine's memory.
   */
  readonly budget: {
    /** Bytes of content to read, holes included. */
    contentBytes: number;
    /** Sessions and files to list. */
    entries: number;
  };
}

/** What became of reading a content: its digest or checksum is there only if it was read. */
export type ContentState = 'read' | 'not in this file' | 'damaged' | 'not asked for' | 'too large';

const HASH_STEP = 2 ** 20;

/** Takes `bytes` of content from the budget; false if it has no more. */
export function mayRead({ budget }: InspectContext, bytes: number): boolean {
  if (bytes > budget.contentBytes) return false;
  budget.contentBytes -= bytes;
  return true;
}

/** Notes what a claim found wrong. */
export function noteClaims(
  { findings, claims }: InspectContext,
  claim: (claims: Claims) => KhoError[],
  kind: string,
): void {
  if (claims === undefined) return;
  for (const problem of claim(claims)) findings.error(problem, kind);
}

/** Whether all of [address, address + size) can be read; memory that an image knows but does not hold cannot. */
export function isHeld(memory: PhysicalMemory, address: number, size: number): boolean {
  let at = address;
  for (const { base, size: length, backed } of memory.ranges) {
    if (base > at) return false;
    if (base + length <= at) continue;
    if (!backed) return false;
    at = base + length;
    if (at >= address + size) return true;
  }
  return size === 0;
}

/** SHA-256 (hex) of a range. Errors as for reads. */
export function sha256Of(memory: PhysicalMemory, address: PhysicalAddress, size: number): string {
  const hash = createHash('sha256');
  for (let done = 0; done < size; done += HASH_STEP) {
    hash.update(memory.read(after(address, done), Math.min(HASH_STEP, size - done)));
  }
  return hash.digest('hex');
}
