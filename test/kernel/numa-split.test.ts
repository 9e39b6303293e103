/**
 * A preserved range that crosses a border of nodes, restored by a real kernel: docs/numa-split.md.
 *
 * Nothing in Linux 7.2 hands such a range over, so one is made of what the kernel's own test gives to kho_restore_pages():
 * the list of its folios, a vmalloc area whose descriptor says how many pages a piece has. The list is moved into memory
 * of reserve_mem areas that the guest does not ask for, as one piece, or as two, one for each half.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { encodeKhoVmalloc, readKhoTest } from '#dist/abi/index.js';
import { type Folio, PAGE_SIZE, type PhysicalAddress, physicalAddress } from '#dist/memblock/index.js';
import { naturalOrders } from '#dist/memblock/page-range.js';
import { Damage } from './support/damage.js';
import { guestReport, troubleOn } from './support/guest-console.js';
import { type KernelTestContext, kernelTest } from './support/kernel-test.js';
import { type HandedOver, handOver, type Shape, takeOver } from './support/khorus.js';

interface Block {
  address: PhysicalAddress;
  /** Of the whole block: naturally aligned. Its halves have one less. */
  order: number;
}

interface Handed extends HandedOver {
  block: Block;
}

const DRIVERS = [{ use: 'kho-test', options: { orders: [3, 0, 5] } }];
const SHAPE: Shape = { memory: '512M', revive: false, drivers: DRIVERS };
/** A directory of its own for each run of a test. */
function anew(context: KernelTestContext): KernelTestContext {
  return { ...context, directory: mkdtempSync(join(context.directory, 'run-')) };
}

/** How kho_preserve_pages() of a kernel with a border in the middle of the block splits it. */
function halves({ address, order }: Block): Folio[] {
  const middle = address / PAGE_SIZE + 2 ** (order - 1);
  return [...naturalOrders(address, 2 ** order, (first, last) => first < middle === last < middle)];
}

/** Makes the list of the kernel's test one piece, or one for each half. `missing`: pages that the list claims to have more. */
function moveList(image: Damage, { address, order }: Block, pieces: 'one' | 'two', missing: number): void {
  const blob = image.blob('kho_test');
  const { area } = readKhoTest(image.memory, blob.address, blob.size);
  const [first] = area.chunks;
  image.write(address, image.memory.read(area.pieces[0], PAGE_SIZE));
  const middle = address + (PAGE_SIZE * 2 ** order) / 2;
  image.write(first + 8, u64(address, pieces === 'one' ? 0 : middle));
  const before = encodeKhoVmalloc({ first, totalPages: 1, flags: 1, order: 0 });
  const totalPages = 2 ** order + missing;
  const after = encodeKhoVmalloc({ first, totalPages, flags: 1, order: pieces === 'one' ? order : order - 1 });
  expect(image.replace(blob.address, blob.size, before, after)).toBe(true);
}

async function boot(handed: Handed, pieces: 'one' | 'two', missing: number) {
  {
    using image = new Damage(handed);
    moveList(image, handed.block, pieces, missing);
  }
  const { boot } = await takeOver(handed);
  const console = boot.console.join('\n');
  const trouble = troubleOn(console).map((line) => line.replace(/^\[[ \d.]+\] /, ''));
  const report = guestReport(console);
  const { managed, memoryTotal = Number.NaN, memoryFree = Number.NaN } = report;
  expect(report).toMatchObject({ done: true, errors: [] });
  return { console, trouble, managed, memoryTotal, memoryFree };
}

describe('a range that its predecessor split at a border of nodes', () => {
  /** 64 MiB as two objects of 32 MiB: of three areas of 32 MiB side by side, two make a natural block. */
  async function largeBlock(context: KernelTestContext): Promise<Handed> {
    const reserveMem = { a: '32M:32M', b: '32M:32M', c: '32M:32M' };
    const handed = await handOver(anew(context), { ...SHAPE, reserveMem, guest: 'nokaslr' });
    const areas = handed.record.ranges.filter(({ owner }) => owner.kind === 'reserve_mem');
    const address = Math.min(...areas.map(({ address }) => address).filter((address) => address % 2 ** 26 === 0));
    const block = { address: physicalAddress(address), order: 14 };
    expect(areas.map(({ address, order }) => ({ address, order }))).toEqual(expect.arrayContaining(halves(block)));
    return { ...handed, block };
  }

  kernelTest('is restored in its first half alone, and the kernel calls it a success', async (context) => {
    const split = await boot(await largeBlock(context), 'one', 0);
    const whole = await boot(await largeBlock(context), 'two', 0);
    for (const { trouble, console } of [split, whole]) {
      expect(trouble).toEqual([]);
      expect(console).toContain('test_kho: KHO restore succeeded');
    }
    expect(whole.memoryTotal - split.memoryTotal).toBe(2 ** 13);
    // The test freed all of the list. So the pages that were stepped over can be allocated, but nobody counts them.
    expect(Math.abs(whole.memoryFree - split.memoryFree)).toBeLessThan(2 ** 10);
    expect(whole.memoryFree).toBeLessThan(whole.memoryTotal);
    expect(split.memoryFree).toBeGreaterThan(split.memoryTotal);
  });
});

describe('a kernel of two nodes with their border in the middle of a range of 1 MiB', () => {
  /**
   * Two emulated nodes. Memory begins at 512 KiB, and so the border is at 256.5 MiB: an emulated node's size is a multiple
   * of 32 MiB. The list claims a page too many: the kernel restores what there is, gives up, and frees nothing, for
   * vfree() would free blocks across the border.
   */
  async function smallBlock(context: KernelTestContext, objects: 'one' | 'two'): Promise<Handed> {
    const handed = await handOver(anew(context), {
      ...SHAPE,
      reserveMem: { block: '1M:256M', half: '512K:512K' },
      guest: 'nokaslr memmap=512K$0x0 numa=fake=2',
    });
    const area = handed.record.ranges.find(({ owner }) => owner.kind === 'reserve_mem' && owner.name === 'block');
    const block = { address: physicalAddress(area?.address ?? 0), order: 8 };
    expect(area?.order).toBe(8);
    if (objects === 'two') {
      using image = new Damage(handed);
      image.retrack(block, halves(block));
    }
    return { ...handed, block };
  }

  /** The nodes of the two halves, from what the kernel says of its nodes. */
  function nodesOf(console: string, { address }: Block): number[] {
    const nodes = [...console.matchAll(/Faking node (\d+) at \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\]/g)].map(
      ([, nid, first, last]) => ({ nid: Number(nid), first: Number(first), last: Number(last) }),
    );
    const ends = [address + 2 ** 19 - 1, address + 2 ** 19];
    return ends.map((at) => nodes.find(({ first, last }) => at >= first && at <= last)?.nid ?? -1);
  }

  kernelTest('counts the half that it steps over for no node', async (context) => {
    const results = [];
    for (const [objects, pieces] of [
      ['two', 'two'],
      ['two', 'one'],
      ['one', 'one'],
    ] as const) {
      const handed = await smallBlock(context, objects);
      const end = await boot(handed, pieces, 1);
      expect(end.trouble).toEqual(['test_kho: KHO restore failed']);
      results.push({ ...end, nodes: nodesOf(end.console, handed.block) });
    }
    const [each, split, one] = results;
    for (const { nodes, managed } of results) expect([nodes, managed.length]).toEqual([[0, 1], 2]);
    const change = ({ managed }: { managed: number[] }): number[] =>
      managed.map((pages, nid) => pages - each.managed[nid]);
    // Restored half by half, each counts for its node. Split at the border and restored as one range: the second is missing.
    expect(change(split)).toEqual([0, -128]);
    // One object over the border, as a kernel without the node rule would hand over: all of it counts for the first node.
    expect(change(one)).toEqual([128, -128]);
  });
});

function u64(...values: number[]): Uint8Array {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64LE(BigInt(value), 8 * index);
  return bytes;
}
