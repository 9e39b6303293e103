import { open, readFile } from 'node:fs/promises';
import { KhoError } from '../errors.js';
import { after, PAGE_SIZE, type PhysicalAddress } from './address.js';
import type { FrozenShard } from './frozen-shard.js';
import { firstDifferentLine, LINE_SIZE, LINES_PER_PAGE } from './line-digest.js';
import type { PageRange } from './page-range.js';
import type { PhysicalMemory } from './physical-memory.js';
import type { RadixTree } from './radix-tree.js';

/** The first bytes of the file. */
const MAGIC = 'khorus frozen 1\n';
/** The size of the header, a 32-bit number, follows. */
const HEADER = MAGIC.length + 4;

/** Frozen pages in a row, and whose they are. */
export interface FrozenRun<Owner> extends PageRange {
  readonly owner: Owner;
}

/**
 * Writes the digests of every frozen page that is handed over to a new file, for {@link FrozenFile}:
 *
 * ```text
 *   magic | size of the header | header: JSON, the runs of pages | digests, 64 for each page: 32-bit words
 * ```
 *
 * Numbers are in the machine's own byte order; the file is for a successor on the same machine.
 */
export async function writeFrozenFile<Owner>(
  file: string,
  shards: readonly { readonly frozen: FrozenShard; readonly owner: Owner }[],
  tracker: RadixTree,
): Promise<void> {
  const runs = shards.flatMap(({ frozen, owner }) => runsOf(frozen, tracker).map((run) => ({ ...run, owner, frozen })));
  const text = JSON.stringify(runs.map(({ address, pages, owner }) => ({ address, pages, owner })));
  const header = Buffer.from(text.padEnd(Math.ceil((HEADER + Buffer.byteLength(text)) / 4) * 4 - HEADER, ' '));
  const size = new Uint32Array([header.length]);
  const handle = await open(file, 'wx');
  try {
    await handle.writeFile(Buffer.concat([Buffer.from(MAGIC), new Uint8Array(size.buffer), header]));
    for (const { address, pages, frozen } of runs) {
      const digests = new Int32Array(pages * LINES_PER_PAGE);
      for (let page = 0; page < pages; page++) {
        frozen.copyDigests(after(address, page * PAGE_SIZE), digests, page * LINES_PER_PAGE);
      }
      await handle.writeFile(new Uint8Array(digests.buffer));
    }
  } finally {
    await handle.close();
  }
}

function runsOf(frozen: FrozenShard, tracker: RadixTree): PageRange[] {
  const runs: { address: PhysicalAddress; pages: number }[] = [];
  frozen.eachPreserved(tracker, (address) => {
    const last = runs.at(-1);
    if (last !== undefined && last.address + last.pages * PAGE_SIZE === address) last.pages++;
    else runs.push({ address, pages: 1 });
  });
  return runs;
}

/** The digests that a predecessor left of its frozen pages. */
export class FrozenFile<Owner> {
  readonly #runs: readonly FrozenRun<Owner>[];
  /** Of one run after the other. */
  readonly #digests: Int32Array;

  private constructor(runs: readonly FrozenRun<Owner>[], digests: Int32Array) {
    this.#runs = runs;
    this.#digests = digests;
  }

  /** Reads all of it. KHO_EINVAL if {@link writeFrozenFile} did not write it, or not to its end. */
  static async read<Owner>(file: string): Promise<FrozenFile<Owner>> {
    const bytes = await readFile(file);
    const wrong = (what: string): KhoError => new KhoError('KHO_EINVAL', `${file} ${what}`, { file });
    if (bytes.length < HEADER || bytes.toString('latin1', 0, MAGIC.length) !== MAGIC) {
      throw wrong('has no digests of frozen memory');
    }
    const [size = 0] = new Uint32Array(Uint8Array.from(bytes.subarray(MAGIC.length, HEADER)).buffer);
    const rest = bytes.subarray(HEADER + size);
    let runs: FrozenRun<Owner>[];
    try {
      runs = JSON.parse(bytes.toString('utf8', HEADER, HEADER + size)) as FrozenRun<Owner>[];
    } catch {
      throw wrong('is damaged: its header cannot be read');
    }
    const pages = runs.reduce((sum, run) => sum + run.pages, 0);
    if (rest.length !== pages * LINES_PER_PAGE * 4)
      throw wrong(`is cut short: it has not the digests of ${pages} pages`);
    const digests = new Int32Array(pages * LINES_PER_PAGE);
    new Uint8Array(digests.buffer).set(rest);
    return new FrozenFile(runs, digests);
  }

  /** Visits every page of which a line is another one in `memory`, with the offset of the first such line. */
  compare(memory: PhysicalMemory, visit: (owner: Owner, address: PhysicalAddress, offset: number) => void): void {
    const words = new Int32Array(PAGE_SIZE / 4);
    const bytes = new Uint8Array(words.buffer);
    let from = 0;
    for (const { address, pages, owner } of this.#runs) {
      for (let page = 0; page < pages; page++, from += LINES_PER_PAGE) {
        const at = after(address, page * PAGE_SIZE);
        memory.readInto(at, bytes);
        const line = firstDifferentLine(words, 0, this.#digests, from, LINES_PER_PAGE);
        if (line >= 0) visit(owner, at, line * LINE_SIZE);
      }
    }
  }
}
