import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { after as addressAfter, type PhysicalAddress, physicalAddress } from '#dist/driver.js';
import {
  IOVA_END,
  type Mapping,
  map,
  newTable,
  SUPERPAGE_SIZE,
  translate,
  walk,
} from '#dist/drivers/iommu-page-table.js';
import { PAGE_SIZE } from '#dist/memblock/index.js';
import { SmallMemory } from './small-host.js';

function emptyTable() {
  const memory = new SmallMemory(1024);
  let used = 0;
  const allocateTable = (): PhysicalAddress => addressAfter(memory.base, used++ * PAGE_SIZE);
  const root = newTable(memory, allocateTable());
  return { memory, root, allocateTable, tables: () => used };
}

/** Few values a level, so that mappings meet in the same tables. */
const slots = fc.constantFrom(0, 1, 255, 511);
const iovas = fc
  .array(slots, { minLength: 4, maxLength: 4 })
  .map((levels) => levels.reduce<number>((sum, slot) => sum * 512 + slot, 0) * PAGE_SIZE);
const targets = fc.integer({ min: 0, max: 2 ** 31 - 1 }).map((frame) => frame * 512 * PAGE_SIZE); // up to 2^52
const mappings = fc.array(
  fc.record({ iova: iovas, address: targets, size: fc.constantFrom(PAGE_SIZE, SUPERPAGE_SIZE), write: fc.boolean() }),
  { maxLength: 40 },
);

describe('the page tables of an IOMMU', () => {
  it('translate every address as a plain list of mappings does, and walk in the order of addresses', () => {
    fc.assert(
      fc.property(mappings, fc.array(iovas), fc.nat(SUPERPAGE_SIZE - 1), (wanted, others, offset) => {
        const { memory, root, allocateTable, tables } = emptyTable();
        const oracle: Mapping[] = [];
        const find = (iova: number) => oracle.find((each) => iova >= each.iova && iova < each.iova + each.size);
        for (const { address, ...rest } of wanted) {
          const iova = rest.iova - (rest.iova % rest.size);
          const mapping = { ...rest, iova, address: physicalAddress(address) };
          const overlaps = oracle.some((each) => iova < each.iova + each.size && each.iova < iova + mapping.size);
          if (overlaps) {
            expect(() => map(memory, root, mapping, allocateTable)).toThrow(
              expect.objectContaining({ code: 'KHO_EEXIST' }),
            );
          } else {
            map(memory, root, mapping, allocateTable);
            oracle.push(mapping);
          }
        }
        for (const start of [...others, ...oracle.map(({ iova }) => iova)]) {
          const iova = Math.min(start + offset, IOVA_END - 1);
          const mapping = find(iova);
          expect(translate(memory, root, iova)).toBe(mapping && mapping.address + (iova - mapping.iova));
        }
        const visits = [...walk(memory, root)];
        const found = visits.filter((visit) => visit.kind === 'mapping').map(({ kind, ...mapping }) => mapping);
        expect(found).toEqual(oracle.sort((a, b) => a.iova - b.iova));
        const visited = visits.filter((visit) => visit.kind === 'table').map(({ address }) => address);
        expect(new Set(visited).size).toBe(visited.length);
        expect(visited).toHaveLength(tables());
      }),
      { numRuns: 150 },
    );
  });

  it('have the bits that VT-d gives them', () => {
    const { memory, root, allocateTable } = emptyTable();
    const address = physicalAddress(0xf_1234_5600_0000);
    map(memory, root, { iova: SUPERPAGE_SIZE, size: SUPERPAGE_SIZE, address, write: false }, allocateTable);
    map(memory, root, { iova: 0x3000, size: PAGE_SIZE, address, write: true }, allocateTable);
    const level3 = addressAfter(root, PAGE_SIZE);
    const level2 = addressAfter(root, 2 * PAGE_SIZE);
    const level1 = addressAfter(root, 3 * PAGE_SIZE);
    expect(memory.readU64(root)).toBe(BigInt(level3) + 3n);
    expect(memory.readU64(level3)).toBe(BigInt(level2) + 3n);
    expect(memory.readU64(addressAfter(level2, 8))).toBe(0xf_1234_5600_0081n);
    expect(memory.readU64(level2)).toBe(BigInt(level1) + 3n);
    expect(memory.readU64(addressAfter(level1, 3 * 8))).toBe(0xf_1234_5600_0003n);
  });

  it.each([
    { iova: 0x800, size: PAGE_SIZE, address: 0 },
    { iova: PAGE_SIZE, size: SUPERPAGE_SIZE, address: 0 },
    { iova: 0, size: SUPERPAGE_SIZE, address: PAGE_SIZE },
    { iova: 0, size: 8192, address: 0 },
    { iova: IOVA_END, size: PAGE_SIZE, address: 0 },
  ])('refuse the mapping %o', ({ address, ...rest }) => {
    const { memory, root, allocateTable } = emptyTable();
    const mapping = { ...rest, address: physicalAddress(address), write: true };
    expect(() => map(memory, root, mapping, allocateTable)).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
  });
});
