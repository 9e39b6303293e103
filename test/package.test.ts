import { execFile } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { publint } from 'publint';
import { expect, test } from 'vitest';
import { ROOT, SMALL_SCENARIO, temporaryDirectory } from './support/run.js';

const run = promisify(execFile);

test('publint finds nothing wrong with the package', async () => {
  const { messages } = await publint({ pkgDir: ROOT, strict: true });
  expect(messages).toEqual([]);
});

test('the lock names no download addresses', () => {
  expect(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).not.toContain('"resolved"');
});

test('packed and installed into an empty directory, the command, the library and user drivers work', async () => {
  const directory = temporaryDirectory();
  const { stdout: packed } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory], {
    cwd: ROOT,
  });
  const [{ filename, files }] = JSON.parse(packed);
  const names = files.map(({ path }: { path: string }) => path);
  expect(names).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'scenarios/host.yaml', 'dist/index.d.ts']));
  expect(names.filter((name: string) => /^(test|bench|node_modules)\//.test(name))).toEqual([]);

  writeFileSync(join(directory, 'package.json'), '{"name":"embedder","version":"1.0.0","type":"module"}');
  await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', join(directory, filename)], {
    cwd: directory,
  });
  expect(existsSync(join(directory, 'node_modules/tsx'))).toBe(false);
  const command = join(directory, 'node_modules/.bin/khorus');

  writeFileSync(join(directory, 'small.yaml'), SMALL_SCENARIO);
  const { stdout } = await run(command, ['run', 'small.yaml', '--json'], { cwd: directory });
  expect(JSON.parse(stdout)).toMatchObject({
    schemaVersion: 1,
    outcome: 'handed-over',
    drivers: { total: 6, restored: 6 },
  });

  writeFileSync(
    join(directory, 'use.js'),
    `import { KhoError, runHandover } from 'khorus';
     import { defineDriver } from 'khorus/driver';
     import { readLuo } from 'khorus/abi';
     import { FdtReader } from 'khorus/fdt';
     console.log([KhoError, runHandover, defineDriver, readLuo, FdtReader].map((value) => typeof value).join());`,
  );
  expect((await run(process.execPath, ['use.js'], { cwd: directory })).stdout).toBe(
    'function,function,function,function,function\n',
  );

  // TypeScript where nothing can load it: Node 22.18 and later can by itself.
  if (!('typescript' in process.features && process.features.typescript)) {
    writeFileSync(join(directory, 'd.ts'), 'export default 1;');
    writeFileSync(
      join(directory, 'ts.yaml'),
      'host: { memory: 512M, cmdline: "kho=on kho_scratch=16M,32M,16M" }\ndrivers: [{ use: ./d.ts }]',
    );
    const failed = await run(command, ['run', 'ts.yaml'], { cwd: directory }).catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: 2, stderr: expect.stringMatching(/\.\/d\.ts is TypeScript.*install 'tsx'/) });
  }
}, 180_000);
