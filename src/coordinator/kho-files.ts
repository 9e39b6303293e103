import { KhoError } from '../errors.js';
import { hex, kstrtobool } from '../memblock/index.js';
import { Coordinator } from './coordinator.js';
import type { CoordinatorOptions } from './coordinator-options.js';
import type { Handover } from './handover.js';
import { Host } from './host.js';
import type { DriverRegistration, HostOptions } from './plan.js';

/** kstrtoull() with base 0: decimal, 0x…, or octal after a 0; a plus may precede it and one newline follow. */
function kstrtoull(text: string): number | undefined {
  const [, digits] = /^\+?(0x[0-9a-f]+|[0-9]+)\n?$/i.exec(text) ?? [];
  if (digits === undefined) return undefined;
  if (/^0[0-9]+$/.test(digits)) return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
  const value = Number(digits);
  return Number.isSafeInteger(value) ? value : undefined;
}

const notWritable = (file: string): KhoError =>
  new KhoError('KHO_EPERM', `the file ${file} cannot be written, or is not there`, { file });

const invalid = (file: string, text: string): KhoError =>
  new KhoError('KHO_EINVAL', `${JSON.stringify(text)} cannot be written to ${file}`, { file });

/** Boots a host; a machine without KHO, or without scratch, runs on, and its files say so. */
function bootFiles(
  profile: 'series-v4' | 'series-v5',
  host: HostOptions,
  options: Omit<CoordinatorOptions, 'profile'>,
  drivers: readonly DriverRegistration[],
): Coordinator | KhoError {
  try {
    const coordinator = new Coordinator(new Host(host), { ...options, profile });
    for (const driver of drivers) coordinator.register(driver);
    return coordinator;
  } catch (thrown) {
    const error = KhoError.from(thrown);
    if (error.code === 'KHO_EOPNOTSUPP' || error.code === 'KHO_ENOMEM') return error;
    throw error;
  }
}

/** What the series calls the file that makes the FDT, that of its room, and the FDT itself. */
interface FileNames {
  readonly made: string;
  readonly room: string;
  readonly fdt: string;
}

/** What both directories have. A file is written by one writer at a time; the next one waits, as at the kernel's mutex. */
abstract class KhoFiles implements AsyncDisposable {
  readonly #booted: Coordinator | KhoError;
  readonly #names: FileNames;
  #lock: Promise<unknown> = Promise.resolve();
  #handover: Handover | undefined;

  protected constructor(booted: Coordinator | KhoError, names: FileNames) {
    this.#booted = booted;
    this.#names = names;
  }

  /** KHO_EOPNOTSUPP where KHO is off, KHO_ENOMEM where there is no scratch. */
  get coordinator(): Coordinator {
    if (this.#booted instanceof KhoError) throw this.#booted;
    return this.#booted;
  }

  /** kexec(): hands over what was made. Until that is disposed of, the files cannot be written (KHO_EBUSY). */
  async jump(): Promise<Handover> {
    this.#handover = await this.exclusive(() => this.coordinator.jump());
    return this.#handover;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!(this.#booted instanceof KhoError)) await this.#booted[Symbol.asyncDispose]();
  }

  /** Whether there is a finished FDT. */
  protected get isMade(): boolean {
    return !(this.#booted instanceof KhoError) && ['finalized', 'handed over'].includes(this.#booted.state);
  }

  protected exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lock.then(work);
    this.#lock = turn.catch(() => {});
    return turn;
  }

  /** Prepares, and makes the FDT: all drivers' callbacks, up to where only the jump is missing. */
  protected async make(): Promise<void> {
    const { coordinator } = this;
    await coordinator.prepare();
    await coordinator.freeze();
    await coordinator.serialize();
    await coordinator.finalize();
  }

  protected checkNotJumped(file: string): void {
    if (this.#handover?.released !== false) return;
    throw new KhoError('KHO_EBUSY', `${file} cannot be written: the next kernel was entered`, { file });
  }

  protected async readFile(file: string): Promise<string | Uint8Array> {
    return await this.exclusive(async () => {
      const { made, room, fdt } = this.#names;
      if (file === made) return this.isMade ? '1\n' : '0\n';
      if (file === room) return `${hex(this.coordinator.fdtMax)}\n`;
      if (file === 'scratch_phys') return this.#scratch('address');
      if (file === 'scratch_len') return this.#scratch('size');
      if (file === fdt && this.isMade) return this.coordinator.fdt();
      throw new KhoError('KHO_ENOENT', `there is no file ${file}`, { file });
    });
  }

  /** Writes the room; another file's truth value goes to `make`. */
  protected async writeFile(file: string, text: string, make: (wanted: boolean) => Promise<void>): Promise<void> {
    await this.exclusive(async () => {
      const { made, room } = this.#names;
      if (file !== made && file !== room) throw notWritable(file);
      const value = file === room ? kstrtoull(text) : kstrtobool(text);
      if (value === undefined) throw invalid(file, text);
      if (typeof value === 'boolean') await make(value);
      else this.coordinator.fdtMax = value;
    });
  }

  #scratch(field: 'address' | 'size'): string {
    return this.coordinator.host.scratch.areas.map((area) => `${hex(area[field])}\n`).join('');
  }
}

/**
 * `/sys/kernel/kho/` of the patch series v4 (6 February 2025): writing 1 to `active` makes the FDT, writing 0 undoes it.
 *
 * | file | read | write |
 * |---|---|---|
 * | `active` | `0` or `1` | a truth value: KHO_EINVAL for none; KHO_EOPNOTSUPP where KHO is off; KHO_ENOMEM without scratch; nothing happens if it is so already; whatever fails in making the FDT is **KHO_EINVAL**, with the reason in `cause` |
 * | `dt_max` | hexadecimal | a number of any base: KHO_EINVAL for none; KHO_EBUSY while active |
 * | `dt` | the FDT; KHO_ENOENT unless active | – |
 * | `scratch_phys`, `scratch_len` | a hexadecimal line for each area | – |
 *
 * Loading a kernel is no part of it: that is done when drivers prepare.
 *
 * @example
 * ```ts
 * import { KhoSysfs } from 'khorus';
 *
 * const host = { arch: 'x86_64', memory: 2 ** 28, nodes: 1, cmdline: 'kho=on kho_scratch=8M,16M,8M', cpus: 2, release: '6.14.0' } as const;
 * await using files = KhoSysfs.boot(host, { mode: 'hash', workers: 1, seed: 1, fdtMax: 2 ** 20 }, []);
 * await files.write('active', '1\n');
 * console.log((await files.read('active')).toString()); // 1
 * await files.write('active', '0\n');
 * ```
 */
export class KhoSysfs extends KhoFiles {
  static boot(
    host: HostOptions,
    options: Omit<CoordinatorOptions, 'profile'>,
    drivers: readonly DriverRegistration[],
  ): KhoSysfs {
    return new KhoSysfs(bootFiles('series-v4', host, options, drivers), { made: 'active', room: 'dt_max', fdt: 'dt' });
  }

  /** KHO_ENOENT for a file that is not there. */
  async read(file: 'active' | 'dt_max' | 'dt' | 'scratch_phys' | 'scratch_len'): Promise<string | Uint8Array> {
    return await this.readFile(file);
  }

  /** See the table above. */
  async write(file: 'active' | 'dt_max', text: string): Promise<void> {
    await this.writeFile(file, text, async (active) => {
      const { coordinator } = this;
      if (active === this.isMade) return;
      this.checkNotJumped(file);
      if (!active) {
        await coordinator.cancel();
        return;
      }
      await this.make().catch((cause: unknown) => {
        const why = KhoError.from(cause).message;
        throw new KhoError('KHO_EINVAL', `the handover could not be activated: ${why}`, { file }, { cause });
      });
    });
  }
}

/**
 * `/sys/kernel/debug/kho/out/` of the patch series v5 (20 March 2025): writing 1 to `finalize` makes the FDT, writing 0
 * undoes it.
 *
 * | file | read | write |
 * |---|---|---|
 * | `finalize` | `0` or `1` | a truth value: KHO_EINVAL for none; KHO_EBUSY once the next kernel was entered; KHO_EEXIST for 1 if it is finalized; KHO_ENOENT for 0 if it is not; else the error of what failed |
 * | `fdt_max` | hexadecimal | a number of any base; KHO_EBUSY once it is finalized (the series lets it be changed, to no effect) |
 * | `fdt` | the FDT; KHO_ENOENT unless finalized | – |
 * | `scratch_phys`, `scratch_len` | a hexadecimal line for each area | – |
 */
export class KhoDebugfs extends KhoFiles {
  static boot(
    host: HostOptions,
    options: Omit<CoordinatorOptions, 'profile'>,
    drivers: readonly DriverRegistration[],
  ): KhoDebugfs {
    return new KhoDebugfs(bootFiles('series-v5', host, options, drivers), {
      made: 'finalize',
      room: 'fdt_max',
      fdt: 'fdt',
    });
  }

  /** KHO_ENOENT for a file that is not there. */
  async read(file: 'finalize' | 'fdt_max' | 'fdt' | 'scratch_phys' | 'scratch_len'): Promise<string | Uint8Array> {
    return await this.readFile(file);
  }

  /** See the table above. */
  async write(file: 'finalize' | 'fdt_max', text: string): Promise<void> {
    await this.writeFile(file, text, async (finalize) => {
      const { coordinator } = this;
      this.checkNotJumped(file);
      if (finalize && this.isMade) throw new KhoError('KHO_EEXIST', 'it is finalized already', { file });
      if (!finalize && !this.isMade) throw new KhoError('KHO_ENOENT', 'it is not finalized', { file });
      if (finalize) await this.make();
      else await coordinator.cancel();
    });
  }
}
