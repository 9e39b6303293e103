import { KhoError } from '../errors.js';
import type { KhoserBitmapBits } from './khoser-mem.js';

/** The names of {@link PROFILES}. */
export const PROFILE_NAMES = ['kho-v4', 'kho-v3', 'kho-v2', 'kho-v1', 'kho-v1-6.16', 'series-v4', 'series-v5'] as const;
export type ProfileName = (typeof PROFILE_NAMES)[number];

/**
 * A profile names one KHO ABI: which formats a handover is made of. Names follow the root's compatible string; where that
 * is not unique, they go on with the first release that has the form (`kho-v1-6.16`), and the patch series that were never
 * released are named by their number.
 */
export type Profile = SubBlobsProfile | OneFdtProfile;

interface ProfileBase {
  readonly name: ProfileName;
  /** `compatible` of the root FDT. Not unique: both series say "kho-v1", as Linux 6.16 to 7.0 does. */
  readonly compatible: string;
  /** Kernel releases that speak it; undefined where no release does. */
  readonly releases: string | undefined;
  /** Why no release does. */
  readonly unreleased?: string;
  /** What the FDT is called: the boot record's fields are `fdt_addr` and `fdt_size`, or `dt_addr` and `dt_size`. */
  readonly fdtName: 'fdt' | 'dt';
  /** Bits of a bitmap of the chunk list; absent where there is none. */
  readonly bitmapBits?: KhoserBitmapBits;
}

/** The root FDT is a page that points to one blob per driver. */
export interface SubBlobsProfile extends ProfileBase {
  readonly form: 'sub-blobs';
  /** What lists preserved memory: a radix tree, or khoser_mem_chunks with bitmaps. */
  readonly preservedMemory: 'radix-tree' | 'chunk-list';
  readonly subtrees: SubtreeRules;
}

/** How the root FDT points to blobs: a node each, with their names. */
export interface SubtreeRules {
  /** The property that has the blob's address. */
  readonly addressProperty: 'fdt' | 'preserved-data';
  /**
   * Whether `blob-size` stands beside it. Without, every blob must be an FDT, whose own header tells its size: there are no
   * raw blobs, and so no kexec-metadata.
   */
  readonly sized: boolean;
  /**
   * The order in which the nodes are written: libfdt's sequential writer appends, and fdt_add_subnode() inserts at the front.
   * Readers look nodes up by name, in any order. kho-v1 has both: `oldest first` up to 6.18, which is what is written here.
   */
  readonly order: 'oldest first' | 'newest first';
}

/** All drivers are nodes of the one FDT, which lies in a kexec segment of its own. */
export interface OneFdtProfile extends ProfileBase {
  readonly form: 'one-fdt';
  /** What lists preserved memory: khoser_mem_chunks with bitmaps, or properties `mem` of the FDT itself. */
  readonly preservedMemory: 'chunk-list' | 'mem-properties';
}

/** Linux 7.2 and 7.3: radix-tree tracker, sub-blobs by address and size (include/linux/kho/abi/kexec_handover.h). */
export const KHO_V4: SubBlobsProfile = {
  name: 'kho-v4',
  compatible: 'kho-v4',
  releases: 'Linux 7.2, 7.3',
  form: 'sub-blobs',
  preservedMemory: 'radix-tree',
  fdtName: 'fdt',
  subtrees: { addressProperty: 'preserved-data', sized: true, order: 'newest first' },
};

/** Linux 7.1 (d9e4142e7635): the same bytes but for the compatible. kho-v4 stands for the KHO blocks in LUO's blob. */
export const KHO_V3: SubBlobsProfile = { ...KHO_V4, name: 'kho-v3', compatible: 'kho-v3', releases: 'Linux 7.1' };

/** Between 7.0 and 7.1 (3f2ad90060f6): the radix tree came before `blob-size`. */
export const KHO_V2: SubBlobsProfile = {
  ...KHO_V4,
  name: 'kho-v2',
  compatible: 'kho-v2',
  releases: undefined,
  unreleased: 'between 7.0 and 7.1',
  subtrees: { ...KHO_V4.subtrees, sized: false },
};

/** Linux 6.17.9, and 6.18 to 7.0: the chunk list with bitmaps of a page; sub-FDTs by address (kernel/kexec_handover.c, 6.18). */
export const KHO_V1: SubBlobsProfile = {
  name: 'kho-v1',
  compatible: 'kho-v1',
  releases: 'Linux 6.17.9, 6.18 to 7.0',
  form: 'sub-blobs',
  preservedMemory: 'chunk-list',
  bitmapBits: 32768,
  fdtName: 'fdt',
  // As 6.16 to 6.18 have it, which write the root in one go. 6.19 and 7.0 add to it in place: the newest comes first there.
  subtrees: { addressProperty: 'fdt', sized: false, order: 'oldest first' },
};

/** Linux 6.16, and 6.17 up to 6.17.8: the same with bitmaps of 512 bytes (kernel/kexec_handover.c, 6.16). */
export const KHO_V1_6_16: SubBlobsProfile = {
  ...KHO_V1,
  name: 'kho-v1-6.16',
  releases: 'Linux 6.16 to 6.17.8',
  bitmapBits: 4096,
};

/** The patch series v4 of 6 February 2025 (M. Rapoport, 20250206132754.2596694-*-rppt@kernel.org). */
export const SERIES_V4: OneFdtProfile = {
  name: 'series-v4',
  compatible: 'kho-v1',
  releases: undefined,
  form: 'one-fdt',
  preservedMemory: 'mem-properties',
  fdtName: 'dt',
};

/** The patch series v5 of 20 March 2025 (C. Lyu, 20250320015551.2157511-*-changyuanl@google.com). */
export const SERIES_V5: OneFdtProfile = {
  name: 'series-v5',
  compatible: 'kho-v1',
  releases: undefined,
  form: 'one-fdt',
  preservedMemory: 'chunk-list',
  bitmapBits: 4096,
  fdtName: 'fdt',
};

/** Those in which every driver has a blob, the newest first. */
export const SUB_BLOBS_PROFILES: readonly SubBlobsProfile[] = [KHO_V4, KHO_V3, KHO_V2, KHO_V1, KHO_V1_6_16];

export const PROFILES: readonly Profile[] = [...SUB_BLOBS_PROFILES, SERIES_V4, SERIES_V5];

/** The profile of that name. KHO_EINVAL lists those there are. */
export function profileNamed(name: string): Profile {
  const profile = PROFILES.find((candidate) => candidate.name === name);
  if (profile === undefined) {
    const names = PROFILES.map((candidate) => candidate.name).join(', ');
    throw new KhoError('KHO_EINVAL', `there is no profile '${name}'; there are: ${names}`, { field: 'profile' });
  }
  return profile;
}

/** Whether a root with this compatible may be the one FDT: in a room of any size, and to be told by what is in it. */
export function isOneFdtCompatible(compatible: string | undefined): boolean {
  return PROFILES.some((profile) => profile.form === 'one-fdt' && profile.compatible === compatible);
}

/** KHO_EOPNOTSUPP unless a kernel can be loaded for a handover of this profile: those that khorus loads speak kho-v4. */
export function checkLoadable({ name, releases }: Profile): void {
  if (name === KHO_V4.name) return;
  const text =
    releases === undefined
      ? `no released kernel speaks profile ${name}: a kernel that is loaded could not take the handover over`
      : `only ${releases} speaks profile ${name}, and the kernels that can be loaded here are ${KHO_V4.releases}, ` +
        `which speak ${KHO_V4.name} alone and would refuse the handover`;
  throw new KhoError('KHO_EOPNOTSUPP', text, { field: 'kernel' });
}
