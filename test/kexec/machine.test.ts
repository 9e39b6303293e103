import { describe, expect, test } from 'vitest';
import { X86_64 } from '#dist/arch/index.js';
import { machineCommandLine } from '#dist/kexec/index.js';
import { qemuMachine } from '#dist/kexec/qemu-machine.js';
import { physicalAddress } from '#dist/memblock/index.js';

const GIB = 2 ** 30;

describe("QEMU's machine", () => {
  test('has the RAM of the firmware map, flat up to 3.5 GiB', () => {
    for (const size of [GIB / 4, GIB, 3 * GIB, 3.5 * GIB - 2 ** 21]) {
      const machine = qemuMachine(X86_64.firmwareMap(size));
      expect([machine.size, machine.flat]).toEqual([size, true]);
      expect(machine.offsetOf(physicalAddress(0x12345000))).toBe(0x12345000);
    }
  });

  test('above that, its file leaves the hole below 4 GiB out', () => {
    for (const size of [3.5 * GIB, 4 * GIB, 8 * GIB]) {
      const machine = qemuMachine(X86_64.firmwareMap(size));
      expect([machine.size, machine.flat]).toEqual([size, false]);
      expect(machine.offsetOf(physicalAddress(3 * GIB - 4096))).toBe(3 * GIB - 4096);
      expect(machine.offsetOf(physicalAddress(4 * GIB))).toBe(3 * GIB);
      expect(machine.offsetOf(physicalAddress(4 * GIB + 4096))).toBe(3 * GIB + 4096);
    }
  });

  const usable = (base: number, end: number) => ({ base: physicalAddress(base), size: end - base, usable: true });

  test('has whole MiB: RAM that ends elsewhere is not flat, so that the image is copied', () => {
    expect(qemuMachine([usable(0, 0x3fff1000)])).toMatchObject({ size: GIB, flat: false });
  });

  test('is refused for RAM whose hole below 4 GiB is not that of a pc', () => {
    const maps = [
      [usable(0, 2 * GIB), usable(4 * GIB, 6 * GIB)],
      [usable(0, GIB), usable(4 * GIB, 5 * GIB)],
      [usable(0, 3.75 * GIB)],
      [usable(0, 8 * GIB)],
    ];
    for (const map of maps) {
      expect(() => qemuMachine(map)).toThrow(
        expect.objectContaining({
          code: 'KHO_EOPNOTSUPP',
          message: expect.stringMatching(/pc machine cannot have it/),
        }),
      );
    }
    expect(qemuMachine([usable(0, 2 * GIB), usable(2.5 * GIB, 3 * GIB), usable(5 * GIB, 6 * GIB)]).size).toBe(5 * GIB);
  });
});

describe('the command line that a machine needs', () => {
  test('is added to what is there', () => {
    expect(machineCommandLine('kho=on ')).toBe('kho=on console=ttyS0 acpi=off reboot=k panic=-1');
    expect(machineCommandLine('')).toBe('console=ttyS0 acpi=off reboot=k panic=-1');
  });

  test('but nothing that is set already', () => {
    expect(machineCommandLine('panic=5 console=ttyS1 quiet')).toBe('panic=5 console=ttyS1 quiet acpi=off reboot=k');
    const whole = machineCommandLine('x');
    expect(machineCommandLine(whole)).toBe(whole);
  });
});
