import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  buildConfigSpace,
  CAPABILITY_MSIX,
  CAPABILITY_PCI_EXPRESS,
  CAPABILITY_POWER_MANAGEMENT,
  capabilities,
  EXTENDED_CAPABILITY_AER,
  EXTENDED_CAPABILITY_SERIAL_NUMBER,
  extendedCapabilities,
  msixCapability,
} from '#dist/drivers/pci-config-space.js';

const identity = {
  vendor: 0x8086,
  device: 0x1889,
  subsystemVendor: 0x1028,
  subsystemDevice: 0x0abc,
  revision: 2,
  classCode: 0x020000,
  serialNumber: 0x0123_4567_89ab_cdefn,
  bar0: 0x200_8001_0000,
  vectors: 2048,
};
const invalid = expect.objectContaining({ code: 'KHO_EINVAL' });

describe('a PCI configuration space', () => {
  it('has each field where the specification puts it', () => {
    const config = buildConfigSpace(identity);
    expect(config).toHaveLength(4096);
    expect(Buffer.from(config.subarray(0, 0x18)).toString('hex')).toBe(
      '86808918' + '06041000' + '02000002' + '00000000' + '04000180' + '00020000',
    );
    expect(Buffer.from(config.subarray(0x2c, 0x30)).toString('hex')).toBe('2810bc0a');
  });

  it('lists its capabilities, each after the one before and without overlapping it', () => {
    const config = buildConfigSpace(identity);
    const found = [...capabilities(config)];
    expect(found.map(({ id }) => id)).toEqual([CAPABILITY_POWER_MANAGEMENT, CAPABILITY_PCI_EXPRESS, CAPABILITY_MSIX]);
    const [power, express, msix] = found.map(({ offset }) => offset);
    expect(express - power).toBeGreaterThanOrEqual(8);
    expect(msix - express).toBeGreaterThanOrEqual(60);
    expect(msix + 12).toBeLessThanOrEqual(256);
    expect([...extendedCapabilities(config)]).toEqual([
      { id: EXTENDED_CAPABILITY_AER, offset: 0x100 },
      { id: EXTENDED_CAPABILITY_SERIAL_NUMBER, offset: 0x148 },
    ]);
  });

  it('tells the number of MSI-X vectors, from 1 to 2048', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2048 }), (vectors) => {
        const { tableBar, tableOffset, ...rest } = msixCapability(buildConfigSpace({ ...identity, vectors }));
        expect(rest).toEqual({ vectors, enabled: true });
        expect(tableBar).toBe(0);
        expect(tableOffset + vectors * 16).toBeLessThanOrEqual(0x10000);
      }),
    );
  });

  it('has no capabilities where the status says so, and then no MSI-X', () => {
    const config = buildConfigSpace(identity);
    config[0x06] = 0;
    expect([...capabilities(config)]).toEqual([]);
    expect(() => msixCapability(config)).toThrow(invalid);
  });

  it('is refused when its list runs in a circle or into the header', () => {
    const circle = buildConfigSpace(identity);
    const [first, second] = [...capabilities(circle)];
    circle[second.offset + 1] = first.offset;
    expect(() => [...capabilities(circle)]).toThrow(invalid);
    const header = buildConfigSpace(identity);
    header[0x34] = 0x10;
    expect(() => [...capabilities(header)]).toThrow(invalid);
  });

  it('never makes the walk endless, whatever bytes it has', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), (config) => {
        config[0x06] |= 0x10;
        for (const list of [capabilities, extendedCapabilities]) {
          try {
            expect([...list(config)].length).toBeLessThanOrEqual(1024);
          } catch (error) {
            expect(error).toEqual(invalid);
          }
        }
      }),
    );
  });

  it('has 4096 bytes', () => {
    expect(() => [...capabilities(new Uint8Array(256))]).toThrow(invalid);
  });
});
