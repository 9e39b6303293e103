import { PROFILES, type Profile } from '../abi/index.js';
import { type Column, columns } from '../report/index.js';
import type { Terminal } from './terminal.js';

const COLUMNS: readonly Column[] = ['profile', 'compatible', 'releases', 'state of drivers', 'preserved memory'].map(
  (heading) => ({ heading, align: 'left' }),
);

/** `khorus profiles`: what there is, one line a profile. */
export function printProfiles(terminal: Terminal): void {
  if (terminal.json) {
    const profiles = PROFILES.map(({ releases = null, ...profile }) => ({ ...profile, releases }));
    terminal.printJson({ profiles });
    return;
  }
  if (terminal.quiet) return;
  const rows = PROFILES.map((profile) => {
    const { name, compatible, releases, unreleased = 'never released' } = profile;
    return [name, compatible, releases ?? unreleased, stateOf(profile), preservedMemoryOf(profile)];
  });
  for (const line of columns(COLUMNS, rows)) terminal.print(line);
}

function stateOf(profile: Profile): string {
  if (profile.form === 'one-fdt') return 'one FDT, a node for each driver';
  return profile.subtrees.sized ? 'a blob for each driver, by address and size' : 'an FDT for each driver, by address';
}

function preservedMemoryOf({ preservedMemory, bitmapBits }: Profile): string {
  if (preservedMemory === 'chunk-list') return `chunks of bitmaps, ${bitmapBits} bits each`;
  return { 'radix-tree': 'a radix tree', 'mem-properties': 'properties mem of the FDT' }[preservedMemory];
}
