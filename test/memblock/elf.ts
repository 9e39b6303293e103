/** ELF cores written byte by byte, apart from the code under test. */
export interface TestSegment {
  readonly type?: number;
  readonly address: number | bigint;
  readonly bytes?: Uint8Array;
  /** Overrides where the bytes are said to lie. */
  readonly offset?: number | bigint;
  readonly fileSize?: number | bigint;
  readonly memorySize?: number | bigint;
}

export function elfCore(segments: readonly TestSegment[]): Buffer {
  const table = 64;
  let end = Math.ceil((table + segments.length * 56) / 4096) * 4096;
  const pieces: Buffer[] = [];
  const headers = Buffer.alloc(end);
  headers.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  headers.writeUInt16LE(4, 16);
  headers.writeUInt16LE(62, 18);
  headers.writeUInt32LE(1, 20);
  headers.writeBigUInt64LE(BigInt(table), 32);
  headers.writeUInt16LE(64, 52);
  headers.writeUInt16LE(56, 54);
  headers.writeUInt16LE(segments.length, 56);
  for (const [index, { type = 1, address, bytes = new Uint8Array(0), ...said }] of segments.entries()) {
    const at = table + index * 56;
    headers.writeUInt32LE(type, at);
    headers.writeBigUInt64LE(BigInt(said.offset ?? end), at + 8);
    headers.writeBigUInt64LE(BigInt(address), at + 24);
    headers.writeBigUInt64LE(BigInt(said.fileSize ?? bytes.length), at + 32);
    headers.writeBigUInt64LE(BigInt(said.memorySize ?? bytes.length), at + 40);
    const piece = Buffer.alloc(Math.ceil(bytes.length / 4096) * 4096);
    piece.set(bytes);
    pieces.push(piece);
    end += piece.length;
  }
  return Buffer.concat([headers, ...pieces]);
}

export function filled(size: number, byte: number): Uint8Array {
  return new Uint8Array(size).fill(byte);
}
