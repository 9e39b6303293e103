import { fileURLToPath } from 'node:url';
import { KhoError } from '../errors.js';
import { assertDriver, type Driver } from './driver.js';
import type { DriverModule } from './run-description.js';

const loaded = new Map<string, Promise<Driver>>();
let typescriptLoader: Promise<boolean> | undefined;

/**
 * Imports a driver's module and checks its default export. Each thread and process does so for itself, once a module.
 *
 * JavaScript modules are loaded by Node. TypeScript is loaded by Node where it can (22.18 and later), else through the
 * optional peer `tsx`. KHO_ENOENT if there is no such module; KHO_EINVAL if it cannot be loaded or holds no driver.
 */
export function loadDriver(module: DriverModule): Promise<Driver> {
  let driver = loaded.get(module.url);
  if (driver === undefined) {
    driver = importDriver(module);
    loaded.set(module.url, driver);
    driver.catch(() => loaded.delete(module.url));
  }
  return driver;
}

async function importDriver({ url, origin }: DriverModule): Promise<Driver> {
  const file = url.startsWith('file:') ? fileURLToPath(url) : url;
  if (/\.[cm]?ts$/.test(file) && !(await canLoadTypeScript())) {
    throw new KhoError(
      'KHO_EINVAL',
      `${origin} is TypeScript, which Node ${process.version} cannot load: install 'tsx' beside khorus, or compile the module to JavaScript`,
      { file },
    );
  }
  let namespace: { default?: unknown };
  try {
    namespace = await import(url);
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND';
    const reason = error instanceof Error ? error.message : String(error);
    throw new KhoError(
      missing ? 'KHO_ENOENT' : 'KHO_EINVAL',
      missing && reason.includes(file)
        ? `there is no driver module ${origin}`
        : `the driver module ${origin} cannot be loaded: ${reason}`,
      { file },
      { cause: error },
    );
  }
  if (namespace.default === undefined) {
    throw new KhoError('KHO_EINVAL', `${origin} has no default export; expected 'export default defineDriver({ … })'`, {
      file,
    });
  }
  assertDriver(namespace.default, origin);
  return namespace.default;
}

/** Makes `import()` of TypeScript work in this thread, if Node or tsx can. */
function canLoadTypeScript(): Promise<boolean> {
  if ('typescript' in process.features && process.features.typescript) return Promise.resolve(true);
  typescriptLoader ??= (async () => {
    try {
      const specifier = 'tsx/esm/api'; // an optional peer: not to be resolved when this file is compiled
      const { register } = (await import(specifier)) as { register: () => unknown };
      register();
      return true;
    } catch {
      return false;
    }
  })();
  return typescriptLoader;
}
