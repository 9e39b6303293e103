import { KhoError } from '../errors.js';

/**
 * A profile names one KHO ABI: which formats a handover is made of. Names follow the root's compatible string where
 * that is unique (`kho-v4` is Linux 7.2 and 7.3).
 */
export interface Profile {
  readonly name: string;
  /** `compatible` of the root FDT. */
  readonly compatible: string;
  /** Kernel releases that speak it. */
  readonly releases: string;
}

/** Linux 7.2 and 7.3: radix-tree tracker, sub-blobs by address and size (include/linux/kho/abi/kexec_handover.h). */
export const KHO_V4: Profile = { name: 'kho-v4', compatible: 'kho-v4', releases: 'Linux 7.2, 7.3' };

export const PROFILES: readonly Profile[] = [KHO_V4];

/** The profile of that name. KHO_EINVAL lists those there are. */
export function profileNamed(name: string): Profile {
  const profile = PROFILES.find((candidate) => candidate.name === name);
  if (profile === undefined) {
    const names = PROFILES.map((candidate) => candidate.name).join(', ');
    throw new KhoError('KHO_EINVAL', `there is no profile '${name}'; there are: ${names}`, { field: 'profile' });
  }
  return profile;
}
