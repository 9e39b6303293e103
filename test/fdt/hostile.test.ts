import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { FdtReader, FdtTree, formatDts } from '#dist/fdt/index.js';
import { plainTree, toFdtTree } from './arbitrary.js';
import { dumpLines, judgedTest, libfdtDump } from './libfdt.js';

/** Deterministic 32-bit numbers (Mulberry32). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const SPECIAL = [0, 1, 2, 3, 4, 9, 39, 40, 56, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff];

/** A blob with one to four wounds: bytes, words, blocks moved, blocks cut. */
function wound(blob: Uint8Array, random: (below: number) => number): Uint8Array {
  const bytes = Buffer.from(blob);
  for (let wounds = 1 + random(4); wounds > 0; wounds--) {
    const at = random(bytes.length);
    const word = Math.min(random(2) === 0 ? at & ~3 : random(10) * 4, bytes.length - 4);
    switch (random(6)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
        break;
      case 2:
        bytes.writeUInt32BE(SPECIAL[random(SPECIAL.length)] ?? 0, word);
        break;
      case 3:
        bytes.writeUInt32BE((bytes.readUInt32BE(word) + random(64) - 32) >>> 0, word);
        break;
      case 4:
        bytes.copyWithin(at, random(bytes.length), random(bytes.length));
        break;
      default:
        if (random(8) === 0) return bytes.subarray(0, at);
    }
  }
  return bytes;
}

/** All that can be learnt of a blob, or the error: nothing but a KhoError may come. */
function probe(bytes: Uint8Array): string {
  const attempt = (body: () => unknown): string => {
    try {
      return String(body());
    } catch (error) {
      if (error instanceof KhoError) return `${error.code} ${error.message}`;
      throw error;
    }
  };
  const opened = attempt(() => FdtReader.open(bytes, { strict: true }).totalSize);
  let reader: FdtReader;
  try {
    reader = FdtReader.open(bytes);
  } catch {
    return opened;
  }
  const found = [
    opened,
    dumpLines(reader).join('\n'),
    formatDts(reader),
    attempt(() => FdtTree.parse(bytes).render({ checkNames: false }).length),
  ];
  const pending = [reader.root];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    pending.push(...node.children());
    for (const property of node.properties()) {
      for (const read of ['u32', 'u64', 'number64', 'u32s', 'u64s', 'number64s'] as const) {
        found.push(attempt(() => property[read]('little')));
      }
      found.push(
        attempt(() => property.string()),
        attempt(() => property.strings()),
      );
    }
  }
  return found.join('\n');
}

/** Probes the same bytes between two kinds of poison: what was read outside would make the outcomes differ. */
function probeGuarded(bytes: Uint8Array): string {
  const outcomes = [0x00, 0x61].map((poison) => {
    const memory = new Uint8Array(bytes.length + 512).fill(poison);
    memory.set(bytes, 256);
    return probe(memory.subarray(256, 256 + bytes.length));
  });
  expect(outcomes[0]).toBe(outcomes[1]);
  return outcomes[0] ?? '';
}

// Making a stack trace takes longer than the refusal that it belongs to.
Error.stackTraceLimit = 0;

const blobs = fc.sample(plainTree, { numRuns: 200, seed: 42 }).map((plain) => toFdtTree(plain).render());

test('20000 wounded blobs are read or refused, and nothing outside of them is read', () => {
  const outcomes = new Map<string, number>();
  for (let seed = 0; seed < 20_000; seed++) {
    const blob = blobs[seed % blobs.length] ?? new Uint8Array(0);
    let outcome: string;
    try {
      outcome = probeGuarded(wound(blob, numbers(seed)));
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
    const kind = /^KHO_\w+/.exec(outcome)?.[0] ?? 'read';
    outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1);
  }
  // The wounds reach every kind of refusal, and many blobs survive them.
  for (const kind of ['read', 'TRUNCATED', 'BADMAGIC', 'BADVERSION', 'BADLAYOUT', 'BADSTRUCTURE']) {
    expect([kind, outcomes.get(kind === 'read' ? kind : `KHO_FDT_${kind}`) ?? 0]).toSatisfy(([, count]) => count > 100);
  }
});

test('random bytes, with and without a right header, are refused or read', () => {
  const header = (blobs[0] ?? new Uint8Array(40)).slice(0, 40);
  const random = numbers(7);
  for (let run = 0; run < 5000; run++) {
    const bytes = Uint8Array.from({ length: random(300) }, () => random(run % 2 === 0 ? 256 : 10));
    if (run % 4 >= 2 && bytes.length >= 40) {
      bytes.set(header);
      Buffer.from(bytes.buffer).writeUInt32BE(bytes.length, 4);
    }
    probeGuarded(bytes);
  }
});

test('a blob that another thread damages after it was opened is still read to an end, and nothing outside of it', () => {
  for (let seed = 0; seed < 2000; seed++) {
    const blob = blobs[seed % blobs.length] ?? new Uint8Array(0);
    const damaged = wound(blob, numbers(seed));
    const outcomes = [0x00, 0x61].map((poison) => {
      const memory = new Uint8Array(blob.length + 512).fill(poison);
      memory.set(blob, 256);
      const reader = FdtReader.open(memory.subarray(256, 256 + blob.length));
      memory.set(damaged, 256);
      return `${dumpLines(reader).join('\n')}\n${formatDts(reader)}`;
    });
    expect([seed, outcomes[0]]).toEqual([seed, outcomes[1]]);
  }
});

judgedTest('whatever wounded blob the reader accepts, libfdt reads the same in it or refuses it', () => {
  let same = 0;
  for (let seed = 0; seed < 2000; seed++) {
    const bytes = wound(blobs[seed % blobs.length] ?? new Uint8Array(0), numbers(seed + 1_000_000));
    let lines: string[];
    try {
      lines = dumpLines(FdtReader.open(bytes));
    } catch {
      continue;
    }
    let judged: string[];
    try {
      judged = libfdtDump(bytes);
    } catch {
      continue; // libfdt is stricter in places, such as trailing garbage in its check of the layout
    }
    // Names may hold anything, line feeds too: compare the texts.
    expect([seed, lines.join('\n')]).toEqual([seed, judged.join('\n')]);
    same++;
  }
  expect(same).toBeGreaterThan(300);
});
