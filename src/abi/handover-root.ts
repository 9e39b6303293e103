import { KhoError } from '../errors.js';
import { FDT_HEADER_SIZE, FDT_HEADER_TOTALSIZE, FdtReader } from '../fdt/index.js';
import { hex, type PhysicalAddress } from '../memblock/index.js';
import { type KhoRoot, ROOT_FDT_SIZE, readKhoRoot } from './kho-root.js';
import { khoserBitmapBits } from './khoser-form.js';
import { isReleasedRoot, ONE_FDT_ROOM_MAX, type OneFdt, readOneFdt } from './one-fdt.js';
import {
  isOneFdtCompatible,
  KHO_V1,
  KHO_V1_6_16,
  type OneFdtProfile,
  type Profile,
  SUB_BLOBS_PROFILES,
  type SubBlobsProfile,
} from './profile.js';
import { type ReadableMemory, readUntrusted } from './structure.js';

/** What the FDT says to which a boot record leads: of either form. */
export type HandoverRoot =
  | { readonly form: 'sub-blobs'; readonly profile: SubBlobsProfile; readonly root: KhoRoot }
  | { readonly form: 'one-fdt'; readonly profile: OneFdtProfile; readonly fdt: OneFdt };

/**
 * Reads the FDT at an address, to which a boot record gives `size` bytes: a root FDT as kho_populate() checks it, or the
 * one FDT of a patch series. Which, its compatible and what is in it tell, and of kho-v1 the list of preserved memory
 * ({@link khoserBitmapBits}). With `as` it is read as a kernel does that speaks that profile alone.
 *
 * KHO_EIMAGE, or an FDT error, that says what is wrong and where; also for a compatible of which nothing is known, and for
 * another profile than `as`.
 */
export function readHandoverRoot(
  memory: ReadableMemory,
  address: PhysicalAddress,
  size: number,
  as?: Profile,
): HandoverRoot {
  try {
    const reader = FdtReader.open(readRootBytes(memory, address, size));
    const compatible = reader.root.property('compatible')?.string();
    const mayBeOne = as === undefined ? !isReleasedRoot(reader.root) : as.form === 'one-fdt';
    if (mayBeOne && isOneFdtCompatible(compatible)) {
      const fdt = readOneFdt(reader);
      if (as !== undefined && as !== fdt.profile) {
        throw new KhoError('KHO_EIMAGE', `the FDT is of profile ${fdt.profile.name}, expected ${as.name}`);
      }
      return { form: 'one-fdt', profile: fdt.profile, fdt };
    }
    if (as?.form === 'one-fdt') {
      const text = `the FDT is '${compatible}', which is incompatible: expected ${as.compatible} of profile ${as.name}`;
      throw new KhoError('KHO_EIMAGE', text);
    }
    const root = readKhoRoot(reader.bytes, as === undefined ? SUB_BLOBS_PROFILES : [as], memory);
    if (size !== ROOT_FDT_SIZE) {
      throw new KhoError('KHO_EIMAGE', `the boot record gives it ${size} bytes, expected one page`);
    }
    const profile = as ?? releasedProfile(memory, root);
    return { form: 'sub-blobs', profile, root: { ...root, profile } };
  } catch (error) {
    const known = KhoError.from(error, 'KHO_EIMAGE');
    throw new KhoError(known.code, `root FDT at ${hex(address)}: ${known.message}`, { ...known.details, address });
  }
}

/** The profile of a root FDT whose compatible may be of two: by the list of preserved memory. */
export function releasedProfile(
  memory: ReadableMemory,
  { profile, memoryMap }: Pick<KhoRoot, 'profile' | 'memoryMap'>,
): SubBlobsProfile {
  if (profile.compatible !== KHO_V1.compatible || memoryMap === undefined) return profile;
  return khoserBitmapBits(memory, memoryMap) === KHO_V1_6_16.bitmapBits ? KHO_V1_6_16 : KHO_V1;
}

/**
 * The bytes of the FDT in a room of `size` bytes: a page as it is, of a larger room as many as the FDT has. KHO_EIMAGE
 * where there is no memory, for no room or one above 256 MiB; what the header says of itself is not judged.
 */
export function readRootBytes(memory: ReadableMemory, address: PhysicalAddress, size: number): Uint8Array {
  if (size < FDT_HEADER_SIZE || size > ONE_FDT_ROOM_MAX) {
    throw new KhoError('KHO_EIMAGE', `${size} bytes are no room for an FDT`, { address, size });
  }
  const head = readUntrusted(memory, address, Math.min(size, ROOT_FDT_SIZE), 'the root FDT');
  if (size <= ROOT_FDT_SIZE) return head;
  const said = new DataView(head.buffer, head.byteOffset).getUint32(FDT_HEADER_TOTALSIZE);
  if (said <= head.length) return head;
  return readUntrusted(memory, address, Math.min(size, said), 'the FDT');
}
