import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { encodeKexecMetadata } from '#dist/abi/index.js';
import { chooseStart, type ImageReport, inspectPath } from '#dist/inspect/index.js';
import {
  physicalAddress as at,
  ImageMemory,
  type SharedPhysicalMemory,
  writeElfCore,
  writeImage,
} from '#dist/memblock/index.js';
import { loadRecord, u64s } from '../arch/kexec-memory.js';
import { thrown } from '../memblock/thrown.js';
import { HandoverImage, MIB, PAGE, SCRATCH, SEGMENT } from './handover-image.js';

const directory = mkdtempSync(join(tmpdir(), 'khorus-inspect-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;

async function fileOf(memory: SharedPhysicalMemory, file = join(directory, `ram${files++}`)): Promise<string> {
  await writeImage(memory, file, { ranges: memory.ranges });
  return file;
}

async function imageReport(path: string, options = {}): Promise<ImageReport> {
  const report = await inspectPath(path, options);
  if (report.kind !== 'image') throw new Error(`a report of a ${report.kind}`);
  return report;
}

/** A report without what depends on the file and not on the memory in it. */
function withoutFile({ file: _file, extracted: _extracted, ...rest }: ImageReport): string {
  const text = JSON.stringify(rest);
  return text.replace(/"content":"[a-z ]+"(,"(sha256|verified)":("\w+"|true))?/g, '"content":""');
}

test('a flat file and an ELF core of the same memory say the same', async () => {
  const memory = HandoverImage.whole().finish();
  const flat = await imageReport(await fileOf(memory));
  expect(flat).toMatchObject({
    file: { format: 'flat', size: 64 * MIB, memory: 64 * MIB, held: 64 * MIB },
    findings: [],
  });
  const core = join(directory, 'whole.core');
  await writeElfCore(memory, core, memory.ranges);
  const elf = await imageReport(core);
  expect(elf.file).toMatchObject({ format: 'elf', memory: 64 * MIB, held: 64 * MIB });
  expect({ ...elf, file: undefined }).toEqual({ ...flat, file: undefined });
});

test("--extract writes the handover's own pages: the core says what the image says, but for contents", async () => {
  const image = HandoverImage.whole();
  const file = await fileOf(image.finish());
  const core = join(directory, 'small.core');
  const before = await imageReport(file, { extract: core });
  expect(before.extracted).toMatchObject({ file: core });
  const after = await imageReport(core);
  expect(after.findings).toEqual([]);
  expect(withoutFile(after)).toBe(withoutFile(before));
  expect(after.file.held).toBe(before.extracted?.size);
  expect(after.file.held).toBeLessThan(60 * PAGE);
  expect(after.khoTest).toMatchObject({ content: 'not in this file' });
  expect(after.luo?.sessions[0]?.files[0]?.memfd).toMatchObject({ content: 'not in this file', size: 5 * PAGE + 100 });
  // Again from the core itself: nothing is lost.
  const again = join(directory, 'again.core');
  await imageReport(core, { extract: again });
  expect(withoutFile(await imageReport(again))).toBe(withoutFile(before));
  await expect(inspectPath(file, { extract: core })).rejects.toMatchObject({ code: 'KHO_EEXIST' });
  await imageReport(file, { extract: core, force: true });
});

test('a damaged handover can be extracted, with its damage', async () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  memory.writeU64(at((image.tables[0] ?? 0) + 3 * 8), 2n ** 40n);
  memory.fill(image.at('LUO'), 32, 0xcc);
  const file = await fileOf(memory);
  const core = join(directory, 'damaged.core');
  const before = await imageReport(file, { extract: core });
  expect(before.findings.length).toBeGreaterThan(2);
  const after = await imageReport(core);
  // The root FDTs beside it are not part of a handover; there are none here.
  expect(withoutFile(after)).toBe(withoutFile(before));
});

test('of several records that look real, the one of the latest kexec is taken, and the others are named', async () => {
  const image = HandoverImage.whole();
  const old = image.root;
  const newer = image.pages(1);
  image.subtrees.splice(0, 1);
  image.blob('kexec-metadata', encodeKexecMetadata({ previousRelease: '7.2.13', kexecCount: 5 }));
  const memory = image.finish();
  // The same handover twice but for its count: the newer record lies lower, so that the search meets it last.
  const segment = SEGMENT - 40 * PAGE;
  memory.write(newer, memory.read(old, PAGE));
  loadRecord(memory, { segment, root: newer });
  memory.write(newer, memory.read(old, PAGE));
  const page = Buffer.from(memory.read(image.at('kexec-metadata'), PAGE));
  page.writeUInt32LE(4, 69);
  const older = image.at('noise');
  memory.write(older, page);
  const root = Buffer.from(memory.read(old, PAGE));
  u64s(older).copy(root, root.indexOf(u64s(image.at('kexec-metadata'))));
  memory.write(old, root);
  const report = await imageReport(await fileOf(memory));
  expect([report.bootRecord?.address, report.metadata?.kexecCount]).toEqual([segment, 5]);
  expect(report.otherRecords).toEqual([SEGMENT]);
  expect(report.findings.at(-1)?.message).toMatch(/another boot record at 0x37fd000, an earlier one or a copy/);
  const asked = await imageReport(await fileOf(memory), { bootParams: SEGMENT });
  expect([asked.bootRecord?.address, asked.metadata?.kexecCount]).toEqual([SEGMENT, 4]);
});

test('a scratch array that names the same memory a thousand times is searched once', async () => {
  const memory = HandoverImage.whole().finish();
  const many = Array.from({ length: 4000 }, () => [SCRATCH.address, SCRATCH.size]).flat();
  memory.write(at(SCRATCH.address + 64 * PAGE), u64s(...many));
  loadRecord(memory, { root: 0x1000, array: SCRATCH.address + 64 * PAGE });
  memory.write(at(SCRATCH.address + 64 * PAGE), u64s(...many));
  memory.writeU64(at(SEGMENT + PAGE + 64 + 72 + 16 + 24), BigInt(many.length * 8));
  const found = await chooseStart(memory, {});
  expect([found.others.length, 'record' in found.start]).toEqual([0, true]);
});

/** Memory of an image that counts the bytes that are read of it. */
async function countingImage(memory: SharedPhysicalMemory): Promise<{ image: ImageMemory; bytes: () => number }> {
  const image = ImageMemory.open(await fileOf(memory));
  let bytes = 0;
  const readInto = image.readInto.bind(image);
  image.readInto = (address, target) => {
    bytes += target.length;
    readInto(address, target);
  };
  return { image, bytes: () => bytes };
}

test('where the run recorded its boot record, that is read and nothing is searched', async () => {
  const handover = HandoverImage.whole();
  const { image, bytes } = await countingImage(handover.finish());
  const found = await chooseStart(image, { recorded: { bootParams: SEGMENT, root: handover.root } });
  expect(found).toMatchObject({ start: { record: { address: SEGMENT, root: handover.root } }, others: [] });
  expect(bytes()).toBeLessThanOrEqual(4 * PAGE);
  // What is not as it was recorded is searched for as if nothing had been.
  for (const recorded of [
    { bootParams: SEGMENT, root: handover.root + PAGE },
    { bootParams: SEGMENT - 8 * PAGE, root: handover.root },
  ]) {
    expect(await chooseStart(image, { recorded })).toEqual(found);
  }
  expect(bytes()).toBeGreaterThan(SCRATCH.size);
  image.close();
});

test('a search gives other things their turn, and ends when one of them aborts it', async () => {
  const { image, bytes } = await countingImage(HandoverImage.whole().finish());
  image.fill(at(SEGMENT), PAGE, 0);
  const abort = new AbortController();
  const search = chooseStart(image, { signal: abort.signal });
  setImmediate(() => abort.abort());
  await expect(search).rejects.toMatchObject({ code: 'KHO_ECANCELED' });
  expect(bytes()).toBeLessThan(32 * MIB);
  image.close();
});

test('an image without a record names the root FDTs in it, and --root reads one', async () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  memory.fill(at(SEGMENT), PAGE, 0);
  const file = await fileOf(memory);
  const refused = await inspectPath(file).catch((error) => error);
  expect(refused).toMatchObject({ code: 'KHO_EIMAGE', details: { file } });
  expect(refused.message).toMatch(/no boot record.*root FDTs of KHO at 0x1000: read one with --root/);
  const report = await imageReport(file, { root: image.root });
  expect(report.luo?.sessions).toHaveLength(3);
  expect(report.findings).toEqual([
    expect.objectContaining({ severity: 'info', message: expect.stringContaining('only the root FDT') }),
  ]);
  await expect(inspectPath(file, { root: 77 })).rejects.toMatchObject({ code: 'KHO_EINVAL' });
  await expect(inspectPath(file, { bootParams: MIB })).rejects.toMatchObject({ code: 'KHO_EIMAGE' });
  const none = join(directory, 'none');
  writeFileSync(none, new Uint8Array(MIB));
  expect((await inspectPath(none).catch((error) => error)).message).toContain('there is no root FDT of KHO either');
});

test('memory from after the boot says so, and where the running kernel has begun a handover of its own', async () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const own = at(30 * MIB);
  memory.write(own, memory.read(image.root, PAGE));
  memory.fill(image.tables[0] ?? at(0), PAGE, 0); // its tracker was freed
  const copy = SCRATCH.address + MIB + 0x740;
  memory.write(at(copy), memory.read(at(SEGMENT), PAGE));
  memory.fill(at(SEGMENT), PAGE, 0x5a);
  const report = await imageReport(await fileOf(memory));
  expect(report).toMatchObject({ reused: true, bootRecord: { address: copy } });
  const texts = report.findings.map(({ message }) => message).join('\n');
  expect(texts).toMatch(
    /may have been taken after the next kernel booted.*only as the copy of a running kernel.*the tracker is empty/,
  );
  expect(texts).toMatch(/other root FDTs of KHO at 0x1e00000/);
});

test('what debugfs showed beside an image is compared with it', async () => {
  const image = HandoverImage.whole();
  const memory = image.finish();
  const base = join(directory, 'captured');
  const out = join(base, 'kho/out');
  mkdirSync(join(out, 'sub_fdts'), { recursive: true });
  await fileOf(memory, join(base, 'ram.img'));
  const size = Buffer.from(memory.read(image.root, 8)).readUInt32BE(4);
  writeFileSync(join(out, 'fdt'), memory.read(image.root, size).subarray(0, 233));
  writeFileSync(join(out, 'scratch_phys'), '0x3000000\n0x0\n0x0\n');
  writeFileSync(join(out, 'scratch_len'), '0x800000\n0x0\n0x0\n');
  writeFileSync(join(out, 'unknown'), 'of another kernel');
  for (const { name, address, size: bytes } of image.subtrees) {
    writeFileSync(join(out, 'sub_fdts', name), memory.read(address, bytes));
  }
  const equal = await imageReport(base);
  expect(equal.findings).toEqual([]);
  expect(equal.debugfs?.shorter).toEqual(['fdt']);
  expect(equal.debugfs?.equal).toHaveLength(8);
  writeFileSync(join(out, 'scratch_len'), '0x800000\n0x0\n');
  writeFileSync(join(out, 'sub_fdts', 'noise'), 'noise');
  writeFileSync(join(out, 'fdt'), Buffer.alloc(233));
  const other = await imageReport(base);
  expect(other.findings.map(({ severity, code, message }) => `${severity} ${code} ${message}`)).toEqual([
    'error KHO_EDIGEST kho/out/fdt differs from what memory holds',
    'error KHO_EDIGEST kho/out/scratch_len has 13 bytes, memory 17',
    'error KHO_EDIGEST kho/out/sub_fdts/noise differs from what memory holds',
  ]);
});

test('the image is closed whatever happens', async () => {
  const memory = HandoverImage.whole().finish();
  const file = await fileOf(memory);
  using image = ImageMemory.open(file);
  expect(thrown(() => image.read(at(64 * MIB), 1)).code).toBe('KHO_EFAULT');
  await expect(inspectPath(file, { extract: join(directory, 'no', 'core') })).rejects.toMatchObject({
    code: 'KHO_EIO',
  });
});
