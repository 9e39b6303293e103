import { KhoError } from '../errors.js';
import type { Architecture } from './architecture.js';
import { X86_64 } from './x86_64/x86-64.js';

const ARCHITECTURES: readonly Architecture[] = [X86_64];

/** The architecture of that name. KHO_EINVAL lists those there are. */
export function architectureNamed(name: string): Architecture {
  const architecture = ARCHITECTURES.find((candidate) => candidate.name === name);
  if (architecture === undefined) {
    const names = ARCHITECTURES.map((candidate) => candidate.name).join(', ');
    throw new KhoError('KHO_EINVAL', `there is no architecture '${name}'; there are: ${names}`, { field: 'arch' });
  }
  return architecture;
}
