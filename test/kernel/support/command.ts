import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';

const PULSE_MILLISECONDS = 20_000;

/** Why the real-kernel tests cannot run on this machine: they are skipped then, and the reason is printed. */
export class Unavailable extends Error {}

export interface CommandOptions {
  cwd?: string;
  env?: Readonly<Record<string, string>>;
  /** Gets a line of progress when a command takes long: its last line of output. */
  log: (text: string) => void;
}

/** Runs a command to its end. An error with the end of its output when it fails. It dies with this process. */
export async function command(program: string, args: readonly string[], options: CommandOptions): Promise<void> {
  const { cwd, env = {}, log } = options;
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', program, ...args], {
    ...(cwd !== undefined && { cwd }),
    env: { ...process.env, LC_ALL: 'C', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-4000);
    });
  }
  const pulse = setInterval(() => log(`… ${lastLine(output)}`), PULSE_MILLISECONDS);
  try {
    const [status] = (await once(child, 'close')) as [number | null];
    if (status !== 0) throw new Error(`${program} ${args.join(' ')} failed (${status}):\n${output}`);
  } finally {
    clearInterval(pulse);
  }
}

/** What a short command prints, or undefined if it fails or is not there. */
export function outputOf(program: string, args: readonly string[], input = ''): string | undefined {
  const { status, stdout } = spawnSync(program, args, {
    encoding: 'utf8',
    input,
    env: { ...process.env, LC_ALL: 'C' },
  });
  return status === 0 ? stdout : undefined;
}

function lastLine(output: string): string {
  return (
    output
      .trimEnd()
      .split(/[\r\n]+/)
      .at(-1) ?? ''
  );
}
