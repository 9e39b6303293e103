import { join } from 'node:path';
import type { KexecPlan } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { type BootResult, type KexecBoot, machineCommandLine, openKexec } from '../kexec/index.js';
import { hex } from '../memblock/index.js';
import { formatBytes, formatDuration, plural } from '../report/index.js';
import { checkTarget, writeDirectory } from './output-directory.js';
import { EXIT_DONE, EXIT_FAILED, type Terminal } from './terminal.js';

export interface KexecFlags {
  readonly kernel?: string;
  readonly initrd?: string;
  readonly cmdline?: string;
}

export interface KexecCommandOptions extends KexecFlags {
  readonly qemu?: boolean;
  /** Milliseconds that the console may be silent. */
  readonly timeout: number;
  readonly out?: string;
  readonly force?: boolean;
}

/** How long a console may be silent by default, in milliseconds. Software emulation is slow. */
export const DEFAULT_SILENCE = 60_000;
/** Where `kexec` writes without --out, below the run's directory. */
const DEFAULT_OUT = 'kexec';

/**
 * What to load, from a command's options. Its command line is `inherited`, or --cmdline, with what the machine needs.
 * KHO_EINVAL for --initrd or --cmdline without a kernel.
 */
export function kexecPlan({ kernel, initrd, cmdline }: KexecFlags, inherited?: string): KexecPlan | undefined {
  if (kernel === undefined) {
    const without = initrd !== undefined ? '--initrd' : cmdline !== undefined ? '--cmdline' : undefined;
    if (without === undefined) return undefined;
    throw new KhoError('KHO_EINVAL', `${without} is for a kernel; give --kernel too`, { field: 'kernel' });
  }
  const commandLine = cmdline ?? inherited;
  return {
    kernel,
    ...(initrd !== undefined && { initrd }),
    ...(commandLine !== undefined && { commandLine: machineCommandLine(commandLine) }),
  };
}

/** `khorus kexec`: loads a kernel into the image of a run; writes what boots it, or boots it and judges what it says. */
export async function kexecImage(
  directory: string,
  options: KexecCommandOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const { qemu = false, out: named, force = false, timeout } = options;
  const out = named ?? (qemu ? undefined : join(directory, DEFAULT_OUT));
  if (force && out === undefined) {
    throw new KhoError('KHO_EINVAL', '--force replaces what --out names; give --out DIR too', { field: 'force' });
  }
  if (out !== undefined) await checkTarget(out, { kind: 'kexec', force });
  using boot = await openKexec(directory, kexecPlan(options));
  if (out !== undefined)
    await writeDirectory(out, { kind: 'kexec', force, signal }, (temporary) => boot.write(temporary, signal));
  if (!terminal.json && !terminal.quiet) for (const line of loadLines(boot)) terminal.print(line);
  if (!qemu) {
    const command = boot.command(out ?? '');
    if (terminal.json) terminal.printJson({ ...documentOf(boot), out, command });
    else if (!terminal.quiet) terminal.print(`wrote ${out}; it boots with:\n${command.map(quoted).join(' ')}`);
    return EXIT_DONE;
  }
  const lines: string[] = [];
  const result = await boot.boot({
    silence: timeout,
    signal,
    ...(out !== undefined && { directory: out }),
    onLine: (line) => {
      if (terminal.json) lines.push(line);
      else if (!terminal.quiet) terminal.print(line);
    },
  });
  const arrived = result.failures.length === 0;
  if (terminal.json) {
    terminal.printJson({ ...documentOf(boot), ...(out !== undefined && { out }), arrived, ...result, console: lines });
  } else {
    for (const note of result.notes) terminal.say(`note: ${note}`);
    for (const failure of result.failures) terminal.streams.stderr.write(`khorus: ${failure}\n`);
    if (arrived && !terminal.quiet) terminal.print(arrivedLine(result));
  }
  return arrived ? EXIT_DONE : EXIT_FAILED;
}

function documentOf({ kexec, commandLine, memorySize, timeline }: KexecBoot): Record<string, unknown> {
  return { kexec: { ...kexec, commandLine }, memorySize, ...(timeline && { timeline }) };
}

/** What was loaded, where, and that none of it is blackout. */
function loadLines({ kexec, commandLine, timeline }: KexecBoot): string[] {
  const segments = kexec.segments.map(({ what, address, memorySize }) => {
    return `${what.replace(/^the /, '')} ${hex(address)} (${formatBytes(memorySize)})`;
  });
  const lines = [
    `loaded ${kexec.kernel}: Linux ${kexec.version || 'of unknown version'}`,
    `in scratch: ${segments.join(', ')}`,
    `command line: ${commandLine}`,
  ];
  if (timeline !== undefined) {
    const steps = timeline.spans.map(({ step, start, end }) => `${step} ${formatDuration(end - start)}`);
    lines.push(`loading is prepare, not blackout: ${steps.join(', ')}`);
  }
  return lines;
}

function arrivedLine({ kernel, revived, khoTest, digestsEqual }: BootResult): string {
  const parts = [
    ...(revived.length > 0 ? [`${plural(revived.length, 'reservation')} revived`] : []),
    ...(khoTest === undefined ? [] : ['kho_test restored']),
    ...(digestsEqual > 0 ? [`${plural(digestsEqual, 'digest')} equal`] : []),
  ];
  return `Linux ${kernel} took over${parts.length > 0 ? `: ${parts.join(', ')}` : ''}`;
}

/** An argument as a shell reads it back. */
function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}
