import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ROOT } from './support/run.js';

const run = promisify(execFile);
/** Inside the package, so that the examples can import it by its name. */
const BUILD = join(ROOT, '.examples-build');

/** TypeScript in ```ts blocks of README, docs and doc comments. */
function documentedExamples(): [string, string][] {
  const sources = readdirSync(join(ROOT, 'src'), { recursive: true }).map((file) => join('src', String(file)));
  const texts = readdirSync(join(ROOT, 'docs'), { recursive: true }).map((file) => join('docs', String(file)));
  const files = [
    'README.md',
    ...texts.filter((file) => file.endsWith('.md')),
    ...sources.filter((file) => file.endsWith('.ts')),
  ];
  return files.flatMap((file) => {
    const text = readFileSync(join(ROOT, file), 'utf8');
    const blocks = [...text.matchAll(/^( \*|\s+\*)? ?```ts\n([\s\S]*?)^( \*|\s+\*)? ?```/gm)];
    return blocks.map(([, , block = ''], index): [string, string] => [
      `${file.replaceAll(/[^a-z0-9]+/gi, '-')}-${index}`,
      block.replaceAll(/^\s+\* ?/gm, ''),
    ]);
  });
}

const documented = documentedExamples();

beforeAll(async () => {
  rmSync(BUILD, { recursive: true, force: true });
  mkdirSync(join(BUILD, 'src'), { recursive: true });
  for (const file of readdirSync(join(ROOT, 'examples'))) {
    writeFileSync(join(BUILD, 'src', file), readFileSync(join(ROOT, 'examples', file)));
  }
  for (const [name, text] of documented) writeFileSync(join(BUILD, 'src', `${name}.ts`), `${text}\nexport {};\n`);
  const config = {
    extends: '../tsconfig.json',
    compilerOptions: { noEmit: false, rootDir: 'src', outDir: 'out', noUnusedLocals: false },
    include: ['src'],
  };
  writeFileSync(join(BUILD, 'tsconfig.json'), JSON.stringify(config));
  await run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', BUILD]).catch((error: { stdout: string }) => {
    throw new Error(`the examples do not compile:\n${error.stdout}`);
  });
}, 300_000);
afterAll(() => rmSync(BUILD, { recursive: true, force: true }));

test('there are documented examples to run', () => {
  expect(documented.length).toBeGreaterThan(2);
});

test.each(documented.map(([name]) => name))('the example %s runs', async (name) => {
  await run(process.execPath, [join(BUILD, 'out', `${name}.js`)], { cwd: BUILD });
});

test('examples/embed.ts, in under 40 lines, hands over a driver of its own and reads the result', async () => {
  expect(readFileSync(join(ROOT, 'examples/embed.ts'), 'utf8').split('\n').length).toBeLessThan(40);
  const { stdout } = await run(process.execPath, [join(BUILD, 'out/embed.js')]);
  expect(stdout).toBe('restored 1 drivers, 3 instances\nfailures: 0\n');
});
