import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { ConsoleFile } from '#dist/kexec/console-file.js';

/** A child that writes each byte by itself, as an emulated UART does, while this process does not read. */
function writeBytewise(console: ConsoleFile, text: string): void {
  const program = `for (const byte of Buffer.from(${JSON.stringify(text)})) fs.writeSync(1, Buffer.of(byte))`;
  const { status } = spawnSync(process.execPath, ['-e', program], { stdio: ['ignore', console.descriptor, 'inherit'] });
  expect(status).toBe(0);
}

test('what a child writes on the console is read once, whole, in order, with characters of several bytes', () => {
  using console = new ConsoleFile();
  expect(console.read()).toBe('');
  const long = 'Revived memory reservation °\n'.repeat(3000); // more than a chunk
  writeBytewise(console, long);
  expect(console.read()).toBe(long);
  writeBytewise(console, 'more');
  expect([console.read(), console.read()]).toEqual(['more', '']);
});
