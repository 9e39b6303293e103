import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { X86_64 } from '#dist/arch/index.js';
import { type HandoverReport, inspectHandover, RecordedMemory } from '#dist/inspect/index.js';
import { physicalAddress as at, naturalOrders, type SharedPhysicalMemory } from '#dist/memblock/index.js';
import { u64s } from '../arch/kexec-memory.js';
import { HandoverImage, MIB, PAGE, SCRATCH } from './handover-image.js';

function inspect(memory: SharedPhysicalMemory, contents = true): HandoverReport {
  return inspectHandover(memory, { record: X86_64.findBootRecord(memory) }, { contents });
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const errors = (report: HandoverReport) =>
  report.findings.filter(({ severity }) => severity === 'error').map(({ code, message }) => `${code} ${message}`);

test('everything that a whole handover holds is read, checked and claimed', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const report = inspect(memory);
  expect(report.findings).toEqual([]);
  expect(report).toMatchObject({
    reused: false,
    bootRecord: { commandLine: 'console=ttyS0 kho=on liveupdate=on' },
    root: { address: image.root, compatible: 'kho-v4' },
    metadata: { previousRelease: '7.2.13', kexecCount: 1 },
    scratch: { areas: [SCRATCH, { address: 0, size: 0 }, { address: 0, size: 0 }] },
    khoTest: { folios: 4, bytes: 12 * PAGE, orders: { 0: 2, 1: 1, 3: 1 }, content: 'read', verified: true },
    luo: { liveupdateNumber: '3', flbs: [{ compatible: 'flb-v0', data: '0xfeedf00dcafebee0', count: 3 }] },
  });
  expect(report.reservations).toEqual([
    {
      name: 'trace',
      address: expect.any(Number),
      size: 20 * PAGE + 5,
      content: 'read',
      sha256: sha256(new Uint8Array(20 * PAGE).fill(0x74)),
    },
  ]);
  expect(report.luo?.sessions.map(({ name, files }) => [name, files.map(({ token }) => token)])).toEqual([
    ['vm0', ['1', `${2 ** 40}`]],
    ['agent', ['0']],
    ['idle', []],
  ]);
  const [first, empty] = report.luo?.sessions[0]?.files ?? [];
  expect(first?.memfd).toMatchObject({
    size: 5 * PAGE + 100,
    pos: '77',
    seals: ['shrink', 'grow'],
    folios: 2,
    orders: { 0: 1, 1: 1 },
    holeBytes: 3 * PAGE,
    content: 'read',
    sha256: sha256(new Uint8Array(5 * PAGE + 100)), // the folios were never written
  });
  expect(empty?.memfd).toMatchObject({ size: 0, folios: 0, sha256: sha256(new Uint8Array()) });
  expect(report.subtrees.map(({ name, format }) => [name, format])).toEqual([
    ['kexec-metadata', 'kexec-metadata'],
    ['memblock', 'fdt'],
    ['kho_test', 'fdt'],
    ['LUO', 'luo'],
    ['mystery', 'fdt'],
    ['noise', 'raw'],
  ]);
  expect(report.subtrees.at(-1)?.head).toBe('deadbeef05');
  expect(report.tracker).toMatchObject({ objects: image.preserved.length, pages: image.tables.length });
  const claimed = report.claims.reduce((sum, { objects }) => sum + objects, 0);
  expect(claimed + 1).toBe(image.preserved.length);
  expect(report.unclaimed).toMatchObject({ objects: 1, bytes: 2 * PAGE });
});

test("the digest of a memfd's content is that of its bytes, holes and the cut end included", () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const before = inspect(memory).luo?.sessions[0]?.files[0]?.memfd;
  // kho_test has a folio of order 1 as well; the memfd's came after it.
  const folios = [...image.orders].filter(([, order]) => order === 1).map(([address]) => address);
  const content = new Uint8Array(5 * PAGE + 100);
  content.set([1, 2, 3], 2 * PAGE - 3);
  memory.write(at((folios.at(-1) ?? 0) + 2 * PAGE - 3), Uint8Array.of(1, 2, 3));
  const after = inspect(memory);
  expect(errors(after)).toEqual([]);
  expect(after.luo?.sessions[0]?.files[0]?.memfd?.sha256).toBe(sha256(content));
  expect(before?.sha256).not.toBe(sha256(content));
});

test('a size that is damaged does not make inspecting take hours: what is too large is not read', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  memory.writeU64(at(luoOf(image).memfd + 8), 2n ** 43n);
  const report = inspect(memory);
  expect(report.findings).toEqual([]);
  const memfd = report.luo?.sessions[0]?.files[0]?.memfd;
  expect(memfd).toMatchObject({ size: 2 ** 43, folios: 2, content: 'too large' });
  expect(memfd?.sha256).toBeUndefined();
});

/** What is done to a handover, which error must be found, and what must be there all the same. */
type Case = [
  what: string,
  harm: (image: HandoverImage) => void,
  expected: RegExp[],
  rest?: (report: HandoverReport) => void,
];

/** Marks an object at another order, or not at all. */
function remark(image: HandoverImage, address: number, ...orders: number[]): void {
  image.preserved = image.preserved.filter((folio) => folio.address !== address);
  for (const order of orders) image.preserved.push({ address: at(address), order });
}

const word = (memory: SharedPhysicalMemory, address: number) => memory.readU64Number(at(address));
/** Where the structures of LUO lie, found through their pointers. */
function luoOf(image: HandoverImage) {
  const blob = image.at('LUO');
  const sessions = word(image.memory, blob + 16);
  const files = word(image.memory, sessions + 16 + 64);
  const memfd = word(image.memory, files + 16 + 48);
  const chunk = word(image.memory, memfd + 32);
  return { blob, sessions, files, memfd, chunk, flbs: word(image.memory, blob + 24) };
}

const MARKS: Case[] = [
  [
    'the root FDT is not preserved',
    (image) => remark(image, image.root),
    [/'root FDT' at 0x1000 \(4096 bytes\) is not preserved/],
  ],
  ['a blob is not preserved', (image) => remark(image, image.at('noise')), [/'noise' at .* is not preserved/]],
  [
    'a block of sessions is not preserved',
    (image) => remark(image, luoOf(image).sessions),
    [/a block of sessions at 0x\w+ is not preserved/],
  ],
  [
    'a page of LUO is preserved at another order',
    (image) => {
      const { sessions, files, flbs } = luoOf(image);
      remark(image, [sessions, files, flbs].find((address) => address % (2 * PAGE) === 0) ?? 0, 1);
    },
    [/at 0x\w+ is preserved at order 1; its restore expects order 0/, /overlap/],
  ],
  [
    'the FLB page is not preserved',
    (image) => remark(image, luoOf(image).flbs),
    [/the FLB page at .* is not preserved/],
  ],
  [
    'a memfd is not preserved',
    (image) => remark(image, luoOf(image).memfd),
    [/the memfd of token 1 of session 'vm0' at .* is not preserved/],
  ],
  [
    'a chunk is not preserved',
    (image) => remark(image, luoOf(image).chunk),
    [/a chunk of the folio list of token 1 .* is not preserved/],
  ],
  [
    'a folio of a memfd is not preserved',
    (image) =>
      remark(
        image,
        [...image.orders]
          .filter(([, order]) => order === 1)
          .map(([address]) => address)
          .at(-1) ?? 0,
      ),
    [/the folio at index 0 of token 1 of session 'vm0' at .* is not preserved/, /nothing was preserved/],
  ],
  [
    'a folio of kho_test is preserved in two halves',
    (image) => {
      const folio = [...image.orders].find(([, order]) => order === 1)?.[0] ?? 0;
      remark(image, folio, 0);
      image.preserved.push({ address: at(folio + PAGE), order: 0 });
    },
    [/folio 2 of kho_test at .* is preserved at order 0; its restore expects order 1/],
  ],
  [
    'a reservation is preserved as single pages',
    (image) => {
      const [{ address, order } = { address: at(0), order: 0 }] = image.preserved
        .filter((folio) => !image.orders.has(folio.address))
        .sort((a, b) => b.order - a.order);
      remark(image, address);
      for (const page of Array(2 ** order).keys())
        image.preserved.push({ address: at(address + page * PAGE), order: 0 });
    },
    [
      /reserve_mem 'trace' at .* is preserved at order 0; its restore expects order (3: kho_restore_pages\(\) would step over 7|4: kho_restore_pages\(\) would step over 15) of its 20 pages/,
    ],
  ],
  [
    'something preserved lies in scratch',
    (image) => image.preserved.push({ address: at(SCRATCH.address + MIB), order: 2 }),
    [/lies in the scratch area at 0x3000000/],
  ],
  [
    'something preserved holds the tracker',
    (image) => image.preserved.push({ address: at(40 * MIB), order: 0 }),
    [/holds the tracker's own page at 0x2800000/],
  ],
  [
    'two objects overlap',
    (image) =>
      image.preserved.push({ address: at(20 * MIB), order: 3 }, { address: at(20 * MIB + 7 * PAGE), order: 0 }),
    [/the preserved objects at 0x1400000 \(order 3\) and 0x1407000 overlap/],
  ],
];

const BYTES: Case[] = [
  [
    'the compatible of the root FDT is another',
    (image) =>
      image.memory.write(
        at(image.root + Buffer.from(image.memory.read(image.root, PAGE)).indexOf('kho-v4')),
        Buffer.from('x'),
      ),
    [/incompatible: expected kho-v4/],
  ],
  [
    'a tracker page points to itself',
    (image) => image.memory.writeU64(at((image.tables[0] ?? 0) + 8 * 3), image.tables[0] ?? 0),
    [/KHO_ETRACKER the tracker at .* is damaged: the entry at .* points to 0x2800000, a page met before/],
  ],
  [
    'a tracker page points outside of memory',
    (image) => image.memory.writeU64(at((image.tables[0] ?? 0) + 8 * 3), 2n ** 40n),
    [/is damaged: .* points to 0x10000000000, which cannot be read/],
  ],
  [
    'a tracker page points to no page',
    (image) => image.memory.writeU64(at((image.tables[0] ?? 0) + 8 * 3), 12345n),
    [/is damaged: .* points to 0x3039, not aligned to a page/],
    (report) => expect(report.reused).toBe(true),
  ],
  [
    'the payload of kho_test',
    (image) => image.memory.fill(at([...image.orders].find(([, order]) => order === 3)?.[0] ?? 0), 1, 0xaa),
    [/KHO_EDIGEST the folios of kho_test have the checksum/],
    (report) => expect(report.khoTest?.verified).toBe(false),
  ],
  [
    'the list of kho_test',
    (image) => image.memory.fill(at(image.at('kho_test')), 4, 0),
    [/KHO_FDT_BADMAGIC .*kho_test/],
    (report) => expect(report.reused).toBe(true),
  ],
  [
    'LUO of another version',
    (image) => image.memory.write(at(image.at('LUO')), Buffer.from('luo-v4')),
    [/it is 'luo-v4', expected 'luo-v5'/],
    (report) => expect(report.reused).toBe(false),
  ],
  [
    'LUO that is something else',
    (image) => image.memory.fill(at(image.at('LUO')), 32, 0xcc),
    [/the LUO blob at/],
    (report) => expect(report.reused).toBe(true),
  ],
  [
    'sessions nowhere',
    (image) => image.memory.writeU64(at(luoOf(image).blob + 16), 2n ** 41n),
    [/a block of sessions at .* cannot be read/],
    (report) => expect(report.luo?.flbs).toHaveLength(1),
  ],
  [
    'sessions that go round',
    (image) => image.memory.writeU64(at(luoOf(image).sessions), BigInt(luoOf(image).sessions)),
    [/a pointer leads back/],
    (report) => expect(report.luo?.sessions).toHaveLength(3),
  ],
  [
    'files that go on in the sessions',
    (image) => image.memory.writeU64(at(luoOf(image).files), BigInt(luoOf(image).sessions)),
    [/a pointer leads back/],
    (report) => expect(report.luo?.sessions[0]?.files).toHaveLength(2),
  ],
  [
    'a session that says it has more files',
    (image) => image.memory.writeU64(at(luoOf(image).sessions + 16 + 72), 9n),
    [/count of 'vm0' is 9, and 2 files can be read/],
  ],
  [
    'a session without a name',
    (image) => image.memory.fill(at(luoOf(image).sessions + 16), 64, 0),
    [/name is empty/],
    (report) => expect(report.luo?.sessions.map(({ name }) => name)).toEqual(['agent', 'idle']),
  ],
  [
    'two sessions of one name',
    (image) => image.memory.write(at(luoOf(image).sessions + 16 + 80), Buffer.from('vm0\0\0')),
    [/there is a session 'vm0' already/],
  ],
  [
    'two files of one token',
    (image) => image.memory.writeU64(at(luoOf(image).files + 16 + 64 + 56), 1n),
    [/there is a file with token 1 in session 'vm0' already/],
  ],
  [
    'a file whose data is no address',
    (image) => image.memory.writeU64(at(luoOf(image).files + 16 + 48), 12n),
    [/token 1 of session 'vm0': data is 0xc, which is not the address of a page/],
  ],
  [
    'a memfd with unknown seals',
    (image) => image.memory.writeU32(at(luoOf(image).memfd + 16), 0x80),
    [/unknown seals 0x80/],
  ],
  [
    'a memfd whose list is damaged',
    (image) => image.memory.writeU64(at(luoOf(image).chunk + 8), 3n),
    [/token 1 of session 'vm0': .* piece 0 is 0x3/],
    (report) =>
      expect(report.luo?.sessions[0]?.files[0]?.memfd).toMatchObject({ size: 5 * PAGE + 100, content: 'damaged' }),
  ],
  [
    'two memfds in one',
    (image) => image.memory.writeU64(at(luoOf(image).files + 16 + 64 + 48), BigInt(luoOf(image).memfd)),
    [/is part of memfd .* and of memfd/, /was read before/],
  ],
  [
    'the FLB page',
    (image) => image.memory.writeU64(at(luoOf(image).flbs + 8), 1000n),
    [/count is 1000, above the limit/],
    (report) => expect(report.luo?.sessions).toHaveLength(3),
  ],
  [
    'kexec-metadata of another version',
    (image) => image.memory.writeU32(at(image.at('kexec-metadata')), 2),
    [/kexec-metadata has version 2/],
  ],
  [
    'the blob of a driver',
    (image) => image.memory.fill(at(image.at('mystery') + 4), 4, 0),
    [/KHO_FDT_BADLAYOUT the blob 'mystery'/],
  ],
  [
    'the scratch array',
    (image) => image.memory.write(at(SCRATCH.address), u64s(2 ** 53, 1)),
    [/entry 0 of the scratch array is outside of memory/],
  ],
  [
    'scratch that is no memory',
    (image) => image.memory.write(at(SCRATCH.address + 16), u64s(60 * MIB, 8 * MIB)),
    [/the scratch area at 0x3c00000 \(0x800000 bytes\) is not in memory/],
  ],
];

/** Parts of a report that damage elsewhere must not hide. */
const PARTS = ['bootRecord', 'root', 'tracker', 'metadata', 'reservations', 'khoTest', 'luo'] as const;

test.each([...MARKS, ...BYTES])('%s: found, and the rest is read all the same', (what, harm, expected, rest) => {
  const image = HandoverImage.whole();
  if (MARKS.some(([name]) => name === what)) harm(image);
  const memory = image.finish();
  if (!MARKS.some(([name]) => name === what)) harm(image);
  const report = inspect(memory);
  const found = errors(report);
  for (const message of expected) expect(found).toContainEqual(expect.stringMatching(message));
  // Nothing else is wrong, but what follows from the same harm.
  expect(found.length).toBeLessThanOrEqual(expected.length + 2);
  const missing = PARTS.filter((part) => report[part] === undefined);
  expect(missing.length).toBeLessThanOrEqual(1);
  expect(report.subtrees).toHaveLength(6);
  rest?.(report);
});

test('a subtree whose properties are wrong is named, and its siblings are read', () => {
  const image = HandoverImage.whole();
  image.finish();
  const page = Buffer.from(image.memory.read(image.root, PAGE));
  // The strings of the names, so that all of one kind are missing.
  const strings = page.readUInt32BE(12);
  page.write('blob-sizx', strings + page.subarray(strings).indexOf('blob-size'), 'latin1');
  image.memory.write(image.root, page);
  const report = inspect(image.memory);
  expect(errors(report).filter((text) => text.includes('has no blob-size'))).toHaveLength(6);
  expect(report.tracker?.objects).toBe(image.preserved.length);
});

test('a root FDT that is damaged in its middle is read up to the damage', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const page = memory.read(image.root, PAGE);
  const name = Buffer.from(page).indexOf('kho_test');
  memory.writeU32(at(image.root + name - 4), 0x77);
  const report = inspect(memory);
  expect(errors(report)[0]).toMatch(/KHO_FDT_BADSTRUCTURE root FDT at 0x1000: 0x77/);
  expect(report.subtrees.map(({ name: subtree }) => subtree)).toEqual(['LUO', 'mystery', 'noise']);
  expect(report.luo?.sessions).toHaveLength(3);
  expect(report.root?.dts).toContain('the rest is missing');
});

test('without a tracker nothing is said of what is preserved, and everything else is read', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  memory.fill(image.tables[0] ?? at(0), PAGE, 0xa5);
  const noise = inspect(memory);
  expect(noise.reused).toBe(true);
  expect(noise.findings.filter(({ code }) => code === 'KHO_ETRACKER').length).toBeLessThan(60);
  expect(noise.luo?.sessions).toHaveLength(3);
  expect(
    noise.findings.some(({ message }) => message.includes('may have been taken after the next kernel booted')),
  ).toBe(true);

  memory.fill(image.tables[0] ?? at(0), PAGE, 0);
  const empty = inspect(memory);
  expect(empty.tracker?.objects).toBe(0);
  expect(empty.findings.find(({ severity }) => severity === 'warning')?.message).toContain('the tracker is empty');

  const page = Buffer.from(memory.read(image.root, PAGE));
  page.writeUInt32LE(0x999, page.indexOf(u64s(image.tables[0] ?? 0)));
  memory.write(image.root, page);
  const nowhere = inspect(memory);
  expect(nowhere.tracker).toBeUndefined();
  expect(errors(nowhere)).toEqual([
    expect.stringMatching(/preserved-memory-map is 0x\w+, which is not the address of a page/),
  ]);
  expect(nowhere.luo?.sessions).toHaveLength(3);
  expect(nowhere.luo?.sessions[0]?.files[0]?.memfd?.content).toBe('damaged');
});

test('a root page that holds no FDT says that the memory may be from after the boot', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const record = X86_64.findBootRecord(memory);
  memory.fill(image.root, PAGE, 0x11);
  const report = inspectHandover(memory, { record });
  expect(report).toMatchObject({ reused: true, subtrees: [], bootRecord: { address: record.address } });
  expect(errors(report)).toEqual([expect.stringMatching(/KHO_FDT_BADMAGIC root FDT at 0x1000/)]);
});

test('a root FDT alone can be read, without scratch and the memory map of firmware', () => {
  const image = HandoverImage.whole();
  const report = inspectHandover(image.finish(), { root: image.root });
  expect([report.findings, report.bootRecord, report.scratch]).toEqual([[], undefined, undefined]);
  expect(report.luo?.sessions).toHaveLength(3);
});

test('contents are read only if asked for', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const report = inspect(memory, false);
  expect(report.findings).toEqual([]);
  expect(report.khoTest).toMatchObject({ content: 'not asked for' });
  expect(report.khoTest?.verified).toBeUndefined();
  expect(report.reservations?.[0]).toMatchObject({ content: 'not asked for' });
  const recorded = new RecordedMemory(memory);
  inspectHandover(
    recorded,
    { record: X86_64.readBootRecord(recorded, X86_64.findBootRecord(memory).address) },
    { contents: false },
  );
  const pages = new Set(recorded.pages().map(({ base }) => base));
  for (const [address] of image.orders) {
    const blob = image.subtrees.some((subtree) => subtree.address === address);
    expect([address, pages.has(address)]).toEqual([address, blob]);
  }
});

test("objects that nobody claims are joined with their neighbours, or named by somebody else's record", () => {
  const image = HandoverImage.whole();
  image.preserved.push(...naturalOrders(at(24 * MIB), 7), { address: at(30 * MIB), order: 1 });
  const memory = image.finish();
  const record = X86_64.findBootRecord(memory);
  const { unclaimed } = inspectHandover(memory, { record });
  expect(unclaimed).toMatchObject({ objects: 5, bytes: 11 * PAGE });
  expect(unclaimed.ranges).toContainEqual({ address: 24 * MIB, size: 7 * PAGE, objects: 3 });
  const owners = new Map([[30 * MIB, 'driver x']]);
  const named = inspectHandover(memory, { record }, { owners });
  expect(named.unclaimed.objects).toBe(4);
  expect(named.claims).toContainEqual({ owner: 'driver x', objects: 1, bytes: 2 * PAGE });
});

test('whatever a few words of any structure are changed to, inspecting ends with a report', () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const record = X86_64.findBootRecord(memory);
  const recorded = new RecordedMemory(memory);
  inspectHandover(recorded, { record }, { contents: false });
  const pages = recorded.pages().map(({ base }) => base);
  const pointer = fc.constantFrom(...pages, 0, 1, 64 * MIB, 2 ** 52, PAGE - 8).map(BigInt);
  const value = fc.oneof(pointer, fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 70n));
  // Most of a page is zeros: words that hold something are hit more often.
  const used = pages.flatMap((base) =>
    Array.from({ length: PAGE / 8 }, (_, index) => base + index * 8).filter(
      (address) => memory.readU64(at(address)) !== 0n,
    ),
  );
  const place = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...used) },
    {
      weight: 1,
      arbitrary: fc.tuple(fc.constantFrom(...pages), fc.nat(PAGE / 8 - 1)).map(([base, index]) => base + index * 8),
    },
  );
  const outcomes = { clean: 0, found: 0 };
  fc.assert(
    fc.property(fc.array(fc.tuple(place, value), { minLength: 1, maxLength: 5 }), (changes) => {
      const before = changes.map(([address]) => [address, memory.readU64(at(address))] as const);
      for (const [address, word] of changes) memory.writeU64(at(address), word);
      try {
        const report = inspectHandover(memory, { record });
        outcomes[report.findings.length === 0 ? 'clean' : 'found']++;
        expect(JSON.stringify(report).length).toBeGreaterThan(100);
      } finally {
        for (const [address, word] of before.reverse()) memory.writeU64(at(address), word);
      }
    }),
    { numRuns: 1500 },
  );
  expect(outcomes.found).toBeGreaterThan(500);
});
