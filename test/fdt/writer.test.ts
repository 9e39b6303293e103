import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { FDT_MAX_DEPTH, FdtReader, FdtWriter, type FdtWriterOptions } from '#dist/fdt/index.js';
import { type PlainNode, type PlainTree, plainLines, plainTree } from './arbitrary.js';
import { dumpLines } from './libfdt.js';

function codeOf(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    if (error instanceof KhoError) return error.code;
    throw error;
  }
  return 'none';
}

function write(tree: PlainTree, options: FdtWriterOptions = {}): Uint8Array {
  const writer = new FdtWriter(options);
  for (const [address, size] of tree.reservations) writer.reserve(address, size);
  const node = (plain: PlainNode): void => {
    writer.beginNode(plain.name);
    for (const [name, value] of plain.properties) writer.property(name, value);
    for (const child of plain.children) node(child);
    writer.endNode();
  };
  node(tree.root);
  return writer.finish();
}

function propertyNames(plain: PlainNode): string[] {
  return [...plain.properties.map(([name]) => name), ...plain.children.flatMap(propertyNames)];
}

test('the reader finds in a blob what the writer put there', () => {
  fc.assert(
    fc.property(plainTree, (plain) => {
      const lines = plainLines(plain);
      const blob = write(plain);
      expect(dumpLines(FdtReader.open(blob, { strict: true }))).toEqual(lines);
      expect(plainLines(plain)).toEqual(lines); // the input is not touched
    }),
    { numRuns: 1000 },
  );
});

test('a blob is the same in own memory, in a dirty room, at a position and on shared memory', () => {
  fc.assert(
    fc.property(plainTree, fc.integer({ min: 0, max: 5 }), (plain, position) => {
      const expected = write(plain);
      const at = position * 8;
      for (const buffer of [
        new ArrayBuffer(at + expected.length + 9),
        new SharedArrayBuffer(at + expected.length + 9),
      ]) {
        const room = new Uint8Array(buffer).fill(0xa5);
        const blob = write(plain, { into: room, at });
        expect(Buffer.from(blob).equals(expected)).toBe(true);
        expect(blob.byteOffset).toBe(at);
        expect(room.subarray(0, at).every((byte) => byte === 0xa5)).toBe(true);
        expect(room.subarray(at + blob.length).every((byte) => byte === 0xa5)).toBe(true);
      }
    }),
  );
});

test('for every size of the room, a tree either fits or is refused, and nothing is written behind the room', () => {
  const plain: PlainTree = {
    reservations: [
      [1n, 2n],
      [3n, 4n],
    ],
    root: {
      name: '',
      properties: [
        ['compatible', Uint8Array.of(1, 2, 3, 4, 5)],
        ['e', new Uint8Array(0)],
      ],
      children: [
        {
          name: 'child@1',
          properties: [['compatible', new Uint8Array(33).fill(7)]],
          children: [{ name: 'leaf', properties: [['x', Uint8Array.of(1)]], children: [] }],
        },
        { name: 'z', properties: [['last', Uint8Array.of(1, 2, 3, 4)]], children: [] },
      ],
    },
  };
  for (const strings of [[], ['x', 'unused', 'last']]) {
    const expected = write(plain, { strings });
    for (let size = 0; size <= expected.length + 8; size++) {
      const memory = new Uint8Array(expected.length + 64).fill(0xa5);
      const into = memory.subarray(0, size);
      if (size < expected.length) expect(codeOf(() => write(plain, { into, strings }))).toBe('KHO_FDT_NOSPACE');
      else expect(Buffer.from(write(plain, { into, strings })).equals(expected)).toBe(true);
      expect(memory.subarray(size).every((byte) => byte === 0xa5)).toBe(true);
    }
  }
});

test('whatever was refused for lack of room, the tree can still be closed', () => {
  const calls: ((writer: FdtWriter) => void)[] = [
    (writer) => writer.beginNode('node'),
    (writer) => writer.beginNode('another'),
    (writer) => writer.property('long-property-name', new Uint8Array(21)),
    (writer) => writer.u32('a', 1, 'little'),
    (writer) => writer.u32s('as', [1, 2, 3], 'big'),
    (writer) => writer.u64('b', 1n, 'big'),
    (writer) => writer.u64s('bs', [1, 2n], 'little'),
    (writer) => writer.string('c', 'text'),
    (writer) => writer.strings('d', ['one', 'two', 'drei ß']),
    (writer) => writer.empty('e'),
    (writer) => writer.endNode(),
  ];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...calls), { maxLength: 30 }), fc.nat(300), (sequence, more) => {
      const into = new Uint8Array(72 + more);
      const writer = new FdtWriter({ into });
      writer.beginNode('');
      let depth = 1;
      for (const call of sequence) {
        try {
          call(writer);
          if (call === calls[0] || call === calls[1]) depth++;
          if (call === calls.at(-1)) depth--;
        } catch (error) {
          if (!(error instanceof KhoError)) throw error;
          expect(['KHO_FDT_NOSPACE', 'KHO_FDT_BADSTATE', 'KHO_EEXIST']).toContain(error.code);
        }
      }
      for (; depth > 0; depth--) writer.endNode();
      const reader = FdtReader.open(writer.finish());
      expect(reader.totalSize).toBeLessThanOrEqual(into.length);
    }),
    { numRuns: 2000 },
  );
});

test('calls that a state does not allow are refused and change nothing', () => {
  const calls: Record<string, (writer: FdtWriter) => unknown> = {
    reserve: (writer) => writer.reserve(1, 1),
    property: (writer) => writer.property('q', new Uint8Array(1)),
    u32: (writer) => writer.u32('q', 1, 'big'),
    u32s: (writer) => writer.u32s('q', [1], 'big'),
    u64: (writer) => writer.u64('q', 1, 'big'),
    u64s: (writer) => writer.u64s('q', [1], 'big'),
    string: (writer) => writer.string('q', ''),
    strings: (writer) => writer.strings('q', ['']),
    empty: (writer) => writer.empty('q'),
    beginNode: (writer) => writer.beginNode('q'),
    endNode: (writer) => writer.endNode(),
    finish: (writer) => writer.finish(),
  };
  const properties = ['property', 'u32', 'u32s', 'u64', 'u64s', 'string', 'strings', 'empty'];
  const steps: { step: (writer: FdtWriter) => unknown; allowed: string[] }[] = [
    { step: () => undefined, allowed: ['reserve', 'beginNode'] },
    { step: (writer) => writer.beginNode(''), allowed: [...properties, 'beginNode', 'endNode'] },
    { step: (writer) => writer.empty('p'), allowed: [...properties, 'beginNode', 'endNode'] },
    { step: (writer) => writer.beginNode('child'), allowed: [...properties, 'beginNode', 'endNode'] },
    { step: (writer) => writer.endNode(), allowed: ['beginNode', 'endNode'] },
    { step: (writer) => writer.endNode(), allowed: ['finish'] },
    { step: (writer) => writer.finish(), allowed: [] },
  ];
  const writer = new FdtWriter();
  let blob: unknown;
  for (const { step, allowed } of steps) {
    blob = step(writer);
    for (const [name, call] of Object.entries(calls)) {
      if (!allowed.includes(name)) expect([name, codeOf(() => call(writer))]).toEqual([name, 'KHO_FDT_BADSTATE']);
    }
  }
  expect(blob instanceof Uint8Array && dumpLines(FdtReader.open(blob))).toEqual(['/', '/\tp\t', '/child']);
});

test('the strings block begins with the given names and shares none but whole ones', () => {
  fc.assert(
    fc.property(plainTree, (plain) => {
      const used = [...new Set(propertyNames(plain.root))];
      const strings = [...used].sort();
      const blob = Buffer.from(write(plain, { strings }));
      const at = blob.readUInt32BE(12);
      expect(blob.subarray(at).toString('latin1')).toBe(strings.map((name) => `${name}\0`).join(''));
      const unseeded = Buffer.from(write(plain));
      expect(unseeded.subarray(unseeded.readUInt32BE(12)).toString('latin1')).toBe(used.map((n) => `${n}\0`).join(''));
    }),
  );
});

test('numbers and strings come back in the byte order and text that they were written in', () => {
  fc.assert(
    fc.property(
      fc.nat(0xffffffff),
      fc.bigInt(0n, 2n ** 64n - 1n),
      fc.nat(Number.MAX_SAFE_INTEGER),
      fc.array(fc.string({ unit: fc.constantFrom('a', 'ß', '€', '😀', '"', ' '), maxLength: 9 })),
      fc.constantFrom('little' as const, 'big' as const),
      (word, wide, exact, texts, order) => {
        const writer = new FdtWriter();
        writer.beginNode('');
        writer.u32('u32', word, order);
        writer.u32s('u32s', [word, 1, 0xffffffff], order);
        writer.u64('u64', wide, order);
        writer.u64('exact', exact, order);
        writer.u64s('u64s', [wide, exact], order);
        writer.strings('texts', texts);
        writer.string('text', texts.join(','));
        writer.empty('nothing');
        writer.endNode();
        const { root } = FdtReader.open(writer.finish());
        const view = (name: string) => {
          const bytes = root.property(name)?.value ?? new Uint8Array(0);
          return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        };
        expect(view('u32').getUint32(0, order === 'little')).toBe(word);
        expect(view('u64').getBigUint64(0, order === 'little')).toBe(wide);
        expect(root.property('u32')?.u32(order)).toBe(word);
        expect(root.property('u32s')?.u32s(order)).toEqual([word, 1, 0xffffffff]);
        expect(root.property('u64')?.u64(order)).toBe(wide);
        expect(root.property('exact')?.number64(order)).toBe(exact);
        expect(root.property('u64s')?.u64s(order)).toEqual([wide, BigInt(exact)]);
        expect(root.property('texts')?.strings()).toEqual(texts);
        expect(root.property('text')?.string()).toBe(texts.join(','));
        expect(root.property('nothing')?.value.length).toBe(0);
        expect(root.property('nothing')?.strings()).toEqual([]);
      },
    ),
    { numRuns: 1000 },
  );
});

test('bad arguments are KHO_EINVAL and leave the writer as it was', () => {
  const writer = new FdtWriter();
  for (const [address, size] of [
    [-1, 0],
    [1.5, 0],
    [2 ** 53, 0],
    [2n ** 64n, 0],
    [0, -1n],
    [0, Number.NaN],
    [0, 0],
    [1, 0n],
  ] as const) {
    expect(codeOf(() => writer.reserve(address, size))).toBe('KHO_EINVAL');
  }
  expect(codeOf(() => writer.beginNode('root'))).toBe('KHO_EINVAL');
  writer.beginNode('');
  for (const value of [-1, 2 ** 32, 0.5, Number.NaN]) {
    expect(codeOf(() => writer.u32('a', value, 'big'))).toBe('KHO_EINVAL');
    expect(codeOf(() => writer.u32s('a', [1, value], 'big'))).toBe('KHO_EINVAL');
  }
  for (const value of [-1n, 2n ** 64n, -1, 2 ** 53, 0.5]) {
    expect(codeOf(() => writer.u64('a', value, 'big'))).toBe('KHO_EINVAL');
    expect(codeOf(() => writer.u64s('a', [1, value], 'big'))).toBe('KHO_EINVAL');
  }
  expect(codeOf(() => writer.string('a', 'x\0y'))).toBe('KHO_EINVAL');
  expect(codeOf(() => writer.strings('a', ['x', '\ud800']))).toBe('KHO_EINVAL');
  expect(codeOf(() => writer.empty('a@1'))).toBe('KHO_EINVAL');
  expect(codeOf(() => writer.beginNode('a:b'))).toBe('KHO_EINVAL');
  expect(codeOf(() => writer.beginNode(''))).toBe('KHO_EINVAL');
  expect(codeOf(() => new FdtWriter({ strings: ['a@1'] }))).toBe('KHO_EINVAL');
  expect(codeOf(() => new FdtWriter({ into: new Uint8Array(new ArrayBuffer(200), 4) }))).toBe('KHO_EINVAL');
  expect(codeOf(() => new FdtWriter({ into: new Uint8Array(200), at: 208 }))).toBe('KHO_EINVAL');
  writer.empty('a');
  expect(codeOf(() => writer.empty('a'))).toBe('KHO_EEXIST');
  writer.beginNode('child');
  writer.empty('a');
  writer.endNode();
  writer.endNode();
  expect(dumpLines(FdtReader.open(writer.finish()))).toEqual(['/', '/\ta\t', '/child', '/child\ta\t']);
});

test('nodes may be as deep as the reader follows, and no deeper', () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  for (let depth = 1; depth < FDT_MAX_DEPTH; depth++) writer.beginNode('n');
  expect(codeOf(() => writer.beginNode('n'))).toBe('KHO_EINVAL');
  for (let depth = 0; depth < FDT_MAX_DEPTH; depth++) writer.endNode();
  expect(FdtReader.open(writer.finish()).root.get('n/n/n').path).toBe('/n/n/n');
});

test('names that the specification forbids pass only unchecked', () => {
  const writer = new FdtWriter({ checkNames: false });
  writer.beginNode('');
  writer.empty('a@1');
  expect(codeOf(() => writer.empty('€'))).toBe('KHO_EINVAL');
  expect(codeOf(() => writer.empty('\0'))).toBe('KHO_EINVAL');
  expect(codeOf(() => writer.beginNode('x'.repeat(256)))).toBe('KHO_EINVAL');
  writer.beginNode('0000:3b:00.0 \xe9');
  writer.endNode();
  writer.endNode();
  expect(dumpLines(FdtReader.open(writer.finish()))).toEqual(['/', '/\ta@1\t', '/0000:3b:00.0 \xe9']);
});
