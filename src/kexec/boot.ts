import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkLoadable, profileNamed } from '../abi/index.js';
import type { BootRecord } from '../arch/index.js';
import { architectureNamed } from '../arch/index.js';
import {
  imageSizeOf,
  type KexecPlan,
  type KexecRecord,
  kexecRecord,
  type RunRecord,
  readRecord,
  type Timeline,
} from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { ImageMemory, type PhysicalAddress, writeImage } from '../memblock/index.js';
import { type ConsoleReport, ConsoleVerdict } from './console-verdict.js';
import { expectationsOf } from './expectations.js';
import { loadIntoImage } from './load-image.js';
import { findQemu, QEMU, type QemuEnd, qemuArguments, runQemu } from './qemu.js';
import { type QemuMachine, qemuMachine } from './qemu-machine.js';

/** Names of what a machine is started from, in a directory of `run --out` or of `kexec --out`. */
export const RAM_FILE = 'ram.img';
export const ROM_FILE = 'boot.rom';
export const KEXEC_FILE = 'kexec.json';
export const KEXEC_VERSION = 1;

/** A handover with a kernel loaded, ready to be written or booted; it holds the image open. */
export interface KexecBoot extends Disposable {
  readonly kexec: KexecRecord;
  readonly commandLine: string;
  /** Steps of loading that were made now; absent if the run had loaded the kernel. */
  readonly timeline?: Timeline;
  /** Bytes of RAM that the machine is given. */
  readonly memorySize: number;
  /** The command that boots what {@link write} wrote into `directory`. */
  command(directory: string): string[];
  /** Writes `ram.img` in the layout of QEMU's machine, `boot.rom` and `kexec.json` into a directory that is there. */
  write(directory: string, signal?: AbortSignal): Promise<void>;
  /** Boots it in QEMU and judges the console. Nothing is left behind. */
  boot(options: BootOptions): Promise<BootResult>;
}

export interface BootOptions {
  /** Milliseconds that the console may be silent. */
  readonly silence: number;
  readonly signal?: AbortSignal;
  readonly onLine?: (line: string) => void;
  /** A directory that {@link KexecBoot.write} wrote; without it the files are temporary. */
  readonly directory?: string;
}

export interface BootResult extends ConsoleReport {
  readonly end: QemuEnd;
}

/**
 * Takes the image of a directory that `run --out` wrote. With `plan` a kernel is loaded into it (the file is not touched);
 * without, the run must have loaded one.
 *
 * KHO_ENOENT without an image, KHO_EINVAL without a kernel, KHO_EIMAGE without a usable handover, KHO_EOPNOTSUPP for a
 * profile that the kernels do not speak, KHO_EADDRNOTAVAIL when the kernel does not fit into scratch.
 */
export async function openKexec(directory: string, plan?: KexecPlan): Promise<KexecBoot> {
  const record = await readRecord(join(directory, 'run.json'));
  const arch = architectureNamed(record?.host.arch ?? 'x86_64');
  const memory = ImageMemory.open(join(directory, RAM_FILE));
  try {
    if (record !== undefined) memory.checkWhole(imageSizeOf(record));
    if (record !== undefined) checkLoadable(profileNamed(record.profile));
    if (plan !== undefined) {
      const loaded = await loadIntoImage(memory, arch, plan);
      if (loaded.kexec.start === undefined) throw new KhoError('KHO_EINVAL', 'no kernel was loaded');
      return new Kexec(memory, record, {
        boot: loaded.record,
        commandLine: loaded.commandLine,
        kexec: kexecRecord(plan, loaded.kexec),
        ranges: loaded.ranges,
        rom: loaded.kexec.start.rom,
        timeline: loaded.timeline,
      });
    }
    const rom = join(directory, ROM_FILE);
    if (existsSync(join(directory, KEXEC_FILE))) {
      const why = `${directory} was written by khorus kexec, for QEMU itself; give the directory of the run instead`;
      throw new KhoError('KHO_EINVAL', why, { file: directory });
    }
    if (record?.kexec === undefined || !existsSync(rom)) {
      throw new KhoError('KHO_EINVAL', `${directory} has no kernel loaded; name one with --kernel`, {
        field: 'kernel',
      });
    }
    const boot = arch.findBootRecord(memory);
    return new Kexec(memory, record, {
      boot,
      commandLine: boot.commandLine,
      kexec: record.kexec,
      ranges: boot.firmware.filter(({ usable }) => usable),
      rom: await readFile(rom),
      file: memory.file,
    });
  } catch (error) {
    memory.close();
    throw error;
  }
}

interface KexecParts {
  readonly boot: BootRecord;
  readonly commandLine: string;
  readonly kexec: KexecRecord;
  /** What of the image is written; all of it where the file already is what is to be booted. */
  readonly ranges: readonly { readonly base: PhysicalAddress; readonly size: number }[];
  readonly rom: Uint8Array;
  /** An image that can be booted as it is, if the machine's layout is flat. */
  readonly file?: string;
  readonly timeline?: Timeline;
}

class Kexec implements KexecBoot {
  readonly kexec: KexecRecord;
  readonly commandLine: string;
  readonly timeline?: Timeline;
  readonly #memory: ImageMemory;
  readonly #record: RunRecord | undefined;
  readonly #parts: KexecParts;
  readonly #machine: QemuMachine;

  constructor(memory: ImageMemory, record: RunRecord | undefined, parts: KexecParts) {
    this.#memory = memory;
    this.#record = record;
    this.#parts = parts;
    this.kexec = parts.kexec;
    this.commandLine = parts.commandLine;
    if (parts.timeline !== undefined) this.timeline = parts.timeline;
    this.#machine = qemuMachine(parts.boot.firmware);
  }

  get memorySize(): number {
    return this.#machine.size;
  }

  command(directory: string): string[] {
    const files = { memory: join(directory, RAM_FILE), rom: join(directory, ROM_FILE) };
    return [QEMU, ...qemuArguments(files, this.memorySize)];
  }

  async write(directory: string, signal?: AbortSignal): Promise<void> {
    await this.#writeMemory(join(directory, RAM_FILE), signal);
    await writeFile(join(directory, ROM_FILE), this.#parts.rom);
    const { kexec, commandLine, memorySize, timeline } = this;
    const document = { schemaVersion: KEXEC_VERSION, kexec, commandLine, memorySize, ...(timeline && { timeline }) };
    await writeFile(join(directory, KEXEC_FILE), `${JSON.stringify(document, null, 1)}\n`);
  }

  async boot({ silence, signal, onLine, directory }: BootOptions): Promise<BootResult> {
    const qemu = findQemu();
    const { boot, file } = this.#parts;
    const { expected, notes } = expectationsOf(this.#memory, boot, this.commandLine, this.#record);
    const verdict = new ConsoleVerdict(expected);
    const temporary = directory === undefined ? mkdtempSync(join(tmpdir(), 'khorus-boot-')) : undefined;
    const removeTemporary = (): void => {
      if (temporary !== undefined) rmSync(temporary, { recursive: true, force: true });
    };
    try {
      const place = directory ?? temporary ?? '';
      const asItIs = temporary !== undefined && this.#machine.flat ? file : undefined;
      const memory = asItIs ?? join(place, RAM_FILE);
      const rom = join(place, ROM_FILE);
      if (temporary !== undefined) {
        if (asItIs === undefined) await this.#writeMemory(memory, signal);
        await writeFile(rom, this.#parts.rom);
      }
      const end = await runQemu(qemu, {
        files: { memory, rom },
        memorySize: this.memorySize,
        silence,
        ...(signal && { signal }),
        onLine: (line) => {
          verdict.line(line);
          onLine?.(line);
        },
        onOpen: removeTemporary,
      });
      const report = verdict.report();
      return { ...report, notes: [...notes, ...report.notes], failures: [...report.failures, ...endFailure(end)], end };
    } finally {
      removeTemporary();
    }
  }

  [Symbol.dispose](): void {
    this.#memory.close();
  }

  async #writeMemory(path: string, signal: AbortSignal | undefined): Promise<void> {
    await writeImage(this.#memory, path, {
      ranges: this.#parts.ranges,
      layout: this.#machine,
      ...(signal && { signal }),
    });
  }
}

/** Why a boot that did not end by itself counts as failed. */
function endFailure(end: QemuEnd): string[] {
  if (end.how === 'exited') return [];
  const seconds = `${(end.after / 1000).toFixed(1)} s`;
  return [
    end.how === 'silent'
      ? `the console was silent for ${seconds}, so QEMU was ended (--timeout allows more)`
      : `the guest was still running after ${seconds}, so QEMU was ended: it should power off or reboot by itself`,
  ];
}
