import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import {
  KHO_VMALLOC_ALLOC,
  KHO_VMALLOC_HUGE_VMAP,
  preserveKhoVmalloc,
  readKhoVmalloc,
  unpreserveKhoVmalloc,
} from '#dist/abi/index.js';
import {
  type PhysicalAddress,
  PreservedPages,
  physicalAddress,
  RadixTree,
  radixFolios,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';

const PAGE = 4096;
const page = (number: number): PhysicalAddress => physicalAddress(number * PAGE);
/** Tables below, then chunks, then pieces. */
const [CHUNKS, PIECES, END] = [1024, 1100, 4096];

function newHost(chunksLeft = 100, tablesLeft = 1000) {
  const memory = SharedPhysicalMemory.create([{ base: page(0), size: END * PAGE, nid: 0, backed: true }]);
  let table = 0;
  const tree = RadixTree.create(memory, () => {
    if (table >= tablesLeft) throw new KhoError('KHO_ENOMEM', 'no more tables');
    return page(table++);
  });
  const preserved = new PreservedPages(tree, memory, [{ kind: 'global', address: page(4000), size: 96 * PAGE }]);
  const free: PhysicalAddress[] = Array.from({ length: chunksLeft }, (_, index) => page(CHUNKS + index)).reverse();
  for (const chunk of free) memory.fill(chunk, PAGE, 0xff); // pages come dirty
  const source = {
    allocate: () => {
      const chunk = free.pop();
      if (chunk === undefined) throw new KhoError('KHO_ENOMEM', 'no more chunks');
      return chunk;
    },
    free: (chunk: PhysicalAddress) => {
      free.push(chunk);
    },
  };
  const marks = () => [...radixFolios(memory, tree.root)].map(({ address, order }) => [address / PAGE, order]);
  return { memory, preserved, source, free, marks };
}

const piecesOf = (count: number, order: number) =>
  Array.from({ length: count }, (_, index) => page(PIECES - (PIECES % 2 ** order) + (index + 1) * 2 ** order));

test.each([
  [3, 0, KHO_VMALLOC_ALLOC, 1],
  [510, 0, KHO_VMALLOC_ALLOC, 1],
  [511, 0, KHO_VMALLOC_ALLOC | KHO_VMALLOC_HUGE_VMAP, 2],
  [1022, 1, 0, 3],
  [2, 9, KHO_VMALLOC_ALLOC | KHO_VMALLOC_HUGE_VMAP, 1],
])('%i pieces of order %i are preserved with their chunks, and taken back', (count, order, flags, chunks) => {
  const { memory, preserved, source, free, marks } = newHost();
  const pieces = piecesOf(count, order);
  const descriptor = preserveKhoVmalloc(preserved, memory, { pieces, order, flags }, source);
  expect(descriptor).toEqual({ first: page(CHUNKS), totalPages: count * 2 ** order, flags, order });
  const area = readKhoVmalloc(memory, descriptor, 'the area');
  expect(area).toEqual({ chunks: Array.from({ length: chunks }, (_, i) => page(CHUNKS + i)), pieces, order });
  const expected = [...area.chunks.map((address) => [address / PAGE, 0]), ...pieces.map((p) => [p / PAGE, order])];
  expect(marks().sort()).toEqual(expected.sort());
  unpreserveKhoVmalloc(preserved, memory, descriptor, source);
  expect(marks()).toEqual([]);
  expect(free).toHaveLength(100);
});

test('what cannot be described, or preserved, has a code of its own, and nothing of it stays', () => {
  const pieces = piecesOf(3, 2);
  const area = { pieces, order: 2, flags: KHO_VMALLOC_ALLOC };
  const wrong: [string, object][] = [
    ['KHO_EOPNOTSUPP', { ...area, flags: 4 }],
    ['KHO_EINVAL', { ...area, order: 11 }],
    ['KHO_EINVAL', { ...area, order: -1 }],
    ['KHO_EINVAL', { ...area, pieces: [] }],
    ['KHO_EINVAL', { ...area, pieces: [...pieces, page(PIECES + 1)] }],
    ['KHO_EINVAL', { ...area, pieces: [...pieces, page(4000)] }], // scratch
    ['KHO_EEXIST', { ...area, pieces: [...pieces, pieces[0]] }],
    ['KHO_EFAULT', { ...area, pieces: [...pieces, page(END)] }],
  ];
  for (const [code, bad] of wrong) {
    const { memory, preserved, source, free, marks } = newHost();
    expect(thrown(() => preserveKhoVmalloc(preserved, memory, bad as typeof area, source)).code).toBe(code);
    expect([marks(), free.length]).toEqual([[], 100]);
  }
});

test('when chunks or tables run out all is taken back, at the order of the pieces', () => {
  for (const chunks of [0, 1]) {
    const { memory, preserved, source, free, marks } = newHost(chunks);
    const area = { pieces: piecesOf(511, 1), order: 1, flags: 0 };
    expect(thrown(() => preserveKhoVmalloc(preserved, memory, area, source)).code).toBe('KHO_ENOMEM');
    expect([marks(), free.length]).toEqual([[], chunks]);
  }
  for (let tables = 1; tables < 9; tables++) {
    const { memory, preserved, source, free, marks } = newHost(5, tables);
    const area = { pieces: piecesOf(3, 3), order: 3, flags: 0 };
    expect(thrown(() => preserveKhoVmalloc(preserved, memory, area, source)).code).toBe('KHO_ENOMEM');
    expect([marks(), free.length]).toEqual([[], 5]);
  }
});

test('an area of which one piece is not preserved is not taken back at all', () => {
  const { memory, preserved, source, free, marks } = newHost();
  const pieces = piecesOf(4, 2);
  const descriptor = preserveKhoVmalloc(preserved, memory, { pieces, order: 2, flags: 0 }, source);
  preserved.unpreservePages(pieces[2], 4);
  const before = marks();
  expect(thrown(() => unpreserveKhoVmalloc(preserved, memory, descriptor, source))).toMatchObject({
    code: 'KHO_ENOENT',
    details: { address: pieces[2] },
  });
  expect(marks()).toEqual(before);
  memory.writeU64(physicalAddress(page(CHUNKS) + 8), 1); // a piece that is no page
  expect(thrown(() => unpreserveKhoVmalloc(preserved, memory, descriptor, source)).code).toBe('KHO_EIMAGE');
  expect([marks(), free.length]).toEqual([before, 99]);
});
