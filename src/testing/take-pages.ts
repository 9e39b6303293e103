import type { Host } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { MAX_PAGE_ORDER, type PhysicalAddress } from '../memblock/index.js';

/** Takes a host's free pages, all but so many (at least), until it is disposed of: the host has run out of memory. */
export function takePages(host: Host, left: number): Disposable {
  const taken: { base: PhysicalAddress; pages: number }[] = [];
  const free = (): number => host.pages.statistics().reduce((sum, { freePages }) => sum + freePages, 0);
  for (let order = MAX_PAGE_ORDER; order >= 0; order--) {
    try {
      while (free() - 2 ** order >= left) taken.push({ base: host.pages.allocPages(order, 0), pages: 2 ** order });
    } catch (error) {
      if (KhoError.from(error).code !== 'KHO_ENOMEM') throw error;
    }
  }
  return {
    [Symbol.dispose]() {
      for (const { base, pages } of taken.splice(0)) host.pages.free(base, pages);
    },
  };
}
