import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command, outputOf, Unavailable } from './command.js';

/**
 * Compiles the guest's init (guest/*.c) into a static program, and returns its path. {@link Unavailable} where there is no
 * compiler that can.
 */
export async function buildGuestInit(directory: string, log: (text: string) => void): Promise<string> {
  const init = join(directory, 'init');
  const guest = fileURLToPath(new URL('../guest', import.meta.url));
  const sources = readdirSync(guest).filter((name) => name.endsWith('.c'));
  if (outputOf('cc', ['-static', '-x', 'c', '-', '-o', init], 'int main(void) { return 0; }') === undefined) {
    throw new Unavailable('there is no C compiler that links static programs (gcc, libc6-dev)');
  }
  await command('cc', ['-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', init, ...sources], { cwd: guest, log });
  return init;
}
