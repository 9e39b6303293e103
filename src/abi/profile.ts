import { KhoError } from '../errors.js';

/** The names of {@link PROFILES}. */
export const PROFILE_NAMES = ['kho-v4', 'series-v4', 'series-v5'] as const;
export type ProfileName = (typeof PROFILE_NAMES)[number];

/**
 * A profile names one KHO ABI: which formats a handover is made of. Names follow the root's compatible string where
 * that is unique (`kho-v4` is Linux 7.2 and 7.3); the patch series that were never released are named by their number.
 */
export interface Profile {
  readonly name: ProfileName;
  /** `compatible` of the root FDT. Not unique: both series say "kho-v1", as Linux 6.16 to 7.0 does. */
  readonly compatible: string;
  /** Kernel releases that speak it; undefined for a patch series that was never merged. */
  readonly releases: string | undefined;
  /**
   * `sub-blobs`: the root FDT is a page that points to one blob per driver; `one-fdt`: all drivers are nodes of the one
   * FDT, which lies in a kexec segment of its own.
   */
  readonly form: 'sub-blobs' | 'one-fdt';
  /** What lists preserved memory: a radix tree, khoser_mem_chunks with bitmaps, or properties `mem` of the FDT itself. */
  readonly preservedMemory: 'radix-tree' | 'chunk-list' | 'mem-properties';
  /** What the FDT is called: the boot record's fields are `fdt_addr` and `fdt_size`, or `dt_addr` and `dt_size`. */
  readonly fdtName: 'fdt' | 'dt';
}

/** Linux 7.2 and 7.3: radix-tree tracker, sub-blobs by address and size (include/linux/kho/abi/kexec_handover.h). */
export const KHO_V4: Profile = {
  name: 'kho-v4',
  compatible: 'kho-v4',
  releases: 'Linux 7.2, 7.3',
  form: 'sub-blobs',
  preservedMemory: 'radix-tree',
  fdtName: 'fdt',
};

/** The patch series v4 of 6 February 2025 (M. Rapoport, 20250206132754.2596694-*-rppt@kernel.org). */
export const SERIES_V4: Profile = {
  name: 'series-v4',
  compatible: 'kho-v1',
  releases: undefined,
  form: 'one-fdt',
  preservedMemory: 'mem-properties',
  fdtName: 'dt',
};

/** The patch series v5 of 20 March 2025 (C. Lyu, 20250320015551.2157511-*-changyuanl@google.com). */
export const SERIES_V5: Profile = {
  name: 'series-v5',
  compatible: 'kho-v1',
  releases: undefined,
  form: 'one-fdt',
  preservedMemory: 'chunk-list',
  fdtName: 'fdt',
};

export const PROFILES: readonly Profile[] = [KHO_V4, SERIES_V4, SERIES_V5];

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

/** KHO_EOPNOTSUPP: why no kernel can be loaded for a handover of this profile. */
export function neverReleased({ name }: Profile): KhoError {
  const text = `no released kernel speaks profile ${name}: a kernel that is loaded could not take the handover over`;
  return new KhoError('KHO_EOPNOTSUPP', text, { field: 'kernel' });
}
