import { PROFILES, type Profile } from '../abi/index.js';
import { type Column, columns } from '../report/index.js';
import type { Terminal } from './terminal.js';

const FORMS: Record<Profile['form'], string> = {
  'sub-blobs': 'a blob for each driver, by address',
  'one-fdt': 'one FDT, a node for each driver',
};
const PRESERVED_MEMORY: Record<Profile['preservedMemory'], string> = {
  'radix-tree': 'a radix tree',
  'chunk-list': 'chunks of bitmaps',
  'mem-properties': 'properties mem of the FDT',
};

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
  const rows = PROFILES.map(({ name, compatible, releases = 'never released', form, preservedMemory }) => [
    name,
    compatible,
    releases,
    FORMS[form],
    PRESERVED_MEMORY[preservedMemory],
  ]);
  for (const line of columns(COLUMNS, rows)) terminal.print(line);
}
