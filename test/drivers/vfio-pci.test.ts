import { describe, expect, it } from 'vitest';
import vfioPci from '#dist/drivers/vfio-pci.js';
import { checkNodeName } from '#dist/fdt/index.js';

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
});
