import { PassThrough, Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { runCommand } from '#dist/cli/command.js';

test('a reader that has gone is no error, even when that is known only after the command is over', async () => {
  let fail: () => void = () => {};
  const stdout = new Writable({
    write: (_chunk, _encoding, done) => {
      fail = () => done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    },
  });
  expect(await runCommand(['--help'], { stdout, stderr: new PassThrough() })).toBe(0);
  fail(); // an error event without a listener would be thrown, and fail this file
  await new Promise((settle) => setImmediate(settle));
  expect(stdout.errored).toMatchObject({ code: 'EPIPE' });
});
