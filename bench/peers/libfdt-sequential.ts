import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** From here and from where the compiled bench lies, the C source is at the same place. */
const SOURCE = fileURLToPath(new URL('../../bench/peers/libfdt-sequential.c', import.meta.url));

export interface LibfdtJob {
  readonly instances: number;
  readonly nodes: number;
  readonly properties: number;
  readonly names: number;
  /** False: FDT_CREATE_FLAG_NO_NAME_DEDUP. */
  readonly dedup: boolean;
  /** Where to write the blob, if it is wanted. */
  readonly file?: string;
}

/** The compiled program, in a directory of its own. */
export class LibfdtProgram implements Disposable {
  readonly file: string;
  readonly #directory: string;

  private constructor(directory: string, file: string) {
    this.#directory = directory;
    this.file = file;
  }

  /** A text that says what is missing here if it cannot be compiled. */
  static compile(): LibfdtProgram | string {
    const directory = mkdtempSync(join(tmpdir(), 'khorus-bench-'));
    const file = join(directory, 'libfdt-sequential');
    const compiler = spawnSync('cc', ['-O2', '-Wall', '-o', file, SOURCE, '-lfdt'], { encoding: 'utf8' });
    if (compiler.error === undefined && compiler.status === 0) return new LibfdtProgram(directory, file);
    rmSync(directory, { recursive: true });
    if (compiler.error !== undefined) return 'there is no C compiler (cc)';
    return `cc could not compile it with libfdt: ${compiler.stderr.split('\n')[0] ?? ''}`;
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** A peer: libfdt's sequential writer in C, in a process that stays, so that its memory is warm too. */
export class LibfdtSequential implements Disposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;

  /** `program` is the file of a {@link LibfdtProgram}. */
  constructor(program: string) {
    this.#child = spawn(program, { stdio: 'pipe' });
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Builds the tree; nanoseconds. */
  async build({ instances, nodes, properties, names, dedup, file = '' }: LibfdtJob): Promise<number> {
    this.#child.stdin.write(`${instances} ${nodes} ${properties} ${names} ${dedup ? 1 : 0} ${file}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error("libfdt's sequential writer ended early");
    return Number(value.split(' ')[0]);
  }

  /** CPU time so far in milliseconds; it has one thread. 0 where /proc does not say. */
  cpuTime(): number {
    try {
      // Nanoseconds on a CPU, nanoseconds of waiting for one, number of time slices.
      return Number(readFileSync(`/proc/${this.#child.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6;
    } catch {
      return 0;
    }
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end();
  }
}
