import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative, sep } from 'node:path';
import { compileFunction } from 'node:vm';
import { build, type Plugin } from 'esbuild';
import { REPLACED_GLOBALS, type SimulatedGlobals } from './globals.js';

/** The shipped modules that are driven: the stage, and the finalizer that reads it. */
export type Shipped = typeof import('#dist/hashstage/index.js');

/** Makes an instance of shipped modules in which these stand for the language's globals. */
export type Load<Module> = (globals: SimulatedGlobals) => Module;
export type LoadShipped = Load<Shipped>;

/** A change of the text of a shipped module, to plant a bug. */
export interface Mutation {
  /** Below dist/. */
  readonly file: string;
  /** A text, or an expression with the flag g. */
  readonly find: string | RegExp;
  readonly replace: string;
  /** How many places must match; default 1. */
  readonly places?: number;
}

const require = createRequire(import.meta.url);
const STAGE = '#dist/hashstage/index.js';
const DIST = dirname(dirname(require.resolve(STAGE)));

/** {@link loadModules} of the stage. */
export function loadShipped(mutations: readonly Mutation[] = []): Promise<LoadShipped> {
  return loadModules<Shipped>([STAGE], mutations);
}

/**
 * The exports of modules of dist/, with all that they import, as a function that makes instances of them in which the language's shared memory is simulated.
 * They are joined to one file and otherwise as they are shipped, but for the mutations. A mutation that does not apply
 * as often as it says is an error: a planted bug that is not there would not be missed.
 */
export async function loadModules<Module>(
  entries: readonly string[],
  mutations: readonly Mutation[],
): Promise<Load<Module>> {
  const plant: Plugin = {
    name: 'plant',
    setup({ onLoad }) {
      onLoad({ filter: /\.js$/ }, async ({ path }) => {
        const file = relative(DIST, path).split(sep).join('/');
        return { contents: mutated(file, await readFile(path, 'utf8'), mutations), loader: 'js' };
      });
    },
  };
  const { outputFiles } = await build({
    stdin: {
      contents: entries.map((entry) => `export * from ${JSON.stringify(require.resolve(entry))};`).join('\n'),
      resolveDir: DIST,
    },
    bundle: true,
    write: false,
    format: 'cjs',
    platform: 'node',
    target: 'esnext',
    plugins: [plant],
    logLevel: 'silent',
  });
  const unmet = mutations.filter(({ file }) => !outputFiles.some(({ text }) => text.includes(`/${file}\n`)));
  if (unmet.length > 0) throw new Error(`${unmet[0]?.file} is not among the shipped modules that are driven`);
  const code = compileFunction(outputFiles[0]?.text ?? '', ['module', 'require', ...REPLACED_GLOBALS], {
    filename: join(DIST, 'shipped.js'),
  });
  return (globals) => {
    const module = { exports: {} };
    code(module, require, ...REPLACED_GLOBALS.map((name) => globals[name]));
    return module.exports as Module;
  };
}

function mutated(file: string, text: string, mutations: readonly Mutation[]): string {
  let changed = text;
  for (const { find, replace, places = 1, ...mutation } of mutations) {
    if (mutation.file !== file) continue;
    const found = typeof find === 'string' ? changed.split(find).length - 1 : [...changed.matchAll(find)].length;
    if (found !== places) {
      throw new Error(
        `the planted bug does not apply: dist/${file} has ${found} places, not ${places}, with ${find}; does the shipped code say it otherwise now?`,
      );
    }
    changed = changed.replaceAll(find, replace);
  }
  return changed;
}
