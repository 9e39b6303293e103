import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT_FDT_SIZE } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { hex, type PhysicalMemory, physicalAddress } from '../memblock/index.js';
import type { Findings } from './findings.js';
import type { HandoverReport } from './handover-report.js';

/** What of a directory's `kho/out` was compared with the memory image beside it. */
export interface DebugfsCheck {
  /** Files that agree with memory. */
  readonly equal: readonly string[];
  /** Files that hold less than memory, and agree as far as they go: debugfs of 7.2 delivers the root FDT so. */
  readonly shorter: readonly string[];
}

/**
 * Compares what debugfs showed of an outgoing handover (`kho/out` below `directory`: fdt, sub_fdts/NAME, scratch_phys,
 * scratch_len) with what memory holds; differences are errors found. Undefined if the directory has none of it.
 */
export async function checkDebugfs(
  directory: string,
  memory: PhysicalMemory,
  report: HandoverReport,
  findings: Findings,
): Promise<DebugfsCheck | undefined> {
  const out = join(directory, 'kho', 'out');
  const names = (await listing(out)).filter((name) => name !== 'sub_fdts');
  const blobs = (await listing(join(out, 'sub_fdts'))).map((name) => join('sub_fdts', name));
  if (names.length + blobs.length === 0) return undefined;
  const equal: string[] = [];
  const shorter: string[] = [];
  for (const name of [...names, ...blobs].sort()) {
    const expected = contentOf(name, memory, report);
    if (expected === undefined) continue;
    const found = await readFile(join(out, name)).catch(() => undefined);
    if (found === undefined) continue; // debugfs lets nobody but root read it: so may a copy of it
    const common = Math.min(found.length, expected.length);
    const same = found.subarray(0, common).equals(expected.subarray(0, common));
    if (same && found.length === expected.length) equal.push(name);
    else if (same && found.length < expected.length && name === 'fdt') shorter.push(name);
    else {
      const how = same ? `has ${found.length} bytes, memory ${expected.length}` : 'differs from what memory holds';
      findings.error(new KhoError('KHO_EDIGEST', `kho/out/${name} ${how}`, { file: join(out, name) }), 'debugfs');
    }
  }
  return { equal, shorter };
}

/** What a file of debugfs should hold; undefined for one that is not known, or whose memory cannot be read. */
function contentOf(name: string, memory: PhysicalMemory, report: HandoverReport): Buffer | undefined {
  const read = (address: number, size: number): Buffer | undefined => {
    try {
      return Buffer.from(memory.read(physicalAddress(address), size));
    } catch (error) {
      if (error instanceof KhoError) return undefined; // found before
      throw error;
    }
  };
  const { root, scratch } = report;
  if (name === 'fdt') {
    return root && read(root.address, root.form === 'one-fdt' ? root.size : Math.min(root.size, ROOT_FDT_SIZE));
  }
  if (name === 'scratch_phys') return scratch && lines(scratch.areas.map(({ address }) => address));
  if (name === 'scratch_len') return scratch && lines(scratch.areas.map(({ size }) => size));
  const blob = report.subtrees.find((subtree) => join('sub_fdts', subtree.name) === name);
  return blob === undefined || blob.format === 'unreadable' ? undefined : read(blob.address, blob.size);
}

function lines(values: readonly number[]): Buffer {
  return Buffer.from(values.map((value) => `${hex(value)}\n`).join(''));
}

async function listing(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch {
    return [];
  }
}
