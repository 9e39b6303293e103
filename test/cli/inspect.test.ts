import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { encodeKexecMetadata, encodeLuo } from '#dist/abi/index.js';
import { physicalAddress as at, writeImage } from '#dist/memblock/index.js';
import { HandoverImage, MIB, SEGMENT } from '../inspect/handover-image.js';
import { elfCore, filled } from '../memblock/elf.js';
import { khorus, ROOT, SMALL_SCENARIO } from '../support/run.js';

let base = '';
let ram = '';
let out = '';
const image = HandoverImage.whole();

beforeAll(async () => {
  base = mkdtempSync(join(tmpdir(), 'khorus-inspect-cli-'));
  ram = join(base, 'ram.img');
  const memory = image.finish();
  await writeImage(memory, ram, { ranges: memory.ranges });
  out = join(base, 'out');
  const result = await khorus(['run', '-', '--quiet', '--out', out], { input: SMALL_SCENARIO });
  expect([result.code, result.stderr]).toEqual([0, '']);
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** A file of its own, with these bytes. */
function fileOf(name: string, bytes: Uint8Array | string): string {
  const file = join(base, name);
  writeFileSync(file, bytes);
  return file;
}

test('the image of a handover is told in lines that people read', async () => {
  const { code, stdout, stderr } = await khorus(['inspect', ram]);
  expect([code, stderr]).toEqual([0, '']);
  for (const line of [
    /^file {10}.*ram\.img: flat, 64 MiB$/m,
    /^boot record {3}x86_64 setup_data at 0x37fd000$/m,
    /^command line {2}console=ttyS0 kho=on liveupdate=on$/m,
    /^root FDT {6}0x1000, kho-v4, \d+ bytes$/m,
    /^from {10}7\.2\.13, kexec 1$/m,
    /^scratch {7}lowmem 0x3000000 \(8 MiB\), global 0x0 \(0 B\), node 0x0 \(0 B\)$/m,
    /^ {2}noise {11}0x\w+ {2}5 B {2}raw: de ad be ef 05$/m,
    /^ {2}trace {11}0x\w+ {2}80\.0 KiB {2}sha256 \w{64}$/m,
    /^kho_test {6}4 folios, 48 KiB: 1 of order 3, 1 of order 1, 2 of order 0; checksum 0x\w+ verified$/m,
    /^LUO {11}live update 3: 3 sessions, 3 files, 1 FLB$/m,
    /^ {4}token 1 {2}memfd-v2 {2}20\.1 KiB, 2 folios: 1 of order 1, 1 of order 0, 12 KiB of holes, seals shrink grow {2}sha256/m,
    /^ {2}FLB flb-v0 {2}data 0xfeedf00dcafebee0, 3 files$/m,
    /^ {2}unclaimed by any known structure: 1 object, 8 KiB$/m,
  ]) {
    expect(stdout).toMatch(line);
  }
  expect(stdout).not.toContain('findings');
  expect((await khorus(['inspect', ram, '--trees'])).stdout).toContain('/* 0x');
});

test('a directory of run --out is compared with itself, and run.json knows whose the pages are', async () => {
  const { code, stdout, stderr } = await khorus(['inspect', out]);
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(/kho\/out {7}11 files as in memory/);
  expect(stdout).toMatch(/driver iommu +\d+ objects/);
  expect(stdout).not.toContain('unclaimed');
  const blob = await khorus(['inspect', join(out, 'kho/out/sub_fdts/kexec-metadata')]);
  expect(blob.stdout).toMatch(/^kexec-metadata 73 bytes: from 7\.2\.0-khorus, kexec 1$/m);
});

test('--json is one document with schemaVersion, also for blobs and errors', async () => {
  const report = JSON.parse((await khorus(['inspect', ram, '--json'])).stdout);
  expect(report).toMatchObject({ schemaVersion: 1, kind: 'image', findings: [], luo: { liveupdateNumber: '3' } });
  const fdt = JSON.parse((await khorus(['inspect', join(out, 'kho/out/fdt'), '--json'])).stdout);
  expect(fdt).toMatchObject({ schemaVersion: 1, kind: 'fdt', compatible: 'kho-v4', tree: { root: { name: '' } } });
  const none = await khorus(['inspect', join(base, 'nowhere'), '--json']);
  expect([none.code, JSON.parse(none.stdout).error.code, none.stderr]).toEqual([2, 'KHO_ENOENT', '']);
});

test('a failed check is exit 1; --quiet says only what is wrong, on stderr', async () => {
  const bytes = readFileSync(ram);
  bytes.fill(0xcc, image.at('LUO'), image.at('LUO') + 32);
  const file = fileOf('damaged.img', bytes);
  const { code, stdout, stderr } = await khorus(['inspect', file]);
  expect([code, stderr]).toEqual([1, '']);
  expect(stdout).toMatch(/^findings\n {2}error {4}KHO_EIMAGE {2}the LUO blob at/m);
  expect(stdout).toContain('kho_test');
  const quiet = await khorus(['inspect', file, '--quiet']);
  expect([quiet.code, quiet.stdout]).toEqual([1, '']);
  expect(quiet.stderr).toMatch(/error {4}KHO_EIMAGE {2}the LUO blob/);
  expect(await khorus(['inspect', ram, '-q'])).toEqual({ code: 0, stdout: '', stderr: '' });
});

test.each<[what: string, make: () => string, code: number, message: RegExp]>([
  [
    'a file without a handover',
    () => fileOf('zeros', new Uint8Array(MIB)),
    1,
    /no boot record.*no root FDT of KHO either/,
  ],
  ['noise', () => fileOf('noise', new Uint8Array(MIB).fill(0x5a)), 1, /no boot record/],
  ['an empty file', () => fileOf('empty', ''), 1, /has 0 bytes and is no blob/],
  [
    'a blob that nobody knows',
    () => fileOf('blob', 'what is it'),
    1,
    /has 10 bytes and is no blob known here.*kho\/in/,
  ],
  [
    'an image cut short before its record',
    () => fileOf('short', readFileSync(ram).subarray(0, SEGMENT)),
    1,
    /no boot record.*root FDTs of KHO at 0x1000/,
  ],
  [
    'an ELF header alone',
    () => fileOf('elf', elfCore([{ address: 0, bytes: filled(9, 1) }]).subarray(0, 64)),
    1,
    /the ELF file has 1 program headers.*cut short/,
  ],
  [
    'an ELF program',
    () => fileOf('program', readFileSync(process.execPath).subarray(0, 8192)),
    1,
    /the ELF file has the type \d, expected 4/,
  ],
  [
    'a core without a handover',
    () => fileOf('core', elfCore([{ address: 0, bytes: filled(9999, 1) }])),
    1,
    /no boot record/,
  ],
  [
    'a kdump dump',
    () => fileOf('kdump', Buffer.concat([Buffer.from('KDUMP   '), Buffer.alloc(8192)])),
    1,
    /kdump-compressed/,
  ],
  ['no such file', () => join(base, 'nowhere'), 2, /there is no .*nowhere/],
  [
    'a directory without an image',
    () => base.replace(/$/, '/out/kho'),
    2,
    /there is no (file|memory image) .*ram\.img/,
  ],
])('%s is one clear message', async (_what, make, code, message) => {
  const result = await khorus(['inspect', make()]);
  expect(result.stderr).toMatch(message);
  expect([result.code, result.stdout, result.stderr.trim().split('\n').length]).toEqual([code, '', 1]);
});

test('an image that is cut short behind its record says so, and shows what it still has', async () => {
  const file = fileOf('cut.img', readFileSync(ram));
  truncateSync(file, 60 * MIB);
  const { code, stdout } = await khorus(['inspect', file]);
  expect(code).toBe(1);
  expect(stdout).toContain(
    "the image is cut short: it ends at 0x3c00000, and firmware's map has memory up to 0x4000000",
  );
  expect(stdout).toContain('3 sessions');
});

test('where the handover begins can be told; wrong usage exits 2', async () => {
  const right = await khorus(['inspect', ram, '--boot-params', '0x37fd000']);
  expect([right.code, right.stdout.includes('0x37fd000')]).toEqual([0, true]);
  const wrong = await khorus(['inspect', ram, '--boot-params', '4096']);
  expect([wrong.code, wrong.stdout]).toEqual([1, '']);
  expect(wrong.stderr).toMatch(/there are no boot_params at 0x1000/);
  const root = await khorus(['inspect', ram, '--root', '0x1000']);
  expect([root.code, root.stdout.includes('only the root FDT')]).toEqual([0, true]);
  for (const [args, message] of [
    [['--root', '0x1001'], /not the address of a page/],
    [['--root', 'here'], /Expected a physical address/],
    [['--boot-params', '0x1000', '--root', '0x1000'], /either --boot-params or --root/],
    [['--force'], /--extract FILE/],
    [['--extrac', 'x'], /Did you mean --extract/],
  ] as const) {
    const usage = await khorus(['inspect', ram, ...args]);
    expect([args, usage.code, usage.stdout]).toEqual([args, 2, '']);
    expect(usage.stderr).toMatch(message);
  }
});

test('--extract writes a core, and replaces one only if told to', async () => {
  const core = join(base, 'handover.core');
  const { code, stdout } = await khorus(['inspect', ram, '--extract', core]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^extracted {5}\d+ KiB to .*handover\.core$/m);
  const again = await khorus(['inspect', ram, '--extract', core]);
  expect([again.code, again.stdout, again.stderr]).toEqual([2, '', expect.stringContaining('is there already')]);
  expect((await khorus(['inspect', ram, '--extract', core, '--force', '-q'])).code).toBe(0);
  const read = await khorus(['inspect', core]);
  expect([read.code, read.stderr]).toEqual([0, '']);
  expect(read.stdout).toMatch(/ELF core, \d+ KiB of 64 MiB of memory/);
  const blob = await khorus(['inspect', join(out, 'kho/out/fdt'), '--extract', join(base, 'x')]);
  expect([blob.code, existsSync(join(base, 'x'))]).toEqual([2, false]);
});

test('an FDT that is cut short is shown as far as it goes, on stdin too', async () => {
  const fdt = readFileSync(join(out, 'kho/out/fdt'));
  for (const length of [4, 39, 60, 233, fdt.length - 1]) {
    const file = fileOf(`fdt${length}`, fdt.subarray(0, length));
    const { code, stdout, stderr } = await khorus(['inspect', file]);
    expect([length, code, stderr]).toEqual([length, 0, '']);
    if (length >= 8) expect(stdout).toContain(`cut short: ${length} of ${fdt.length} bytes`);
    expect(stdout).toContain('KHO_FDT_TRUNCATED');
    const dts = await khorus(['dts', file]);
    expect([length, dts.code, dts.stdout.startsWith('/dts-v1/;')]).toEqual([length, 1, true]);
  }
  const stdin = (command: string, input: Uint8Array) =>
    spawnSync(process.execPath, [join(ROOT, 'dist/cli/main.js'), command, '-'], { input, encoding: 'utf8' });
  const piped = stdin('inspect', fdt.subarray(0, 233));
  expect([piped.status, piped.stdout.includes(`cut short: 233 of ${fdt.length} bytes`)]).toEqual([0, true]);
  expect(stdin('dts', fdt).stdout).toBe((await khorus(['dts', join(out, 'kho/out/fdt')])).stdout);
  expect(stdin('inspect', Buffer.from('noise'))).toMatchObject({
    status: 1,
    stdout: '',
    stderr: expect.stringContaining('stdin has 5 bytes'),
  });
  const damaged = Buffer.from(fdt);
  damaged.writeUInt32BE(0x77, damaged.readUInt32BE(8) + 8);
  const result = await khorus(['inspect', fileOf('damaged-fdt', damaged)]);
  expect([result.code, result.stdout.includes('KHO_FDT_BADSTRUCTURE')]).toEqual([1, true]);
});

test('blobs of debugfs that are no FDT are recognised by themselves', async () => {
  const luo = encodeLuo({ liveupdateNumber: 2n, sessions: at(0x5000), flbs: undefined });
  const shown = await khorus(['inspect', fileOf('LUO', luo)]);
  expect(shown.stdout).toBe('LUO           32 bytes: live update 2, sessions at 0x5000, FLBs at none\n');
  const old = await khorus(['inspect', fileOf('old', Buffer.concat([Buffer.from('luo-v4\0\0'), Buffer.alloc(24)]))]);
  expect([old.code, old.stdout.includes("it is 'luo-v4', expected 'luo-v5'")]).toEqual([1, true]);
  const metadata = encodeKexecMetadata({ previousRelease: '7.3.4', kexecCount: 12 });
  expect((await khorus(['inspect', fileOf('metadata', metadata)])).stdout).toContain('from 7.3.4, kexec 12');
});

test("dts prints dtc's text with decoded values, or without, or as a tree", async () => {
  const file = join(out, 'kho/out/fdt');
  const decoded = await khorus(['dts', file]);
  const plain = await khorus(['dts', file, '--plain']);
  expect([decoded.code, plain.code, decoded.stderr]).toEqual([0, 0, '']);
  expect(decoded.stdout).toMatch(/preserved-memory-map = <0x\w+ 0x00>; \/\* 0x\w+000 \*\//);
  expect(decoded.stdout.replace(/ \/\*.*\*\//g, '')).toBe(plain.stdout);
  const json = JSON.parse((await khorus(['dts', file, '--json'])).stdout);
  expect(json).toMatchObject({ schemaVersion: 1, kind: 'fdt', problems: [], root: { children: expect.any(Array) } });
  expect((await khorus(['dts', '-'])).stderr).toMatch(/0 bytes are too few/);
  for (const [args, code, message] of [
    [['dts', join(base, 'nowhere')], 2, /there is no/],
    [['dts', ram], 1, /bad magic/],
    [['dts', base], 2, /is a directory/],
    [['dts', '/dev/zero'], 2, /not a regular file/],
    [['inspect', '/dev/zero'], 2, /not a regular file/],
    [['dts'], 2, /missing required argument/],
  ] as const) {
    const result = await khorus(args);
    expect([args, result.code, result.stdout]).toEqual([args, code, '']);
    expect(result.stderr).toMatch(message);
  }
});

test('names from memory do nothing to a terminal', async () => {
  const bytes = readFileSync(ram);
  const sessions = Number(bytes.readBigUInt64LE(image.at('LUO') + 16));
  bytes.write('a\x1b[31mred', sessions + 16, 'latin1');
  const { stdout } = await khorus(['inspect', fileOf('escape.img', bytes)]);
  expect(stdout).toContain('session a\u{fffd}[31mred');
  expect(stdout).not.toContain('\x1b');
});

test('help has examples, and a directory may hold anything else beside its image', async () => {
  for (const command of ['inspect', 'dts']) {
    const help = await khorus([command, '--help']);
    expect([command, help.code, help.stdout.includes('Examples:')]).toEqual([command, 0, true]);
  }
  const captured = join(base, 'captured');
  mkdirSync(join(captured, 'kho/out/sub_fdts'), { recursive: true });
  writeFileSync(join(captured, 'ram.img'), readFileSync(ram));
  writeFileSync(join(captured, 'run.json'), 'not ours');
  writeFileSync(join(captured, 'kho/out/scratch_len'), '0x1\n');
  const { code, stdout, stderr } = await khorus(['inspect', captured]);
  expect([code, stdout.includes('kho/out/scratch_len differs')]).toEqual([1, true]);
  expect(stderr).toMatch(/^note: owners of pages are not known: .*run\.json is not a run\.json/);
});
