import type { DriverModule } from '../workers/index.js';

const WRAPPER = new URL('./faulty-driver.js', import.meta.url);

/** The wrapped module of a driver's: one URL a driver, so that threads keep it over any number of handovers. */
export function faultyModule({ url, origin }: DriverModule, compatible?: string): DriverModule {
  const wrapper = new URL(WRAPPER);
  wrapper.searchParams.set('driver', url);
  if (compatible !== undefined) wrapper.searchParams.set('as', compatible);
  return { url: wrapper.href, origin };
}
