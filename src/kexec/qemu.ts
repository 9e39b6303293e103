import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { KhoError } from '../errors.js';
import { ConsoleFile } from './console-file.js';

/** The emulator; `KHORUS_QEMU` of the environment names another. */
export const QEMU = 'qemu-system-x86_64';
/** A line longer than this is cut: a kernel that writes rubbish must not fill memory. */
const MAX_LINE = 4096;
/** Milliseconds between two looks at the console. */
const POLL = 50;
/** All output may take at most this many times the silence that is allowed. */
const WHOLE_TO_SILENCE = 10;

/** The two files that QEMU is to open. */
export interface QemuFiles {
  /** The RAM, in the layout of the machine. QEMU maps it privately: the file does not change. */
  readonly memory: string;
  readonly rom: string;
}

export interface QemuOptions {
  readonly files: QemuFiles;
  /** Bytes of RAM. */
  readonly memorySize: number;
  /** Milliseconds that the console may be silent. The whole may take ten times as long. */
  readonly silence: number;
  readonly signal?: AbortSignal;
  /** Each line of the console, without its end. */
  readonly onLine: (line: string) => void;
  /** Called once QEMU has its files open: they may lose their names now. */
  readonly onOpen?: () => void;
}

/** How QEMU ended. */
export type QemuEnd =
  /** By itself: the guest powered off or rebooted (`-no-reboot`). */
  | { readonly how: 'exited' }
  /** Ended from here, after so many milliseconds without a line, or in all. */
  | { readonly how: 'silent' | 'overtime'; readonly after: number };

/** The arguments, as a person would type them. */
export function qemuArguments({ memory, rom }: QemuFiles, memorySize: number): string[] {
  return [
    '-M',
    'pc,memory-backend=ram',
    '-object',
    `memory-backend-file,id=ram,size=${memorySize},mem-path=${memory},share=off`,
    '-m',
    `${memorySize / 2 ** 20}M`,
    '-cpu',
    'max',
    '-bios',
    rom,
    ...['-display', 'none', '-vga', 'none', '-nic', 'none', '-monitor', 'none', '-parallel', 'none'],
    ...['-serial', 'stdio', '-no-reboot'],
  ];
}

/** KHO_ENOENT, with what to install, unless there is a QEMU. */
export function findQemu(environment: NodeJS.ProcessEnv = process.env): string {
  const command = environment.KHORUS_QEMU || QEMU;
  const { error, status } = spawnSync(command, ['--version'], { stdio: 'ignore' });
  if (error === undefined && status === 0) return command;
  throw new KhoError(
    'KHO_ENOENT',
    `${command} is not there; install QEMU for x86_64 (Debian: qemu-system-x86), or leave out --qemu`,
    { file: command },
  );
}

/**
 * Boots a machine from its memory, and watches its console until it ends: by itself, by silence, or by `signal`.
 *
 * QEMU gets both files already open and is ended in every case, also (where `setpriv` exists) when this process is killed.
 * KHO_ENOENT without a QEMU; KHO_EIO when QEMU refuses to run, with what it said; KHO_ECANCELED or the signal's own
 * KhoError when aborted.
 */
export async function runQemu(command: string, options: QemuOptions): Promise<QemuEnd> {
  const { files, memorySize, signal } = options;
  const memory = openSync(files.memory, 'r+');
  const rom = openSync(files.rom, 'r');
  using console = new ConsoleFile();
  let child: ChildProcess;
  try {
    options.onOpen?.();
    // The open files are numbers 3 and 4 of the child: no path is looked up any more.
    const passed = qemuArguments({ memory: '/proc/self/fd/3', rom: '/proc/self/fd/4' }, memorySize);
    const [program = command, ...first] = [...diesWithParent(), command];
    child = spawn(program, [...first, ...passed], { stdio: ['ignore', console.descriptor, 'pipe', memory, rom] });
  } finally {
    closeSync(memory);
    closeSync(rom);
  }
  try {
    return await watch(child, console, options);
  } catch (error) {
    if (signal?.aborted) {
      throw signal.reason instanceof KhoError ? signal.reason : new KhoError('KHO_ECANCELED', 'the boot was aborted');
    }
    throw error;
  } finally {
    child.kill('SIGKILL');
  }
}

/** Linux ends a child with its parent if it is asked to; util-linux has a command that asks. */
function diesWithParent(): string[] {
  const { error, status } = spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true'], { stdio: 'ignore' });
  return error === undefined && status === 0 ? ['setpriv', '--pdeathsig', 'KILL'] : [];
}

function watch(child: ChildProcess, console: ConsoleFile, { silence, signal, onLine }: QemuOptions): Promise<QemuEnd> {
  return new Promise((resolve, reject) => {
    let words = '';
    let line = '';
    /** Why it was ended from here. */
    let ended: QemuEnd | undefined;
    const end = (why: QemuEnd): void => {
      ended ??= why;
      child.kill('SIGKILL');
    };
    const look = (): void => {
      const text = console.read();
      if (text === '') return;
      quiet.refresh();
      const lines = (line + text).split(/\r*\n/);
      line = (lines.pop() ?? '').slice(0, MAX_LINE);
      for (const whole of lines) onLine(printable(whole));
    };
    const poll = setInterval(look, POLL);
    const started = performance.now();
    const whole = setTimeout(
      () => end({ how: 'overtime', after: performance.now() - started }),
      silence * WHOLE_TO_SILENCE,
    );
    const quiet = setTimeout(() => end({ how: 'silent', after: silence }), silence);
    const abort = (): void => {
      child.kill('SIGKILL');
    };
    const forget = (): void => {
      clearInterval(poll);
      clearTimeout(whole);
      clearTimeout(quiet);
      signal?.removeEventListener('abort', abort);
    };
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      words = (words + chunk).slice(-2000);
    });
    child.once('error', (cause) => {
      forget();
      reject(new KhoError('KHO_EIO', `QEMU did not start: ${cause.message}`, {}, { cause }));
    });
    child.once('close', (code, name) => {
      look();
      forget();
      if (line !== '') onLine(printable(line));
      if (signal?.aborted) return reject(signal.reason);
      if (ended !== undefined) return resolve(ended);
      if (code === 0) return resolve({ how: 'exited' });
      const how = name === null ? `exit code ${code}` : name;
      reject(new KhoError('KHO_EIO', `QEMU ended with ${how}: ${words.trim() || 'without a word'}`));
    });
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort);
  });
}

/** A console line without control characters: what a guest prints must not steer the terminal of whoever reads it. */
function printable(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return line.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]/g, '').slice(0, MAX_LINE);
}
