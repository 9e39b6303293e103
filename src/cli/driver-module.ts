import { readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { KhoError } from '../errors.js';
import type { DriverModule } from '../workers/run-description.js';
import { didYouMean } from './suggest.js';

/**
 * The module that a scenario's `use:` names: a built-in driver, a path (`./x.js`, `../x.js`, `/x.js`) from `directory`,
 * or a package that is installed for `directory`. It is found, not loaded: each thread does that for itself.
 *
 * KHO_EINVAL for what is neither, with the built-in driver that was probably meant; KHO_ENOENT for a path to nowhere.
 */
export function resolveDriver(use: string, directory: string, builtIn: readonly DriverModule[]): DriverModule {
  const own = builtIn.find(({ origin }) => origin === use);
  if (own !== undefined) return own;
  if (/^(\.{0,2}\/|file:)/.test(use)) {
    const file = use.startsWith('file:') ? new URL(use) : resolve(directory, use);
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) {
      throw new KhoError('KHO_ENOENT', `there is no driver module ${use} (looked for ${file})`, { file: String(file) });
    }
    return { url: file instanceof URL ? file.href : pathToFileURL(file).href, origin: use };
  }
  const file = packageEntry(use, directory);
  if (file === undefined) {
    const names = builtIn.map(({ origin }) => origin);
    const moduleLike = /\.[cm]?[jt]s$/.test(use) ? `; for a file of your own write './${use}'` : '';
    const hint =
      moduleLike ||
      didYouMean(use, names) ||
      `; built in are ${names.join(', ')}, and a module of your own is named by its path, such as ./my-driver.js`;
    throw new KhoError('KHO_EINVAL', `unknown driver '${use}'${hint}`);
  }
  return { url: pathToFileURL(file).href, origin: use };
}

/** What a package exports is looked up under these conditions, as `import` does. */
const CONDITIONS: readonly string[] = ['import', 'node', 'module-sync', 'default'];

/**
 * The file that `import 'specifier'` would load from `directory`; undefined if there is none.
 *
 * Node has no public function for it (`import.meta.resolve` knows one place only, `require.resolve` fails for packages
 * that export to `import` alone), so exports are looked up here: exact subpaths and conditions, no patterns.
 */
function packageEntry(specifier: string, directory: string): string | undefined {
  const parts = /^((?:@[^/]+\/)?[^/@.][^/]*)(\/.+)?$/.exec(specifier);
  if (parts === null) return undefined;
  const [, name, subpath = ''] = parts;
  for (let from = directory; ; from = dirname(from)) {
    const root = join(from, 'node_modules', name);
    const manifest = readManifest(join(root, 'package.json'));
    if (manifest !== undefined) {
      const target = 'exports' in manifest ? exportTarget(manifest.exports, `.${subpath}`) : undefined;
      if (target !== undefined) return join(root, target);
      try {
        return createRequire(join(directory, 'scenario.yaml')).resolve(specifier);
      } catch {
        return undefined;
      }
    }
    if (dirname(from) === from) return undefined;
  }
}

function readManifest(file: string): object | undefined {
  try {
    const manifest: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return typeof manifest === 'object' && manifest !== null ? manifest : undefined;
  } catch {
    return undefined;
  }
}

function exportTarget(exported: unknown, subpath: string): string | undefined {
  if (typeof exported === 'string') return subpath === '.' ? exported : undefined;
  if (typeof exported !== 'object' || exported === null) return undefined;
  const entries = Object.entries(exported);
  if (!entries.some(([key]) => key.startsWith('.'))) return subpath === '.' ? conditionTarget(exported) : undefined;
  const entry = entries.find(([key]) => key === subpath);
  return entry === undefined ? undefined : conditionTarget(entry[1]);
}

function conditionTarget(target: unknown): string | undefined {
  if (typeof target === 'string') return target;
  if (typeof target !== 'object' || target === null) return undefined;
  // The order of the package's conditions decides, not ours.
  for (const [condition, inner] of Object.entries(target)) {
    const found = CONDITIONS.includes(condition) ? conditionTarget(inner) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
