import fc from 'fast-check';
import { KhoError } from 'khorus';
import { describe, expect, test } from 'vitest';
import { parseBzImage } from '#dist/arch/x86_64/bz-image.js';
import { type FakeBzImage, fakeBzImage } from '../support/fake-bz-image.js';

const refusal = (bytes: Uint8Array): string => {
  try {
    parseBzImage(bytes, 'bzImage');
  } catch (error) {
    if (!(error instanceof KhoError)) throw error;
    expect(error).toMatchObject({ code: 'KHO_EINVAL', details: { file: 'bzImage' } });
    return error.message;
  }
  return 'it was taken';
};

describe('parseBzImage', () => {
  test('reads what a loader needs', () => {
    const bytes = fakeBzImage();
    const image = parseBzImage(bytes, 'bzImage');
    expect(image).toMatchObject({
      memorySize: 3 * 2 ** 20,
      alignment: 2 ** 21,
      minimumAddress: 2 ** 24,
      commandLineSize: 2047,
      version: '7.2.0-fake (nobody@nowhere)',
    });
    expect(Buffer.from(image.kernel).equals(Buffer.from(bytes.subarray(5 * 512)))).toBe(true);
    expect(image.setupHeader.length).toBe(0x202 + 0x6a - 0x1f1);
    expect(Buffer.from(image.setupHeader.subarray(0x11, 0x15)).toString()).toBe('HdrS');
  });

  test('takes no setup sectors for 4, a low preferred address for 1 MiB, a small init_size for the size of the kernel', () => {
    const image = parseBzImage(
      fakeBzImage({ setupSects: 0, preferred: 0x10000n, initSize: 16, kernelSize: 8208, text: '' }),
      'bzImage',
    );
    expect(image.kernel.length).toBe(8208);
    expect(image.minimumAddress).toBe(2 ** 20);
    expect(image.memorySize).toBe(3 * 4096);
    expect(image.version).toBe('');
  });

  const refused: [string, FakeBzImage, RegExp][] = [
    ['without a boot flag', { bootFlag: 0 }, /not a bzImage/],
    ['without HdrS', { header: 'HdrX' }, /not a bzImage/],
    ['of protocol 2.11', { version: 0x20b }, /boot protocol 2\.11; a 64-bit entry needs 2\.12/],
    ['that is a zImage', { loadflags: 0 }, /a zImage/],
    ['of 32 bits', { xloadflags: 2 }, /no 64-bit entry/],
    ['that cannot be moved', { xloadflags: 1 }, /CONFIG_RELOCATABLE/],
    ['with an alignment of 3', { alignment: 3 }, /kernel_alignment is 3/],
    ['with no kernel', { kernelSize: 0 }, /cut short/],
    ['preferring an address beyond all', { preferred: 2n ** 63n }, /no address/],
  ];
  test.each(refused)('refuses one %s', (_what, fields, message) => {
    expect(refusal(fakeBzImage(fields))).toMatch(message);
  });

  test('says what else a file is', () => {
    const file = (...start: number[]): Uint8Array => Uint8Array.of(...start, ...new Uint8Array(2048));
    expect(refusal(file(0x7f, 0x45, 0x4c, 0x46))).toMatch(/an ELF file \(a vmlinux\?\)/);
    expect(refusal(file(0x1f, 0x8b))).toMatch(/gzip/);
    expect(refusal(new TextEncoder().encode('070701'.padEnd(2000, '0')))).toMatch(/cpio/);
    const arm64 = file();
    arm64.set(new TextEncoder().encode('ARM\x64'), 0x38);
    expect(refusal(arm64)).toMatch(/arm64 Image/);
    expect(refusal(new Uint8Array())).toMatch(/0 bytes are too few/);
  });

  test('refuses one that is cut short anywhere, and never fails otherwise', () => {
    const whole = fakeBzImage({ kernelSize: 1024 });
    for (let length = 0; length < whole.length; length++) {
      expect(refusal(whole.subarray(0, length))).toMatch(length < 0x264 ? /not a bzImage/ : /cut short/);
    }
    expect(refusal(whole)).toBe('it was taken');
  });

  test('takes or refuses any header, and nothing else happens', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0x80, maxLength: 0x80 }), (noise) => {
        const bytes = fakeBzImage({ kernelSize: 64 });
        for (const [index, byte] of noise.entries()) {
          const at = 0x1f1 + index;
          const isMagic = (at >= 0x1fe && at < 0x200) || (at >= 0x202 && at < 0x208);
          if (!isMagic) bytes[at] = byte;
        }
        refusal(bytes);
      }),
    );
  });
});
