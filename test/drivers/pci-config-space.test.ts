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
  functionInterrupts,
  msixCapability,
} from '#dist/drivers/pci-config-space.js';
import { IDENTITY, msiConfig, plainConfig } from '../support/machine-files.js';

const identity = { ...IDENTITY, vectors: 2048 };
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

  it('has 64, 256 or 4096 bytes', () => {
    expect([...capabilities(new Uint8Array(256))]).toEqual([]);
    for (const size of [0, 63, 128, 4095]) expect(() => [...capabilities(new Uint8Array(size))]).toThrow(invalid);
  });

  it('tells how the function interrupts: MSI-X before MSI before its pin', () => {
    expect(functionInterrupts(buildConfigSpace(identity))).toEqual({ kind: 'msix', vectors: 2048 });
    expect(functionInterrupts(buildConfigSpace(identity).slice(0, 256))).toEqual({ kind: 'msix', vectors: 2048 });
    for (const log2 of [0, 1, 5, 7]) {
      expect(functionInterrupts(msiConfig(log2))).toEqual({ kind: 'msi', vectors: 2 ** Math.min(log2, 5) });
    }
    expect(functionInterrupts(plainConfig(1))).toEqual({ kind: 'intx', vectors: 1 });
    expect(functionInterrupts(plainConfig(0))).toEqual({ kind: 'none', vectors: 0 });
  });

  it('of the header alone shows the pin, whatever capabilities the function has', () => {
    const header = buildConfigSpace(identity).slice(0, 64);
    expect([...capabilities(header), ...extendedCapabilities(header)]).toEqual([]);
    expect(functionInterrupts(header)).toEqual({ kind: 'none', vectors: 0 });
  });

  it('is refused where its MSI-X capability would reach into the extended ones', () => {
    const config = buildConfigSpace(identity);
    config[0x34] = 0xf8;
    config[0xf8] = CAPABILITY_MSIX;
    expect(() => functionInterrupts(config)).toThrow(invalid);
  });
});
