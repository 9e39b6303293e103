import type { RunRecord } from '#dist/coordinator/index.js';

/** Every digest that a run recorded of contents that a guest can find: `reserve_mem NAME`, `memfd SESSION/TOKEN`. */
export function digestsOf({ host, instances }: RunRecord): Map<string, string> {
  const areas = host.reserveMem.map(({ name, sha256 }): [string, string] => [`reserve_mem ${name}`, sha256]);
  return new Map([...areas, ...instances.flatMap(({ digests = {} }) => Object.entries(digests))]);
}

/** The lines of a guest's `/khorus-sessions` for what a run handed over: a memfd each. */
export function sessionLines(record: RunRecord): string[] {
  const memfds = [...digestsOf(record).keys()].filter((name) => name.startsWith('memfd '));
  return memfds.map((name) => name.slice('memfd '.length).replace('/', ' '));
}
