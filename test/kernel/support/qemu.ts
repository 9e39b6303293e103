import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MIB = 2 ** 20;
const POLL_MILLISECONDS = 200;

/** A real kernel that QEMU starts the ordinary way: firmware, `-kernel`, `-initrd`. */
export interface OrdinaryBoot {
  kernel: string;
  initrd: string;
  cmdline: string;
  /** Bytes of RAM. */
  memory: number;
  /** A file that is the RAM, as the guest leaves it. Made by QEMU. Without it RAM is anonymous. */
  ramFile?: string;
  cpus?: number;
  /** More of QEMU's arguments. */
  devices?: readonly string[];
  /** Seconds for everything. */
  timeout?: number;
  /** Seconds without a byte on the console. */
  silence?: number;
}

/** How it ended. */
export interface BootEnd {
  /** QEMU's exit status: 0 for a guest that rebooted. */
  status: number | null;
  console: string;
  seconds: number;
}

/**
 * Starts QEMU and waits for its end. An error with the end of the console when time or silence is exceeded, or when QEMU
 * itself complains. QEMU never outlives the call: it is killed then, and the kernel kills it when this process dies in any
 * way (setpriv --pdeathsig).
 *
 * The console goes to a file: on a pipe of Node's (a socket) single bytes fill the buffer after a few hundred while this
 * process is busy, and the emulated UART then drops characters.
 */
export async function bootOrdinarily(boot: OrdinaryBoot): Promise<BootEnd> {
  const { timeout = 240, silence = 90 } = boot;
  const directory = mkdtempSync(join(tmpdir(), 'khorus-qemu-'));
  const consoleFile = join(directory, 'console');
  const started = performance.now();
  const qemu = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...argumentsOf(boot, consoleFile)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let complaint = '';
  qemu.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  let size = 0;
  let lastOutput = started;
  const watch = setInterval(() => {
    const now = performance.now();
    const newSize = statSync(consoleFile, { throwIfNoEntry: false })?.size ?? 0;
    if (newSize !== size) lastOutput = now;
    size = newSize;
    const why =
      now - started > timeout * 1000
        ? `no end after ${timeout} s`
        : now - lastOutput > silence * 1000
          ? `silent for ${silence} s`
          : undefined;
    if (why !== undefined && qemu.kill('SIGKILL')) complaint += why;
  }, POLL_MILLISECONDS);
  try {
    const [status] = (await once(qemu, 'close')) as [number | null];
    const output = size === 0 && status !== 0 ? '' : readFileSync(consoleFile, 'latin1').replaceAll('\r', '');
    if (complaint !== '') throw new Error(`QEMU: ${complaint.trim()}; the console ends with:\n${output.slice(-3000)}`);
    return { status, console: output, seconds: (performance.now() - started) / 1000 };
  } finally {
    clearInterval(watch);
    qemu.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}

function argumentsOf(boot: OrdinaryBoot, consoleFile: string): string[] {
  const backend =
    boot.ramFile === undefined
      ? `memory-backend-ram,id=ram,size=${boot.memory}`
      : `memory-backend-file,id=ram,size=${boot.memory},mem-path=${boot.ramFile},share=on`;
  return [
    ...['-M', 'pc,memory-backend=ram', '-object', backend, '-m', `${boot.memory / MIB}M`],
    ...['-cpu', 'max', '-smp', `${boot.cpus ?? 1}`, '-no-reboot'],
    ...['-display', 'none', '-nodefaults', '-serial', `file:${consoleFile}`],
    ...['-kernel', boot.kernel, '-initrd', boot.initrd, '-append', boot.cmdline],
    ...(boot.devices ?? []),
  ];
}
