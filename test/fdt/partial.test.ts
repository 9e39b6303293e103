import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { type DtsNode, FdtReader, FdtWriter, formatDts, type PartialFdt, readPartialFdt } from '#dist/fdt/index.js';
import { ROOT } from '../support/run.js';
import { plainTree, toFdtTree } from './arbitrary.js';

/** What a tree says, in its order: `name {` and `name=hex`. */
function events(node: DtsNode | undefined, out: string[] = []): string[] {
  if (node === undefined) return out;
  out.push(`${node.name} {`);
  for (const { name, value } of node.properties()) out.push(`${name}=${Buffer.from(value).toString('hex')}`);
  for (const child of node.children()) events(child, out);
  return out;
}

/** `part` must be a beginning of `whole`, but for names that are missing and a last value that is cut. */
function expectBeginning(part: readonly string[], whole: readonly string[]): void {
  expect(part.length).toBeLessThanOrEqual(whole.length);
  for (const [index, event] of part.entries()) {
    const full = whole[index] ?? '';
    const [name = '', value] = event.split('=');
    const [fullName, fullValue = ''] = full.split('=');
    if (value === undefined) expect(event).toBe(full);
    else {
      expect(name === fullName || /^string-\d+$/.test(name)).toBe(true);
      if (index < part.length - 1) expect(value).toBe(fullValue);
      else expect(fullValue.startsWith(value)).toBe(true);
    }
  }
}

function blobs(): Uint8Array[] {
  const golden = ['kho-root', 'deep', 'empty', 'shared-suffix', 'values'].map((name) =>
    Uint8Array.from(readFileSync(join(ROOT, `test/golden/fdt/${name}.dtb`))),
  );
  const trees = fc.sample(plainTree, { numRuns: 12, seed: 5 }).map((plain) => toFdtTree(plain).render());
  return [...golden, ...trees];
}

/** Between poison, so that a read outside would change the outcome. */
function readGuarded(bytes: Uint8Array): PartialFdt | KhoError {
  const outcomes = [0, 0x61].map((poison) => {
    const memory = new Uint8Array(bytes.length + 128).fill(poison);
    memory.set(bytes, 64);
    try {
      return readPartialFdt(memory.subarray(64, 64 + bytes.length));
    } catch (error) {
      if (error instanceof KhoError) return error;
      throw error;
    }
  });
  const [first, second] = outcomes.map((outcome) => {
    if (outcome instanceof KhoError) return [outcome.message];
    return [formatDts(outcome), ...outcome.problems.map(({ message }) => message)];
  });
  expect(first).toEqual(second);
  return outcomes[0] as PartialFdt | KhoError;
}

test('a whole blob is read whole, without a problem', () => {
  for (const blob of blobs()) {
    const partial = readPartialFdt(blob);
    const reader = FdtReader.open(blob);
    expect(partial.problems).toEqual([]);
    expect([partial.size, partial.totalSize]).toEqual([blob.length, blob.length]);
    expect(events(partial.root)).toEqual(events(reader.root));
    expect([...partial.reservations()]).toEqual([...reader.reservations()]);
    expect(formatDts(partial)).toBe(formatDts(reader));
  }
});

test('a blob cut short at any byte yields the beginning of its tree and says how many bytes there are', () => {
  for (const blob of blobs()) {
    const whole = events(FdtReader.open(blob).root);
    const stringsAt = Buffer.from(blob.buffer, blob.byteOffset).readUInt32BE(12);
    let before = 0;
    for (let length = 0; length < blob.length; length++) {
      const partial = readGuarded(blob.subarray(0, length));
      if (length < 4) {
        expect([length, partial]).toEqual([length, expect.objectContaining({ code: 'KHO_FDT_TRUNCATED' })]);
        continue;
      }
      if (partial instanceof KhoError) throw partial;
      const found = events(partial.root);
      expectBeginning(found, whole);
      expect(found.length).toBeGreaterThanOrEqual(before);
      before = found.length;
      expect(partial.problems.every(({ code }) => code === 'KHO_FDT_TRUNCATED')).toBe(true);
      if (length >= 8) expect(partial.problems[0]?.message).toContain(`cut short: ${length} of ${blob.length} bytes`);
      // Blocks in the usual order: with the structure block the whole tree is there, though not all of its names.
      if (length >= stringsAt && stringsAt > 40) expect(found).toHaveLength(whole.length);
    }
  }
});

test('what debugfs of a real 7.2 kernel delivers can be read: the structure begun, its names missing', () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  writer.string('compatible', 'kho-v4');
  writer.u64('preserved-memory-map', 0x117150000, 'little');
  for (const name of ['LUO', 'kho_test', 'memblock', 'kexec-metadata']) {
    writer.beginNode(name);
    writer.u64('blob-size', 32, 'little');
    writer.u64('preserved-data', 0x117150000, 'little');
    writer.endNode();
  }
  writer.endNode();
  const blob = writer.finish();
  const partial = readPartialFdt(blob.subarray(0, 233));
  expect(partial.problems.map(({ message }) => message)).toEqual([
    'cut short: 233 of 405 bytes',
    'the rest of the structure block is missing at offset 232',
    'the whole strings block is missing, and the names of 4 properties with it',
  ]);
  expect(formatDts(partial)).toBe(`/dts-v1/;

/ {
\tstring-0 = "kho-v4"; /* its name is missing */
\tstring-11 = <0x1517 0x1000000>; /* its name is missing */

\tLUO {
\t\tstring-32 = <0x20000000 0x00>; /* its name is missing */
\t\tstring-42 = <0x1517 0x1000000>; /* its name is missing */
\t};

\tkho_test {
\t\tstring-32 = <0x20000000 0x00>; /* its name is missing */
\t\tstring-42 = <0x1517 0x1000000>; /* its name is missing */
\t};

\tmemblock {
\t\t/* the rest is missing */
\t};
\t/* the rest is missing */
};
`);
});

test('a blob whose structure is damaged is read up to the damage', () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  writer.u32('a', 1, 'big');
  writer.beginNode('child');
  writer.u32('b', 2, 'big');
  writer.endNode();
  writer.beginNode('lost');
  writer.endNode();
  writer.endNode();
  const blob = writer.finish();
  const lost = Buffer.from(blob).indexOf('lost') - 4;
  const cases: [number, RegExp][] = [
    [7, /0x7, which is no token/],
    [9, /the end of the tree with 1 nodes open/],
    [2, /0x6c6f7374, which is no token/],
  ];
  for (const [token, message] of cases) {
    const wounded = Buffer.from(blob);
    wounded.writeUInt32BE(token, lost);
    const { root, problems } = readPartialFdt(wounded);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ code: 'KHO_FDT_BADSTRUCTURE', message: expect.stringMatching(message) });
    expect(events(root)).toEqual([' {', 'a=00000001', 'child {', 'b=00000002']);
  }
});

test('what is no FDT is KHO_FDT_BADMAGIC, and whatever has a magic is read without another error', () => {
  expect(readGuarded(Buffer.from('luo-v5\0\0'))).toMatchObject({ code: 'KHO_FDT_BADMAGIC' });
  const seeds = blobs();
  const wound = fc.record({
    blob: fc.nat(seeds.length - 1),
    words: fc.array(
      fc.tuple(fc.nat(60), fc.oneof(fc.integer({ min: 0, max: 12 }), fc.nat(2 ** 31 - 1), fc.constant(-1))),
      { minLength: 1, maxLength: 4 },
    ),
    length: fc.nat(2000),
  });
  fc.assert(
    fc.property(wound, ({ blob, words, length }) => {
      const bytes = Buffer.from(seeds[blob] ?? []).subarray(0, Math.max(8, length));
      for (const [index, word] of words) if (index * 4 + 8 <= bytes.length) bytes.writeInt32BE(word, index * 4 + 4);
      const partial = readGuarded(bytes);
      if (partial instanceof KhoError) throw partial;
      let wholly: FdtReader | undefined;
      try {
        wholly = FdtReader.open(bytes);
      } catch {
        return;
      }
      expect(events(partial.root)).toEqual(events(wholly.root));
    }),
    { numRuns: 3000 },
  );
});
