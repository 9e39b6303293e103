import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { ROOT } from '../support/run.js';

test('pools and hosts that are disposed of while their threads start end without taking the process along', async () => {
  // In a process of its own: to terminate a thread that loads modules aborts all of it.
  const source = `
    import { WorkerPool } from '${ROOT}/dist/index.js';
    import { DriverHost } from '${ROOT}/dist/workers/driver-host.js';
    for (let attempt = 0; attempt < 16; attempt++) {
      const runners = [new WorkerPool({ threads: 2 }), new DriverHost('short')];
      await new Promise((resolve) => setTimeout(resolve, attempt * 20));
      if (attempt % 4 === 0) await Promise.all(runners.map((runner) => runner.restart()));
      await Promise.all(runners.map((runner) => runner[Symbol.asyncDispose]()));
    }
    console.log('ended', process.getActiveResourcesInfo().filter((kind) => kind !== 'PipeWrap').join());`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', source]);
  expect(stdout.trim()).toBe('ended');
});
