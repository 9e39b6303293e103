import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CapturedFiles } from '#dist/capture/captured-files.js';
import { readCapturedMemory } from '#dist/capture/captured-memory.js';
import { checkMemoryMap } from '#dist/coordinator/index.js';
import {
  iomemText,
  largeServerFiles,
  type MachineFiles,
  memmapFiles,
  microVmFiles,
  nodeFiles,
  type Range,
  SERVER_IOMEM,
  SERVER_MEMMAP,
  serverFiles,
  writeMachine,
} from '../support/machine-files.js';

const GIB = 2 ** 30;
const read = (files: MachineFiles, cmdline = '') => {
  const memory = readCapturedMemory(new CapturedFiles(writeMachine(files)), cmdline);
  checkMemoryMap(memory.map);
  return memory;
};
const invalid = (pattern: RegExp) =>
  expect.objectContaining({ code: 'KHO_EINVAL', message: expect.stringMatching(pattern) });
const nodesOf = ({ map }: ReturnType<typeof read>) => map.ranges.map(({ nid, base, size }) => [nid, base, base + size]);

describe('the memory map of a captured machine', () => {
  it('has the holes of firmware, the nodes of the memory blocks, the kernel and the crash kernel of iomem', () => {
    const memory = read(serverFiles());
    expect(memory.notices).toEqual([]);
    expect(nodesOf(memory)).toEqual([
      [0, 0x1000, 0x9d000],
      [0, 0x100000, 0x30000000],
      [0, 0x30100000, 0x3fff1000],
      [1, 0x100000000, 0x120000000],
    ]);
    expect(memory.map.kernel).toEqual({ address: 0x1000000, size: 0x2000000 });
    expect(memory.map.reserved).toEqual([{ address: 0x28000000, size: 0x4000000 }]);
    expect(memory.map.firmware.map(({ base, size, usable }) => [base, base + size, usable])).toEqual([
      [0, 0x1000, false],
      [0x1000, 0x9d400, true],
      [0x9d400, 0xa0000, false],
      [0xe0000, 0x100000, false],
      [0x100000, 0x30000000, true],
      [0x30000000, 0x30100000, false],
      [0x30100000, 0x3fff1000, true],
      [0x3fff1000, 0x40000000, false],
      [0xe0000000, 0xf0000000, false],
      [0x100000000, 0x120000000, true],
    ]);
  });

  it("is made from the firmware's map where iomem hides its addresses or is missing, and says so", () => {
    const hidden = iomemText(SERVER_IOMEM).replaceAll(/[0-9a-f]{8,}/g, '00000000');
    const { 'proc/iomem': _, ...without } = serverFiles();
    for (const [files, why] of [
      [{ ...without, 'proc/iomem': hidden }, 'iomem hides its addresses'],
      [without, 'iomem is missing'],
    ] as const) {
      const memory = read(files);
      expect(nodesOf(memory)).toEqual(nodesOf(read(serverFiles())));
      expect(memory.map.kernel).toBeUndefined();
      expect(memory.notices).toEqual([expect.stringMatching(new RegExp(`${why}.* made from /.*/sys/firmware/memmap`))]);
    }
  });

  it('is made from iomem alone, or from memory blocks alone, where there is nothing else', () => {
    const fromIomem = read({ 'proc/iomem': iomemText(SERVER_IOMEM) });
    expect(nodesOf(fromIomem).map(([nid]) => nid)).toEqual([0, 0, 0, 0]);
    expect(fromIomem.map.firmware.filter(({ usable }) => !usable)).toHaveLength(6);
    expect(nodesOf(read(nodeFiles({ 0: [0, 1], 2: [8] })))).toEqual([
      [0, 0x1000, 0xa0000],
      [0, 0x100000, 2 ** 28],
      [2, GIB, GIB + 2 ** 27],
    ]);
    expect(() => read({ 'proc/cmdline': '\n' })).toThrow(
      invalid(/nothing says where the memory .*\/iomem, .*memmap, .*node; as root/),
    );
  });

  it('is refused where iomem is cut before all of the kernel is listed, after whichever line', () => {
    const lines = microVmFiles()['proc/iomem'] as string;
    const upTo = (count: number) => ({ 'proc/iomem': lines.split('\n').slice(0, count).join('\n').concat('\n') });
    const missing = ['Kernel code, Kernel data, Kernel bss', 'Kernel data, Kernel bss', 'Kernel bss'];
    for (const [count, part] of [1, 2, 3, 4, 5].map((count) => [count, missing[Math.max(0, count - 3)]] as const)) {
      expect(() => read(upTo(count))).toThrow(invalid(new RegExp(`iomem has no ${part} in System RAM.*: it is cut$`)));
    }
    expect(read(upTo(6)).map.kernel).toEqual({ address: 0x1000000, size: 0x1000000 });
  });

  it('tells the next kernel of no more memory than this one had', () => {
    const limited = SERVER_IOMEM.filter(([start]) => start < 0x30100000);
    const memory = read({ ...memmapFiles(SERVER_MEMMAP), 'proc/iomem': iomemText(limited) }, 'quiet mem=769M');
    expect(memory.notices).toEqual([
      "the kernel has 767 MiB less than firmware says ('mem=' on the command line): the next kernel is told so too",
    ]);
    expect(memory.map.firmware.filter(({ usable }) => usable).at(-1)).toMatchObject({
      base: 0x100000,
      size: 0x2ff00000,
    });
    expect(memory.map.firmware.at(-1)).toEqual({ base: 0x100000000, size: 0x20000000, usable: false });
  });

  it('is refused where iomem has nothing at all of a range of firmware, and no word of the command line took it', () => {
    const { 'proc/iomem': iomem, ...server } = serverFiles();
    const lines = String(iomem).split('\n');
    const upTo = (count: number) => ({ ...server, 'proc/iomem': `${lines.slice(0, count).join('\n')}\n` });
    const lost = (range: string) =>
      invalid(
        new RegExp(`/memmap/\\d calls ${range} System RAM, but .*/proc/iomem has nothing there, .*mem= nor memmap=`),
      );
    expect(() => read(upTo(6))).toThrow(lost('0x100000-0x2fffffff'));
    expect(() => read(upTo(20))).toThrow(lost('0x100000000-0x11fffffff'));
    // Words that take no memory, and what is for init.
    expect(() => read(upTo(20), 'mem=nopentium memtest=4 mem -- mem=1G')).toThrow(lost('0x100000000-0x11fffffff'));
    const taken = Object.fromEntries(Object.entries(upTo(20)).filter(([name]) => !name.includes('/memory')));
    expect(read(taken, 'memmap=512M$4G').notices).toContainEqual(expect.stringMatching(/\('memmap=' on the command/));
  });

  it('is refused where nodes have blocks of which a readable iomem has nothing, though firmware has', () => {
    // As a range of firmware that iomem has in two lines, the second of which is lost.
    const halved = SERVER_IOMEM.map(
      ([start, last, type]): Range => [start, start === 2 ** 32 ? start + 0x7ffffff : last, type],
    );
    const files = { ...serverFiles(), 'proc/iomem': iomemText(halved) };
    expect(() => read(files)).toThrow(
      invalid(
        /node1\/memory33 \(0x108000000-0x10fffffff\) is memory of node 1 \(as 2 more blocks are\), but .*iomem has none there/,
      ),
    );
    expect(read(files, 'mem=4224M').notices).toContainEqual(expect.stringMatching(/384 MiB less than firmware says/));
    const took = [...halved, [0x108000000, 0x11fffffff, 'Reserved'] as const].sort(([a], [b]) => a - b);
    expect(nodesOf(read({ ...files, 'proc/iomem': iomemText(took) })).at(-1)).toEqual([1, 0x100000000, 0x108000000]);
    // A block at the end of memory has but a part of it.
    const { 'sys/devices/system/node/node1/memory35': _, ...server } = serverFiles();
    const part = SERVER_IOMEM.map(
      ([start, last, type]): Range => [start, start === 2 ** 32 ? 0x1100fffff : last, type],
    );
    expect(nodesOf(read({ ...server, 'proc/iomem': iomemText(part) })).at(-1)).toEqual([1, 0x100000000, 0x110100000]);
  });

  it('says of which nodes a shared block is, which memory is in no block, and which node is left without any', () => {
    const memory = (nodes: Record<number, number[]>) =>
      read({ 'proc/iomem': iomemText(SERVER_IOMEM), ...nodeFiles(nodes) });
    const border = memory({ 0: [0, 1, 2, 3, 4], 1: [4, 5, 6, 7, 32, 33, 34, 35], 2: [4] });
    expect(nodesOf(border).slice(1)).toEqual([
      [0, 0x100000, 0x28000000],
      [1, 0x28000000, 0x30000000],
      [1, 0x30100000, 0x3fff1000],
      [1, 0x100000000, 0x120000000],
    ]);
    expect(border.notices).toEqual([
      "memory blocks on several nodes are taken to be the lowest one's: 4 (nodes 0, 1, 2)",
      "node 2 is without memory here: that of its blocks is another node's, or not of the boot",
    ]);
    expect(memory({ 0: [0, 1, 2, 3, 4, 5, 6, 7], 1: [32, 33] }).notices).toEqual([
      "256 MiB of memory are in no node's blocks (0x110000000-0x11fffffff); they are taken to be on the node below them",
    ]);
    expect(memory({ 0: [0, 1, 2, 3, 4, 5, 6, 7, 32], 1: [7, 32, 33, 34, 35] }).notices).toEqual([
      "memory blocks on several nodes are taken to be the lowest one's: 7 (nodes 0, 1), and 1 more",
    ]);
    expect(memory({ 0: [0, 1, 2, 3, 4, 5], 1: [32] }).notices).toEqual([
      expect.stringMatching(/^639 MiB .* \(0x30100000-0x3fff0fff and 1 more\)/),
    ]);
  });

  it('names no cause where the kernel took memory away itself: it is in iomem under another name', () => {
    const trimmed = SERVER_IOMEM.map(
      ([start, last, type]): Range => [start, last, start === 2 ** 32 ? 'Reserved' : type],
    );
    const { notices } = read({ ...memmapFiles(SERVER_MEMMAP), 'proc/iomem': iomemText(trimmed) });
    expect(notices).toEqual(['the kernel has 512 MiB less than firmware says: the next kernel is told so too']);
  });

  it('prints addresses above 2^53 as the file has them', () => {
    const server = serverFiles();
    const odd = '20000000000001-20000000000003 : System RAM\n';
    expect(() => read({ ...server, 'proc/iomem': `${String(server['proc/iomem'])}${odd}` })).toThrow(
      invalid(/memory above 2\^52: 0x20000000000001-0x20000000000003$/),
    );
    const memmap = (end: string) => ({
      ...server,
      'sys/firmware/memmap/8/start': '0x20000000000001\n',
      'sys/firmware/memmap/8/end': `${end}\n`,
    });
    expect(() => read(memmap('0x20000000000003'))).toThrow(
      invalid(/memmap\/8 is above 2\^52: 0x20000000000001-0x20000000000003$/),
    );
    expect(() => read(memmap('0xff'))).toThrow(invalid(/8 ends before it begins: 0x20000000000001-0xff$/));
  });

  it('is refused where the files contradict each other, both of them named', () => {
    const server = serverFiles();
    const beyond: Range[] = [...SERVER_IOMEM.slice(0, -1), [0x140000000, 0x14fffffff, 'System RAM']];
    const cases: [MachineFiles, RegExp][] = [
      [
        { ...server, 'proc/iomem': iomemText(beyond) },
        /iomem:22 calls 0x140000000-0x14fffffff System RAM, but no range of .*firmware\/memmap has it/,
      ],
      [
        { ...server, 'sys/firmware/memmap/5/type': 'Unusable memory\n' },
        /iomem:14 calls 0x30100000-0x3fff0fff System RAM, but .*memmap\/5 calls it Unusable memory/,
      ],
      [
        { ...server, 'sys/firmware/memmap/8/start': '0xefff0000\n' },
        /memmap\/8 calls 0xefff0000-0x11fffffff System RAM, but .*memmap\/7 calls 0xe0000000-0xefffffff Reserved/,
      ],
      [
        { ...server, ...nodeFiles({ 1: [80] }) },
        /node1\/memory80 \(0x280000000-0x287ffffff\) is memory of node 1, but .*iomem and .*memmap have no memory there/,
      ],
      [
        { ...server, 'sys/firmware/memmap/3/type': 'System ROM\n' },
        /memmap\/3\/type is 'System ROM'; expected a type such as System RAM or Reserved/,
      ],
      [{ ...server, 'sys/firmware/memmap/3/end': '' }, /memmap\/3\/end is empty/],
      [{ ...server, 'sys/firmware/memmap/3/end': '0x2ffff' }, /memmap\/3\/end is cut/],
      [{ ...server, 'sys/firmware/memmap/3/end': '0x2fff\n' }, /memmap\/3 ends before it begins/],
      [{ ...server, 'sys/firmware/memmap/8/end': '0xfffffffffffff0\n' }, /memmap\/8 is above 2\^52/],
      [{ ...server, 'sys/firmware/memmap/9/start': '0x200000000\n' }, /memmap\/9\/end is missing/],
      [
        { ...server, 'sys/devices/system/memory/block_size_bytes': '8000001\n' },
        /block_size_bytes is '8000001'; expected a power of two in hexadecimal, at least 8000000/,
      ],
      [
        { ...server, 'sys/devices/system/memory/block_size_bytes': '100000\n' },
        /block_size_bytes is '100000'; expected .* at least 8000000 \(128 MiB\)/,
      ],
      [
        { ...server, ...nodeFiles({ 1: [0, 1, 2, 3] }) },
        /node1\/memory1 is on node 0 too, as are the blocks on both sides of it; nodes share only blocks at their borders/,
      ],
    ];
    for (const [files, pattern] of cases) expect(() => read(files)).toThrow(invalid(pattern));
  });

  it('follows a command line that adds memory, and a driver that plugged some in', () => {
    const beyond: Range[] = [...SERVER_IOMEM.slice(0, -1), [0x140000000, 0x14fffffff, 'System RAM']];
    const added = read({ ...serverFiles(), 'proc/iomem': iomemText(beyond) }, 'quiet memmap=256M@5G');
    expect(added.notices[0]).toMatch(/'memmap' on the command line adds memory, so \/.*\/proc\/iomem counts/);
    expect(nodesOf(added).at(-1)).toEqual([1, 0x140000000, 0x150000000]);

    const plugged: Range[] = [
      ...SERVER_IOMEM.slice(0, -1),
      [0x280000000, 0x287ffffff, 'Soft Reserved'],
      [0x280000000, 0x287ffffff, '  System RAM (kmem)'],
    ];
    const memory = read({ ...serverFiles(), ...nodeFiles({ 1: [80] }), 'proc/iomem': iomemText(plugged) });
    expect(nodesOf(memory).at(-1)).toEqual([1, 0x100000000, 0x120000000]);
  });

  it('leaves out reserved ranges that a boot record has no room for', () => {
    const many = Array.from({ length: 200 }, (_, index): Range => {
      const start = 2 ** 31 + index * 8192;
      return [start, start + 4095, 'Reserved'];
    });
    const memory = read(memmapFiles([...SERVER_MEMMAP.slice(0, 1), [0x100000, 0x3fffffff, 'System RAM'], ...many]));
    expect(memory.map.firmware).toHaveLength(2);
    expect(memory.notices.slice(1)).toEqual([
      expect.stringMatching(/^201 ranges of firmware that are no memory are left out/),
    ]);
  });

  it('is refused with its source where a boot record has no room for its memory alone', () => {
    const many = Array.from({ length: 128 }, (_, index): Range => {
      const start = 2 ** 32 + index * 8192;
      return [start, start + 4095, 'System RAM'];
    });
    const iomem = { 'proc/iomem': iomemText([...SERVER_IOMEM.slice(0, -2), ...many]) };
    expect(() => read(iomem)).toThrow(invalid(/proc\/iomem has 131 ranges of memory; a boot record holds 128$/));
    expect(() => read(memmapFiles([...SERVER_MEMMAP.slice(0, 2), ...many]))).toThrow(
      invalid(/sys\/firmware\/memmap has 129 ranges of memory/),
    );
  });

  it('of 1.5 TiB on four nodes has every page on the node of its block', () => {
    const memory = read(largeServerFiles());
    const size = 384 * GIB;
    expect(nodesOf(memory).slice(2)).toEqual(
      [0, 1, 2, 3].map((nid) => [nid, 4 * GIB + nid * size, 4 * GIB + (nid + 1) * size]),
    );
    expect(memory.notices).toEqual([]);
  });

  it('puts every page on the node of its block, else on that of the next one below, or above', () => {
    const block = 2 ** 27;
    const owners = fc.array(fc.option(fc.nat(3), { nil: undefined }), { minLength: 9, maxLength: 24 });
    fc.assert(
      fc.property(owners, fc.array(fc.boolean(), { minLength: 24, maxLength: 24 }), (nodes, hasMemory) => {
        // The first block has the legacy hole, and is on no node; and a block on a node has memory, or it would be a contradiction.
        const memory = nodes.map((nid, index) => index > 0 && (nid !== undefined || hasMemory[index]));
        fc.pre(memory.includes(true));
        const owned: Record<number, number[]> = {};
        for (const [index, nid] of nodes.entries())
          if (nid !== undefined && index > 0) owned[nid] = [...(owned[nid] ?? []), index];
        const ranges = memory.flatMap((has, index): Range[] =>
          has ? [[index * block, (index + 1) * block - 1, 'System RAM']] : [],
        );
        const found = read({
          ...memmapFiles([[0x0, 0x9ffff, 'System RAM'], ...ranges]),
          ...(Object.keys(owned).length > 0 ? nodeFiles(owned, block) : {}),
        });
        const expected = memory.flatMap((has, index) => {
          if (!has) return [];
          const below = nodes.slice(1, index + 1).findLast((nid) => nid !== undefined);
          return [[index, below ?? nodes.slice(1).find((nid) => nid !== undefined) ?? 0]];
        });
        const actual = found.map.ranges
          .slice(1)
          .flatMap(({ base, size, nid }) => Array.from({ length: size / block }, (_, at) => [base / block + at, nid]));
        expect(actual).toEqual(expected);
      }),
      { numRuns: 30 },
    );
  });
});
