import { KhoError } from '../errors.js';

/**
 * The `kexec-metadata` blob, since kho-v3: not an FDT but a packed structure (Linux 7.2, kexec_handover.c).
 *
 * ```text
 *   0  u32  version = 1
 *   4  char previous_release[65], NUL-terminated
 *  69  u32  kexec_count
 * ```
 */
export interface KexecMetadata {
  /** The release of the kernel that hands over; at most 64 bytes. */
  readonly previousRelease: string;
  /** How many kexecs lie behind: a cold boot hands over 1. */
  readonly kexecCount: number;
}

export const KEXEC_METADATA_NAME = 'kexec-metadata';
export const KEXEC_METADATA_VERSION = 1;
const VERSION_AT = 0;
const RELEASE_AT = 4;
const RELEASE_SIZE = 65;
const COUNT_AT = RELEASE_AT + RELEASE_SIZE;
export const KEXEC_METADATA_SIZE = COUNT_AT + 4;

/** KHO_EINVAL if the release is longer than 64 bytes. */
export function encodeKexecMetadata({ previousRelease, kexecCount }: KexecMetadata): Uint8Array {
  const release = new TextEncoder().encode(previousRelease);
  if (release.length >= RELEASE_SIZE) {
    throw new KhoError('KHO_EINVAL', `the release '${previousRelease}' is longer than ${RELEASE_SIZE - 1} bytes`);
  }
  const bytes = new Uint8Array(KEXEC_METADATA_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(VERSION_AT, KEXEC_METADATA_VERSION, true);
  bytes.set(release, RELEASE_AT);
  view.setUint32(COUNT_AT, kexecCount, true);
  return bytes;
}

/** KHO_EIMAGE if the blob is too short or of another version. */
export function decodeKexecMetadata(blob: Uint8Array): KexecMetadata {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  if (blob.length < RELEASE_AT) {
    throw new KhoError('KHO_EIMAGE', `kexec-metadata has ${blob.length} bytes, too few for a version`);
  }
  const version = view.getUint32(VERSION_AT, true);
  if (version !== KEXEC_METADATA_VERSION) {
    throw new KhoError('KHO_EIMAGE', `kexec-metadata has version ${version}, expected ${KEXEC_METADATA_VERSION}`);
  }
  if (blob.length < KEXEC_METADATA_SIZE) {
    throw new KhoError('KHO_EIMAGE', `kexec-metadata has ${blob.length} bytes, expected ${KEXEC_METADATA_SIZE}`);
  }
  const release = blob.slice(RELEASE_AT, COUNT_AT);
  const end = release.indexOf(0);
  return {
    previousRelease: new TextDecoder('latin1').decode(end < 0 ? release : release.subarray(0, end)),
    kexecCount: view.getUint32(COUNT_AT, true),
  };
}
