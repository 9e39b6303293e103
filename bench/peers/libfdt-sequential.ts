import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
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

/** A peer: libfdt's sequential writer in C, in a process of its own that stays, so that its memory is warm too. */
export class LibfdtSequential implements Disposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #directory: string;
  readonly #answers: AsyncIterator<string>;

  private constructor(child: ChildProcessWithoutNullStreams, directory: string) {
    this.#child = child;
    this.#directory = directory;
    this.#answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** Compiles and starts it; a text that says what is missing here if that cannot be. */
  static start(): LibfdtSequential | string {
    const directory = mkdtempSync(join(tmpdir(), 'khorus-bench-'));
    const program = join(directory, 'libfdt-sequential');
    const compiler = spawnSync('cc', ['-O2', '-Wall', '-o', program, SOURCE, '-lfdt'], { encoding: 'utf8' });
    if (compiler.error !== undefined || compiler.status !== 0) {
      rmSync(directory, { recursive: true });
      if (compiler.error !== undefined) return 'there is no C compiler (cc)';
      return `cc could not compile it with libfdt: ${compiler.stderr.split('\n')[0] ?? ''}`;
    }
    return new LibfdtSequential(spawn(program, { stdio: 'pipe' }), directory);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Builds the tree; nanoseconds. */
  async build({ instances, nodes, properties, names, dedup, file = '' }: LibfdtJob): Promise<number> {
    this.#child.stdin.write(`${instances} ${nodes} ${properties} ${names} ${dedup ? 1 : 0} ${file}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error("libfdt's sequential writer ended early");
    return Number(value.split(' ')[0]);
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
