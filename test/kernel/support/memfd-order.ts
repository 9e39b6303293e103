/** A memfd that a predecessor makes: a line of the guest's file /khorus-sessions (test/kernel/guest/init.c). */
export interface MemfdOrder {
  /** Any name that the kernel takes. */
  session: string;
  token: number;
  /** Bytes. */
  size: number;
  /** Of the content, see {@link memfdContent}. */
  seed: number;
  /** File position; 0 unless said. */
  position?: number;
  /** F_SEAL_ bits; none unless said. */
  seals?: number;
  /** Byte ranges that nothing is written to, ascending. */
  holes?: readonly Hole[];
}

export interface Hole {
  start: number;
  length: number;
}

/** /khorus-sessions, for a predecessor and for its successor: a line for each memfd, those of a session together. */
export function sessionsFile(orders: readonly MemfdOrder[]): string {
  const lines = new Map<string, string>();
  for (const order of orders) {
    lines.set(order.session, (lines.get(order.session) ?? '') + line(order));
  }
  return [...lines.values()].join('');
}

function line({ session, token, size, seed, position = 0, seals = 0, holes = [] }: MemfdOrder): string {
  const attributes = [`size=${size}`, `seed=${seed}`, `pos=${position}`, `seals=${seals}`];
  const holeWords = holes.map((hole) => `hole=${hole.start}+${hole.length}`);
  return `${[encodeSessionName(session), token, ...attributes, ...holeWords].join(' ')}\n`;
}

/** A session's name as guests print it: bytes other than A–Z a–z 0–9 . _ - as %XX. */
export function encodeSessionName(name: string): string {
  return [...Buffer.from(name)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9._-]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}

/** The whole content of a memfd, as the predecessor writes it; holes are zeros. */
export function memfdContent({ size, seed, holes = [] }: MemfdOrder): Uint8Array {
  const bytes = contentOf(seed, size);
  for (const { start, length } of holes) bytes.fill(0, start, start + length);
  return bytes;
}

/** The content of a seed (test/kernel/guest/content.c): 32-bit little-endian word i is mix(seed, i). */
export function contentOf(seed: number, size: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4));
  for (let i = 0; i < words.length; i++) words[i] = mix(seed, i);
  return new Uint8Array(words.buffer, 0, size);
}

function mix(seed: number, index: number): number {
  let x = (seed + Math.imul(index, 0x9e3779b9)) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}
