/** Fields of the setup header by offset, as Documentation/arch/x86/boot.rst gives them. */
export interface FakeBzImage {
  readonly setupSects?: number;
  readonly bootFlag?: number;
  readonly header?: string;
  readonly version?: number;
  readonly loadflags?: number;
  readonly xloadflags?: number;
  readonly alignment?: number;
  readonly preferred?: bigint;
  readonly initSize?: number;
  readonly commandLineSize?: number;
  /** Bytes of the protected-mode kernel, a multiple of 16. */
  readonly kernelSize?: number;
  readonly text?: string;
}

/** A file with the header of a bzImage and a kernel that is no code: for everything that does not boot. */
export function fakeBzImage(fields: FakeBzImage = {}): Uint8Array {
  const {
    setupSects = 4,
    bootFlag = 0xaa55,
    header = 'HdrS',
    version = 0x20f,
    loadflags = 1,
    xloadflags = 0x63,
    alignment = 2 ** 21,
    preferred = 2n ** 24n,
    initSize = 3 * 2 ** 20,
    commandLineSize = 2047,
    kernelSize = 2 ** 16,
    text = '7.2.0-fake (nobody@nowhere)',
  } = fields;
  const start = ((setupSects || 4) + 1) * 512;
  const bytes = Buffer.alloc(start + kernelSize);
  for (let at = start; at < bytes.length; at++) bytes[at] = (at * 7) & 0xff;
  bytes.writeUInt8(setupSects, 0x1f1);
  bytes.writeUInt32LE(kernelSize / 16, 0x1f4);
  bytes.writeUInt16LE(bootFlag, 0x1fe);
  bytes.writeUInt8(0x6a, 0x201);
  bytes.write(header, 0x202, 'latin1');
  bytes.writeUInt16LE(version, 0x206);
  bytes.writeUInt16LE(0x300, 0x20e);
  bytes.writeUInt8(loadflags, 0x211);
  bytes.writeUInt32LE(alignment, 0x230);
  bytes.writeUInt16LE(xloadflags, 0x236);
  bytes.writeUInt32LE(commandLineSize, 0x238);
  bytes.writeBigUInt64LE(preferred, 0x258);
  bytes.writeUInt32LE(initSize, 0x260);
  bytes.write(`${text}\0`, 0x500, 'latin1');
  return new Uint8Array(bytes);
}
