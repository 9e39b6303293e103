import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { BUILTIN_DRIVERS } from '../drivers/builtin.js';
import type { DriverModule } from '../workers/index.js';

/** Instances of one driver, as an entry of a scenario's `drivers`. */
export interface DriverToTest {
  /** A built-in driver by its name; else the module's path (from the working directory), its URL, or what a plan has. */
  readonly use: string | URL | DriverModule;
  /** Default 1. */
  readonly count?: number;
  readonly options?: unknown;
  /** Names of drivers that come first. */
  readonly after?: readonly string[];
  readonly priority?: number;
  /** Milliseconds that one callback may take in the blackout. */
  readonly budget?: number;
  readonly freezeEarly?: boolean;
}

/** The module that an entry names. It is not looked for: whoever loads it says so if there is none. */
export function testedModule(use: DriverToTest['use']): DriverModule {
  if (use instanceof URL) return { url: use.href, origin: use.protocol === 'data:' ? 'data:' : use.href };
  if (typeof use === 'object') return use;
  const builtIn = BUILTIN_DRIVERS.get(use);
  if (builtIn !== undefined) return { url: builtIn, origin: use };
  if (/^(file|data|node):/.test(use)) return testedModule(new URL(use));
  return { url: pathToFileURL(resolve(use)).href, origin: use };
}
