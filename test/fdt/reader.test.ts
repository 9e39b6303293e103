import { expect, test } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { type FdtNode, FdtReader, FdtWriter } from '#dist/fdt/index.js';

/** An FDT from its words, so that tests can build what the writer refuses. */
function blobOf(structure: (number | string)[], strings = 'a\0bb\0', patch: Record<number, number> = {}): Buffer {
  const parts = structure.map((item) => {
    if (typeof item === 'string') return Buffer.from(item.padEnd(Math.ceil((item.length + 1) / 4) * 4, '\0'), 'latin1');
    const word = Buffer.alloc(4);
    word.writeUInt32BE(item);
    return word;
  });
  const body = Buffer.concat(parts);
  const header = Buffer.alloc(56);
  const words = [
    0xd00dfeed,
    56 + body.length + strings.length,
    56,
    56 + body.length,
    40,
    17,
    16,
    3,
    strings.length,
    body.length,
  ];
  for (const [i, word] of words.entries()) header.writeUInt32BE(patch[i * 4] ?? word, i * 4);
  return Buffer.concat([header, body, Buffer.from(strings, 'latin1')]);
}

const [BEGIN, END_NODE, PROP, NOP, END] = [1, 2, 3, 4, 9];
const MINIMAL = [BEGIN, '', END_NODE, END];

function thrown(body: () => unknown): KhoError {
  try {
    body();
  } catch (error) {
    if (error instanceof KhoError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const open = (bytes: Uint8Array) => thrown(() => FdtReader.open(bytes));

test('a small blob reads as it is, with NOPs anywhere', () => {
  const blob = blobOf([
    NOP,
    BEGIN,
    '',
    NOP,
    PROP,
    4,
    0,
    7,
    NOP,
    PROP,
    0,
    2,
    NOP,
    BEGIN,
    'x@1',
    NOP,
    PROP,
    1,
    3,
    0xff000000,
    NOP,
    BEGIN,
    'y',
    END_NODE,
    NOP,
    END_NODE,
    NOP,
    BEGIN,
    'x',
    END_NODE,
    NOP,
    END_NODE,
    NOP,
    END,
  ]);
  const reader = FdtReader.open(blob);
  expect([reader.version, reader.bootCpuid, reader.totalSize]).toEqual([17, 3, blob.length]);
  const { root } = reader;
  expect([root.name, root.path, root.offset, root.parent]).toEqual(['', '/', 60, undefined]);
  expect([...root.properties()].map(({ name, value, offset }) => [name, [...value], offset])).toEqual([
    ['a', [0, 0, 0, 7], 72],
    ['bb', [], 92],
  ]);
  expect([...root.children()].map(({ name, path }) => [name, path])).toEqual([
    ['x@1', '/x@1'],
    ['x', '/x'],
  ]);
  expect(root.child('x')?.name).toBe('x');
  expect(root.child('x@1')?.property('b')?.value).toEqual(new Uint8Array([0xff]));
  expect(root.child('y')).toBeUndefined();
  expect(root.property('c')).toBeUndefined();
  const y = root.get('x@1').get('y');
  expect([y.path, y.parent?.path, y.parent?.parent?.path]).toEqual(['/x@1/y', '/x@1', '/']);
  expect([y.get('/x').path, y.get('').path, y.get('/').path, root.get('/x@1//y/').path]).toEqual([
    '/x',
    '/x@1/y',
    '/',
    '/x@1/y',
  ]);
  const missing = thrown(() => root.get('/x@1/z/more'));
  expect([missing.code, missing.message]).toEqual(['KHO_FDT_NOTFOUND', "node /x@1 has no child 'z', at offset 108"]);
});

test('a blob may lie at an odd address, in a larger buffer and on shared memory', () => {
  const blob = blobOf(MINIMAL);
  const shared = new Uint8Array(new SharedArrayBuffer(blob.length + 100));
  shared.set(blob, 3);
  const reader = FdtReader.open(shared.subarray(3));
  expect(reader.totalSize).toBe(blob.length);
  expect(reader.bytes.length).toBe(blob.length);
  const writer = new FdtWriter({ into: new Uint8Array(new SharedArrayBuffer(200)) });
  writer.beginNode('');
  writer.string('s', 'grüße');
  writer.endNode();
  expect(FdtReader.open(writer.finish()).root.property('s')?.string()).toBe('grüße');
});

test('a blob cut short is KHO_FDT_TRUNCATED at every length, and says how much is there', () => {
  const blob = blobOf(MINIMAL);
  for (let length = 0; length < blob.length; length++) {
    const error = open(blob.subarray(0, length));
    expect([error.code, error.details.offset]).toEqual(['KHO_FDT_TRUNCATED', length]);
    expect(error.message).toMatch(
      length < 40
        ? new RegExp(`^${length} bytes are too few for the header of 40: cut short at offset ${length}$`)
        : new RegExp(`^cut short: ${length} bytes are there of a totalsize of ${blob.length} at offset ${length}$`),
    );
  }
  FdtReader.open(blob);
});

test.each<[what: string, blob: Uint8Array, code: string, offset: number, message: RegExp]>([
  ['text', Buffer.from('/dts-v1/;'), 'KHO_FDT_BADMAGIC', 0, /0x2f647473 instead of 0xd00dfeed at offset 0$/],
  ['version 16', blobOf(MINIMAL, '', { 20: 16 }), 'KHO_FDT_BADVERSION', 20, /version 16/],
  ['a later format', blobOf(MINIMAL, '', { 20: 19, 24: 18 }), 'KHO_FDT_BADVERSION', 20, /readers of 18/],
  ['last_comp above version', blobOf(MINIMAL, '', { 20: 17, 24: 18 }), 'KHO_FDT_BADVERSION', 20, /18/],
  ['totalsize below header', blobOf(MINIMAL, '', { 4: 39 }), 'KHO_FDT_BADLAYOUT', 4, /totalsize of 39/],
  ['totalsize beyond int', blobOf(MINIMAL, '', { 4: 0x80000000 }), 'KHO_FDT_BADLAYOUT', 4, /2147483648/],
  ['structure misaligned', blobOf(MINIMAL, '', { 8: 57 }), 'KHO_FDT_BADLAYOUT', 8, /not a multiple of 4/],
  ['structure in header', blobOf(MINIMAL, '', { 8: 36 }), 'KHO_FDT_BADLAYOUT', 8, /outside/],
  ['structure outside', blobOf(MINIMAL, '', { 8: 0xfffffffc }), 'KHO_FDT_BADLAYOUT', 8, /outside/],
  ['structure too long', blobOf(MINIMAL, '', { 36: 0xfffffff0 }), 'KHO_FDT_BADLAYOUT', 36, /ends after/],
  ['strings outside', blobOf(MINIMAL, '', { 12: 1000 }), 'KHO_FDT_BADLAYOUT', 12, /strings block at 1000/],
  ['strings too long', blobOf(MINIMAL, 'a\0', { 32: 3 }), 'KHO_FDT_BADLAYOUT', 32, /ends after/],
  ['map misaligned', blobOf(MINIMAL, '', { 16: 44 }), 'KHO_FDT_BADLAYOUT', 16, /not a multiple of 8/],
  ['map outside', blobOf(MINIMAL, '', { 16: 800 }), 'KHO_FDT_BADLAYOUT', 16, /outside/],
  ['map without end', blobOf(MINIMAL, '', { 16: 56 }), 'KHO_FDT_BADLAYOUT', 56, /lacks the entry of size 0/],
  ['no structure', blobOf([]), 'KHO_FDT_BADSTRUCTURE', 56, /without an END token/],
  ['no root', blobOf([END]), 'KHO_FDT_BADSTRUCTURE', 56, /without a root/],
  ['no END', blobOf([BEGIN, '', END_NODE]), 'KHO_FDT_BADSTRUCTURE', 68, /without an END token/],
  ['open node', blobOf([BEGIN, '', END]), 'KHO_FDT_BADSTRUCTURE', 64, /1 nodes open/],
  ['END_NODE alone', blobOf([END_NODE, END]), 'KHO_FDT_BADSTRUCTURE', 56, /none is open/],
  ['two roots', blobOf([BEGIN, '', END_NODE, BEGIN, '', END_NODE, END]), 'KHO_FDT_BADSTRUCTURE', 68, /second root/],
  [
    'nameless child',
    blobOf([BEGIN, '', BEGIN, '', END_NODE, END_NODE, END]),
    'KHO_FDT_BADSTRUCTURE',
    64,
    /without name/,
  ],
  ['property outside', blobOf([PROP, 0, 0, ...MINIMAL]), 'KHO_FDT_BADSTRUCTURE', 56, /outside of a node/],
  [
    'late property',
    blobOf([BEGIN, '', BEGIN, 'x', END_NODE, PROP, 0, 0, END_NODE, END]),
    'KHO_FDT_BADSTRUCTURE',
    76,
    /behind a child/,
  ],
  ['unknown token', blobOf([BEGIN, '', 5, END_NODE, END]), 'KHO_FDT_BADSTRUCTURE', 64, /0x5, which is no token/],
  [
    'long value',
    blobOf([BEGIN, '', PROP, 0xfffffffc, 0, END_NODE, END]),
    'KHO_FDT_BADSTRUCTURE',
    64,
    /4294967292 bytes/,
  ],
  ['cut property', blobOf([BEGIN, '', PROP, 0]), 'KHO_FDT_BADSTRUCTURE', 64, /without an END/],
  ['name offset outside', blobOf([BEGIN, '', PROP, 0, 5, END_NODE, END]), 'KHO_FDT_BADSTRUCTURE', 64, /string 5,/],
  [
    'name offset huge',
    blobOf([BEGIN, '', PROP, 0, 0xffffffff, END_NODE, END]),
    'KHO_FDT_BADSTRUCTURE',
    64,
    /string 4294967295,/,
  ],
  ['empty property name', blobOf([BEGIN, '', PROP, 0, 1, END_NODE, END]), 'KHO_FDT_BADSTRUCTURE', 64, /is empty/],
  [
    'endless property name',
    blobOf([BEGIN, '', PROP, 0, 0, END_NODE, END], 'abc'),
    'KHO_FDT_BADSTRUCTURE',
    64,
    /no end/,
  ],
  ['endless node name', blobOf([BEGIN, 0x61616161, 0x61616161]), 'KHO_FDT_BADSTRUCTURE', 56, /name without end/],
  [
    'long node name',
    blobOf([BEGIN, '', BEGIN, 'x'.repeat(256), END_NODE, END_NODE, END]),
    'KHO_FDT_BADSTRUCTURE',
    64,
    /255 bytes/,
  ],
  [
    'too deep',
    blobOf(Array.from({ length: 65 }, (_, i) => [BEGIN, i === 0 ? '' : 'x']).flat()),
    'KHO_FDT_BADSTRUCTURE',
    568,
    /more than 64/,
  ],
])('%s is refused with code, offset and reason', (_what, blob, code, offset, message) => {
  const error = open(blob);
  expect([error.code, error.details.offset]).toEqual([code, offset]);
  expect(error.message).toMatch(message);
  expect(error.message).toMatch(new RegExp(`at offset ${offset}$`));
});

test('duplicate names are refused only if strict', () => {
  const properties = blobOf([BEGIN, '', PROP, 0, 0, PROP, 0, 0, END_NODE, END]);
  const children = blobOf([BEGIN, '', BEGIN, 'n', BEGIN, 'x', END_NODE, BEGIN, 'x', END_NODE, END_NODE, END_NODE, END]);
  for (const [blob, offset] of [
    [properties, 76],
    [children, 84],
  ] as const) {
    FdtReader.open(blob);
    const error = thrown(() => FdtReader.open(blob, { strict: true }));
    expect([error.code, error.details.offset]).toEqual(['KHO_FDT_BADSTRUCTURE', offset]);
  }
});

test('values that are not what they are asked for are KHO_FDT_BADVALUE with path and offset', () => {
  const writer = new FdtWriter();
  writer.beginNode('');
  writer.beginNode('n');
  writer.property('three', Uint8Array.of(0x61, 0x62, 0x63));
  writer.u64('large', 2n ** 53n, 'little');
  writer.u64('larger', 2n ** 53n + 1n, 'little');
  writer.strings('two', ['a', 'b']);
  writer.property('latin', Uint8Array.of(0xe9, 0));
  writer.empty('none');
  writer.endNode();
  writer.endNode();
  const node: FdtNode = FdtReader.open(writer.finish()).root.get('n');
  const property = (name: string) => {
    const found = node.property(name);
    if (found === undefined) throw new Error(`no property ${name}`);
    return found;
  };
  const three = property('three');
  const failing: [() => unknown, RegExp][] = [
    [() => three.u32('big'), /'three' of \/n has 3 bytes, not 4, at offset \d+$/],
    [() => three.u64('big'), /not 8/],
    [() => three.number64('big'), /not 8/],
    [() => three.u32s('big'), /not a multiple of 4/],
    [() => three.u64s('big'), /not a multiple of 8/],
    [() => three.number64s('big'), /not a multiple of 8/],
    [() => three.string(), /does not end with a NUL/],
    [() => property('large').number64('little'), /above 2\^53 - 1/],
    [() => property('larger').number64('little'), /above 2\^53 - 1/],
    [() => property('large').number64s('little'), /above 2\^53 - 1/],
    [() => property('two').string(), /holds 2 strings/],
    [() => property('none').string(), /holds 0 strings/],
    [() => property('latin').string(), /not UTF-8/],
  ];
  for (const [body, message] of failing) {
    const error = thrown(body);
    expect([error.code, error.details.path]).toEqual(['KHO_FDT_BADVALUE', '/n']);
    expect(error.message).toMatch(message);
  }
  expect(property('large').u64('little')).toBe(2n ** 53n);
});
