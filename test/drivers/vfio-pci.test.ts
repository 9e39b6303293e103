import { describe, expect, it } from 'vitest';
import type { Driver } from '#dist/driver.js';
import { buildConfigSpace } from '#dist/drivers/pci-config-space.js';
import vfioPci from '#dist/drivers/vfio-pci.js';
import { checkNodeName, FdtReader } from '#dist/fdt/index.js';
import { bridgeConfig, IDENTITY, msiConfig, plainConfig } from '../support/machine-files.js';
import { SmallHost } from './small-host.js';

describe('vfio-pci', () => {
  it('names 65,536 instances after PCI functions, all different and fit for a node', () => {
    const names = Array.from({ length: 65536 }, (_, index) => vfioPci.instanceName?.({ vectors: 1 }, index) ?? '');
    expect(names.slice(0, 9)).toEqual([
      ...Array.from({ length: 8 }, (_, index) => `0000-3b-00.${index}`),
      '0000-3b-01.0',
    ]);
    expect(new Set(names).size).toBe(65536);
    for (const name of names) {
      expect(name).toMatch(/^[0-9a-f]{4}-[0-9a-f]{2}-[01][0-9a-f]\.[0-7]$/);
      checkNodeName(name);
    }
  });

  const captured = (config: Uint8Array) => ({
    name: '10000:3b:00.0',
    group: 59,
    configSize: config.length,
    config: Buffer.from(config).toString('base64'),
  });

  it('hands a real function over as it was captured, with the vectors that its capabilities tell', async () => {
    const cases: [Uint8Array, vectors: number, entries: number][] = [
      [buildConfigSpace(IDENTITY), 12, 12],
      [buildConfigSpace(IDENTITY).slice(0, 256), 12, 12],
      [msiConfig(3), 8, 0],
      [plainConfig(1), 1, 0],
      [plainConfig(0, 64), 0, 0],
    ];
    for (const [config, vectors, entries] of cases) {
      const host = new SmallHost(vfioPci as Driver, captured(config));
      const before = host.snapshotDigest();
      const blob = await host.handOver();
      expect((await host.restore(blob)).digest).toBe(before);
      expect(host.instance).toBe('10000-3b-00.0');
      const node = FdtReader.open(blob, { strict: true }).root.get(host.instance);
      expect(node.property('group')?.u32('little')).toBe(59);
      expect(Buffer.from(node.property('config-space')?.value ?? []).equals(config)).toBe(true);
      expect(node.property('msix-table')?.value.length ?? 0).toBe(entries * 16);
      expect([...node.children()]).toHaveLength(vectors);
    }
  });

  it('fills zeros up that were left out at the end of a configuration space', () => {
    const config = new Uint8Array(256);
    config.set(plainConfig(1, 64));
    const whole = new SmallHost(vfioPci as Driver, captured(config));
    const cut = new SmallHost(vfioPci as Driver, {
      ...captured(config),
      config: Buffer.from(config.subarray(0, 0x3e)).toString('base64'),
    });
    expect(cut.snapshotDigest()).toBe(whole.snapshotDigest());
  });

  it('refuses in the successor what the configuration space does not tell', async () => {
    const msix = new SmallHost(vfioPci as Driver, captured(buildConfigSpace(IDENTITY)));
    const blob = await msix.handOver();
    const at = Buffer.from(blob).indexOf(Buffer.from(buildConfigSpace(IDENTITY).slice(0, 64)));
    blob[at + 0x06] = 0; // no capability list, so no MSI-X
    await expect(msix.restore(blob)).rejects.toThrow(
      /has 0 vectors \(none\), but 12 MSI-X entries and 12 vectors came/,
    );
  });

  it('refuses options that no function has', () => {
    const damaged = bridgeConfig();
    damaged[0x41] = 0x40;
    const cases: [Record<string, unknown>, RegExp][] = [
      [{ ...captured(plainConfig(1)), name: '3b:00.0' }, /expected the name of a PCI function/],
      [{ ...captured(plainConfig(1)), vectors: 4 }, /'config' says how many vectors there are/],
      [{ ...captured(plainConfig(1)), configSize: 64 }, /256 bytes are more than configSize, 64/],
      [{ ...captured(plainConfig(1)), configSize: 128 }, /expected 64, 256, 4096/],
      [{ config: 'not base64!' }, /expected bytes in base64/],
      [{ config: Buffer.from(damaged).toString('base64') }, /the capability list is damaged/],
      [{ configSize: 256 }, /needs 'config'/],
    ];
    for (const [options, pattern] of cases) expect(() => vfioPci.options?.parse(options)).toThrow(pattern);
  });
});
