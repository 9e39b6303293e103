const ENCODER = new TextEncoder();

/** Bytes of a string in UTF-8. */
export function utf8Length(text: string): number {
  return isAscii(text) ? text.length : ENCODER.encode(text).length;
}

/** Writes a string in UTF-8, without NUL; returns its bytes. */
export function putUtf8(bytes: Uint8Array, at: number, text: string): number {
  if (!isAscii(text)) {
    // Encoded apart and copied: encodeInto() need not take views on a SharedArrayBuffer (browsers do not).
    const encoded = ENCODER.encode(text);
    bytes.set(encoded, at);
    return encoded.length;
  }
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  return text.length;
}

/** The usual case, for which a loop over the characters beats the encoder. */
function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false;
  return true;
}
