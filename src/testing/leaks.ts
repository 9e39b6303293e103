import type { InstanceJournal } from './instance-journal.js';

/** What a handover left behind. Nothing is left if it is all zero and empty. */
export interface Leaks {
  /** Pages of the host that were free before the first handover and are not now; negative if more are free. */
  readonly pages: number;
  /** Instances that do not run as before, with where they are: `driver #index: frozen`. */
  readonly drivers: readonly string[];
  /** Callbacks that came out of order: `driver #index: cancelled while it was frozen`. */
  readonly breaches: readonly string[];
  /** Threads at a fault that should have been ended, and were not. */
  readonly threads: readonly number[];
}

/** A sentence for each leak; empty for none. */
export function describeLeaks({ pages, drivers, breaches, threads }: Leaks): string[] {
  return [
    ...(pages === 0 ? [] : [pages > 0 ? `${pages} pages are not free any more` : `${-pages} pages too many are free`]),
    ...drivers.map((driver) => `not back in normal: ${driver}`),
    ...breaches.map((breach) => `out of order: ${breach}`),
    ...(threads.length === 0 ? [] : [`threads that should be gone: ${threads.join(', ')}`]),
  ];
}

/** The journals that are not in normal, and those that saw a callback come out of order. */
export function leaksOf(journals: readonly { readonly name: string; readonly journal: InstanceJournal }[]) {
  return {
    drivers: journals.flatMap(({ name, journal }) => (journal.state === 'normal' ? [] : [`${name}: ${journal.state}`])),
    breaches: journals.flatMap(({ name, journal }) => journal.breaches.map((breach) => `${name}: ${breach}`)),
  };
}
