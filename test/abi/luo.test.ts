import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LUO_SIZE, type Luo, readLuo } from '#dist/abi/index.js';
import { thrown } from '../memblock/thrown.js';
import { LuoImage, type LuoModel, type MemfdModel, PAGE } from './luo-image.js';

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const name = (bytes: number) =>
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: bytes }).filter((text) => {
    const { length } = new TextEncoder().encode(text);
    return length > 0 && length < bytes && !text.includes('\0');
  });

const memfd: fc.Arbitrary<MemfdModel> = fc
  .record({
    pos: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    size: fc.nat(40 * PAGE),
    seals: fc.nat(0x3f),
    indices: fc.uniqueArray(fc.nat(40)),
    flags: fc.nat(3),
  })
  .map(({ pos, size, seals, indices, flags }) => ({
    pos,
    size,
    seals,
    folios: indices.filter((index) => index * PAGE < size).map((index) => ({ index, flags, order: 0 })),
  }));

const luo: fc.Arbitrary<LuoModel> = fc.record({
  liveupdateNumber: u64,
  sessions: fc.uniqueArray(
    fc.record({
      name: name(64),
      files: fc.uniqueArray(fc.record({ token: u64, memfd }), { selector: ({ token }) => token, maxLength: 4 }),
    }),
    { selector: (session) => session.name, maxLength: 8 },
  ),
  flbs: fc.uniqueArray(
    fc.record({ compatible: name(48), data: u64, count: fc.bigInt({ min: 1n, max: 2n ** 31n - 1n }) }),
    { selector: ({ compatible }) => compatible, maxLength: 5 },
  ),
});

/** What was read, without the places where it lay. */
function model({ liveupdateNumber, sessions, flbs }: Luo) {
  return {
    liveupdateNumber,
    sessions: sessions.map((session) => ({
      name: session.name,
      files: session.files.map(({ token, memfd: read }) => ({
        token,
        pos: read?.pos,
        size: read?.size,
        seals: read?.seals,
        folios: read?.folios.map(({ index, flags }) => ({ index, flags })),
      })),
    })),
    flbs,
  };
}

function expected({ liveupdateNumber, sessions, flbs }: LuoModel) {
  return {
    liveupdateNumber,
    sessions: sessions.map((session) => ({
      name: session.name,
      files: session.files.map(({ token, memfd: { pos, size, seals, folios } }) => ({
        token,
        pos,
        size,
        seals,
        folios: folios.map(({ index, flags }) => ({ index, flags })),
      })),
    })),
    flbs,
  };
}

test('what was put into memory is read back', () => {
  fc.assert(
    fc.property(luo, (wanted) => {
      const image = new LuoImage();
      const read = readLuo(image.memory, image.luo(wanted), LUO_SIZE);
      expect(model(read)).toEqual(expected(wanted));
    }),
    { numRuns: 100 },
  );
});

const EMPTY: MemfdModel = { pos: 0n, size: 0, seals: 0, folios: [] };

test('52 sessions take two blocks, 64 files two, and 512 folios of a memfd an area of two pages', () => {
  const image = new LuoImage();
  const folios = Array.from({ length: 512 }, (_, index) => ({ index, flags: 3, order: 0 }));
  const wanted: LuoModel = {
    liveupdateNumber: 1n,
    sessions: Array.from({ length: 52 }, (_, n) => ({
      name: `s${n}`,
      files: n === 51 ? Array.from({ length: 64 }, (__, token) => ({ token: BigInt(token), memfd: EMPTY })) : [],
    })),
    flbs: [],
  };
  const big = { ...EMPTY, size: 512 * PAGE, folios };
  const read = readLuo(
    image.memory,
    image.luo({ ...wanted, sessions: [...wanted.sessions, { name: 'big', files: [{ token: 9n, memfd: big }] }] }),
    LUO_SIZE,
  );
  expect(read.sessionBlocks).toHaveLength(2);
  expect(read.sessions[50]?.blocks).toEqual([]);
  expect(read.sessions[51]?.blocks).toHaveLength(2);
  expect(read.sessions[52]?.files[0]?.memfd?.area?.pieces).toHaveLength(2);
  expect(read.sessions[52]?.files[0]?.memfd?.folios).toHaveLength(512);
});

/** One session with two memfds, of which the first has two folios; and where each structure lies. */
function small() {
  const image = new LuoImage();
  const full = { pos: 5n, size: 3 * PAGE, seals: 6, folios: [0, 2].map((index) => ({ index, flags: 3, order: 0 })) };
  const address = image.luo({
    liveupdateNumber: 1n,
    sessions: [
      {
        name: 'vm0',
        files: [
          { token: 1n, memfd: full },
          { token: 2n, memfd: EMPTY },
        ],
      },
    ],
    flbs: [{ compatible: 'flb', data: 1n, count: 2n }],
  });
  const read = readLuo(image.memory, address, LUO_SIZE);
  const [session] = read.sessions;
  const [first, second] = session?.files ?? [];
  const places = {
    luo: address,
    sessions: read.sessionBlocks[0] ?? address,
    files: session?.blocks[0] ?? address,
    memfd: first?.memfd?.address ?? address,
    empty: second?.memfd?.address ?? address,
    chunk: first?.memfd?.area?.chunks[0] ?? address,
    list: first?.memfd?.area?.pieces[0] ?? address,
    flbs: read.flbPage ?? address,
  };
  return { image, places };
}
type Place = keyof ReturnType<typeof small>['places'];

const OUTSIDE = 2n ** 40n;
test.each<[string, Place, number, bigint | Place, RegExp]>([
  ['another compatible', 'luo', 0, 0x34762d6f756cn, /the LUO blob at 0x\w+: it is 'luo-v4', expected 'luo-v5'/],
  ['a compatible without an end', 'luo', 0, 0x6161616161616161n, /compatible is not terminated within 8 bytes/],
  ['sessions that are not at a page', 'luo', 16, 0x1008n, /sessions_pa is 0x1008, which is not the address of a page/],
  ['sessions outside of memory', 'luo', 16, OUTSIDE, /a block of sessions at 0x10000000000 cannot be read/],
  ['sessions beyond all addresses', 'luo', 16, 2n ** 63n, /sessions_pa is 0x8000000000000000/],
  ['FLBs in the LUO blob', 'luo', 24, 'luo', /the FLB page at 0x\w+ was read before, as the LUO blob/],
  ['a chain of sessions that comes back', 'sessions', 0, 'sessions', /was read before, as a block of sessions/],
  [
    'sessions that go on in a block of files',
    'sessions',
    0,
    'files',
    /a block of files at 0x\w+ was read before, as a block of sessions/,
  ],
  ['a block of no sessions', 'sessions', 8, 0n, /count is 0: a block is never empty/],
  ['a block of 52 sessions', 'sessions', 8, 52n, /count is 52, above the limit of 51/],
  ['a count of sessions of 64 bits', 'sessions', 8, 2n ** 64n - 1n, /above the limit of 51/],
  ['a session without a name', 'sessions', 16, 0n, /session 0 of the block at 0x\w+: name is empty/],
  ['files outside of memory', 'sessions', 80, OUTSIDE, /a block of files at 0x10000000000 cannot be read/],
  ['a session with another count', 'sessions', 88, 3n, /count of 'vm0' is 3, and there are 2 files/],
  ['no files where there is a count', 'sessions', 80, 0n, /count of 'vm0' is 2, and there are 0 files/],
  ['a chain of files that comes back', 'files', 0, 'files', /was read before, as a block of files/],
  ['a block of 64 files', 'files', 8, 64n, /count is 64, above the limit of 63/],
  [
    'a token that is there twice',
    'files',
    72,
    2n,
    /file 1 of the block at 0x\w+: there is a file with token 2 already/,
  ],
  ['a memfd at no page', 'files', 64, 0x77n, /token 1 of session 'vm0': data is 0x77/],
  ['a memfd outside of memory', 'files', 64, OUTSIDE, /token 1 of session 'vm0': the memfd at 0x10000000000 cannot be/],
  ['two files with one memfd', 'files', 128, 'memfd', /token 2 of session 'vm0': the memfd at 0x\w+ was read before/],
  ['a position below zero', 'memfd', 0, 2n ** 63n, /pos is 9223372036854775808/],
  ['a size above 2^32 - 1 pages', 'memfd', 8, 2n ** 44n, /size is 17592186044416, above the limit of 17592186040320/],
  ['unknown seals', 'memfd', 16, 0x146n, /unknown seals 0x140/],
  ['flags of the file', 'memfd', 16, 2n ** 32n, /flags are 0x1, expected 0/],
  ['more folios than pages', 'memfd', 24, 4n, /nr_folios is 4, above the limit of 3/],
  ['a folio list outside of memory', 'memfd', 32, OUTSIDE, /a vmalloc chunk of the folio list .* cannot be read/],
  ['no folio list', 'memfd', 32, 0n, /0 pieces listed, 1 expected/],
  ['unknown flags of the folio list', 'memfd', 40, 0x500000001n, /unknown flags 0x4/],
  ['order 11 of the folio list', 'memfd', 40, 11n * 2n ** 48n + 1n, /order is 11, above the limit of 10/],
  ['a folio list of no pages', 'memfd', 40, 2n ** 32n, /a vmalloc area without pages/],
  ['a folio list of 2^32 - 1 pages', 'memfd', 40, 2n ** 32n - 1n, /an area of 4294967295 pages/],
  ['a chain of chunks that comes back', 'chunk', 0, 'chunk', /was read before, as a vmalloc chunk/],
  ['a piece too many', 'chunk', 16, 'luo', /more than the 1 pieces of an area of 1 pages/],
  ['a piece that is there twice', 'chunk', 16, 'list', /which is a piece already/],
  ['a piece that is not aligned', 'chunk', 8, 0x1234n, /piece 0 is 0x1234, which is not the address of a page/],
  ['a piece outside of memory', 'chunk', 8, OUTSIDE, /a piece of the folio list .* cannot be read/],
  ['a piece that is the chunk', 'chunk', 8, 'chunk', /was read before, as a vmalloc chunk/],
  ['a folio list without pieces', 'chunk', 8, 0n, /0 pieces listed/],
  ['unknown flags of a folio', 'list', 0, 4n * 2n ** 52n + 5n, /folio 0 of the memfd at 0x\w+: unknown flags 0x4/],
  ['a folio at page 0', 'list', 0, 3n * 2n ** 52n, /page frame 0x0 cannot hold a folio/],
  ['a folio above 2^52', 'list', 0, 2n ** 40n, /page frame 0x10000000000/],
  ['a folio outside of the file', 'list', 8, 3n, /index 3 is outside of the 3 pages/],
  ['two folios at one index', 'list', 8, 2n, /folio 1 of the memfd at 0x\w+: there is a folio at index 2 already/],
  ['an FLB page of two pages', 'flbs', 0, 2n, /pgcnt is 2, expected 1/],
  ['64 FLBs', 'flbs', 8, 64n, /count is 64, above the limit of 63/],
  ['an FLB of no files', 'flbs', 72, 0n, /FLB 0 at 0x\w+: count is 0x0/],
])('%s is refused', (_what, place, offset, value, message) => {
  const { image, places } = small();
  const address = places[place];
  image.memory.writeU64((address + offset) as typeof address, typeof value === 'string' ? places[value] : value);
  const error = thrown(() => readLuo(image.memory, places.luo, LUO_SIZE));
  expect(error.message).toMatch(message);
  expect(error.code).toBe(/2\^32|4294967295/.test(error.message) ? 'KHO_E2BIG' : 'KHO_EIMAGE');
});

test('a blob of 31 bytes is too short', () => {
  const { image, places } = small();
  const error = thrown(() => readLuo(image.memory, places.luo, LUO_SIZE - 1));
  expect(error).toMatchObject({ code: 'KHO_EIMAGE', message: 'the LUO blob has 31 bytes, expected 32' });
});

test('two sessions of one name are refused, as Linux refuses all sessions then', () => {
  const image = new LuoImage();
  const sessions = ['same', 'other', 'same'].map((text) => ({ name: text, files: [] }));
  const address = image.luo({ liveupdateNumber: 1n, sessions, flbs: [] });
  expect(thrown(() => readLuo(image.memory, address, LUO_SIZE)).message).toMatch(
    /session 2 of the block at 0x\w+: there is a session 'same' already/,
  );
});

test('an empty chunk is only the last', () => {
  const { image, places } = small();
  const put = (offset: number, value: number) =>
    image.memory.writeU64((places.chunk + offset) as typeof places.chunk, value);
  const next = image.pages(1);
  put(0, next);
  expect(readLuo(image.memory, places.luo, LUO_SIZE).sessions[0]?.files[0]?.memfd?.area?.chunks).toEqual([
    places.chunk,
    next,
  ]);
  put(8, 0);
  image.memory.writeU64((next + 8) as typeof next, places.list);
  expect(thrown(() => readLuo(image.memory, places.luo, LUO_SIZE)).message).toMatch(/an empty chunk is not the last/);
});

test('names end before their last byte', () => {
  const { image, places } = small();
  const at = (place: Place, offset: number) => (places[place] + offset) as (typeof places)['luo'];
  image.memory.fill(at('sessions', 16), 64, 0x61);
  expect(thrown(() => readLuo(image.memory, places.luo, LUO_SIZE)).message).toMatch(/name is not terminated within 64/);
  image.memory.fill(at('sessions', 16 + 63), 1, 0);
  expect(readLuo(image.memory, places.luo, LUO_SIZE).sessions[0]?.name).toBe('a'.repeat(63));
  image.memory.fill(at('files', 16), 48, 0x62);
  expect(thrown(() => readLuo(image.memory, places.luo, LUO_SIZE)).message).toMatch(/compatible is not terminated/);
});

test('whatever a few bytes are changed to, reading ends, with a result or a KhoError', () => {
  const places = Object.keys(small().places) as Place[];
  const interesting = fc.oneof(u64, fc.constantFrom(0n, 1n, 51n, 63n, 4096n, 8192n, 2n ** 40n, 2n ** 64n - 1n));
  const change = fc.record({ place: fc.constantFrom(...places), word: fc.nat(15), value: interesting });
  let refused = 0;
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const { image, places: at } = small();
      for (const { place, word, value } of changes) {
        image.memory.writeU64((at[place] + 8 * word) as (typeof at)['luo'], value);
      }
      try {
        readLuo(image.memory, at.luo, LUO_SIZE);
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^KHO_(EIMAGE|E2BIG)$/) });
        refused++;
      }
    }),
    { numRuns: 400 },
  );
  expect(refused).toBeGreaterThan(0);
});
