import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeMsixTable, encodeMsixTable } from '#dist/drivers/msix-table.js';

const entries = fc.array(
  fc.record({
    destination: fc.integer({ min: 0, max: 255 }),
    vector: fc.integer({ min: 0x10, max: 0xfe }),
    masked: fc.boolean(),
  }),
);
const invalid = expect.objectContaining({ code: 'KHO_EINVAL' });

describe('an MSI-X table', () => {
  it('comes back as it was encoded', () => {
    fc.assert(
      fc.property(entries, (table) => {
        expect(decodeMsixTable(encodeMsixTable(table))).toEqual(table);
      }),
    );
  });

  it('has 16 bytes an entry: message address, its upper half, data, control', () => {
    const table = encodeMsixTable([{ destination: 0x12, vector: 0x41, masked: true }]);
    expect(Buffer.from(table).toString('hex')).toBe('0020e1fe000000004100000001000000');
  });

  it('is refused if it is cut off or holds an address of something else', () => {
    const table = encodeMsixTable([{ destination: 1, vector: 0x41, masked: false }]);
    expect(() => decodeMsixTable(table.subarray(0, 15))).toThrow(invalid);
    table[3] = 0x12;
    expect(() => decodeMsixTable(table)).toThrow(invalid);
  });
});
