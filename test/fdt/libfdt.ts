import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'vitest';
import type { FdtNode, FdtReader } from '#dist/fdt/index.js';

/**
 * libfdt and dtc as judges of our blobs. Debian: `apt-get install gcc libc6-dev device-tree-compiler libfdt-dev`.
 * Where they are missing, tests made with {@link judgedTest} are skipped with a message; with CI=true they fail.
 */
const OUTPUT_LIMIT = 512 * 1024 * 1024;

let directory: string | undefined;
let program: string | undefined;
let missing: string | null | undefined;

/** Which tool is missing, if one is. */
export function toolsMissing(): string | undefined {
  if (missing === undefined) missing = findMissing() ?? null;
  return missing ?? undefined;
}

function findMissing(): string | undefined {
  for (const tool of ['cc', 'dtc', 'fdtdump']) {
    if (spawnSync(tool, ['--version']).error !== undefined) return tool;
  }
  const header = spawnSync('cc', ['-E', '-x', 'c', '-'], { input: '#include <libfdt.h>\n' });
  return header.status === 0 ? undefined : 'libfdt.h';
}

/** `test` where the tools are there. Without them: skipped with a message, or a failing test if CI=true. */
export function judgedTest(name: string, body: () => void | Promise<void>): void {
  const tool = toolsMissing();
  if (tool === undefined) {
    test(name, body);
  } else if (process.env.CI === 'true') {
    test(name, () => {
      throw new Error(`${tool} is not installed: gcc, libc6-dev, device-tree-compiler and libfdt-dev are needed`);
    });
  } else {
    console.warn(`SKIPPED, because ${tool} is not installed: ${name}`);
    test.skip(name, body);
  }
}

/** A directory of this test process, removed at its end. */
export function scratchDirectory(): string {
  if (directory === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'khorus-fdt-'));
    process.once('exit', () => rmSync(made, { recursive: true, force: true }));
    directory = made;
  }
  return directory;
}

/** The compiled libfdt-check; compiled at the first call. */
function libfdtCheck(): string {
  if (program === undefined) {
    const source = fileURLToPath(new URL('libfdt-check.c', import.meta.url));
    const target = join(scratchDirectory(), 'libfdt-check');
    execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-Wno-sign-compare', '-Werror', '-o', target, source, '-lfdt'], {
      stdio: 'pipe',
    });
    program = target;
  }
  return program;
}

/** What libfdt reads in a blob, as lines (see libfdt-check.c). Throws with libfdt's error if it refuses the blob. */
export function libfdtDump(blob: Uint8Array): string[] {
  const text = execFileSync(libfdtCheck(), ['dump'], { input: blob, maxBuffer: OUTPUT_LIMIT, stdio: 'pipe' });
  return text.toString('latin1').split('\n').slice(0, -1);
}

/** The blob that libfdt's sequential writer makes of such lines. */
export function libfdtBuild(lines: readonly string[]): Uint8Array {
  const input = Buffer.from(lines.map((line) => `${line}\n`).join(''), 'latin1');
  return execFileSync(libfdtCheck(), ['build'], { input, maxBuffer: OUTPUT_LIMIT, stdio: 'pipe' });
}

/** The same lines from our reader. */
export function dumpLines(reader: FdtReader): string[] {
  const lines: string[] = [];
  for (const { address, size } of reader.reservations()) {
    lines.push(`reserve\t${address.toString(16)}\t${size.toString(16)}`);
  }
  const walk = (node: FdtNode): void => {
    lines.push(node.path);
    for (const { name, value } of node.properties()) {
      lines.push(`${node.path}\t${name}\t${Buffer.from(value).toString('hex')}`);
    }
    for (const child of node.children()) walk(child);
  };
  walk(reader.root);
  return lines;
}

/** What `dtc -I dtb -O dts -q` prints of a blob, one character per byte. Throws with dtc's message if it refuses it. */
export function dtcDts(blob: Uint8Array): string {
  const text = execFileSync('dtc', ['-I', 'dtb', '-O', 'dts', '-q', '-'], {
    input: blob,
    maxBuffer: OUTPUT_LIMIT,
    stdio: 'pipe',
  });
  return text.toString('latin1');
}

/** Whether dtc and fdtdump both accept a file; if not, throws with what they said. */
export function dtcAccepts(file: string): true {
  execFileSync('dtc', ['-I', 'dtb', '-O', 'dts', '-q', '-o', '/dev/null', file], { stdio: 'pipe' });
  execFileSync('fdtdump', [file], { stdio: 'pipe', maxBuffer: OUTPUT_LIMIT });
  return true;
}

/** Writes a blob into the scratch directory, for tools that want a file. */
export function blobFile(blob: Uint8Array, name = 'blob.dtb'): string {
  const file = join(scratchDirectory(), name);
  writeFileSync(file, blob);
  return file;
}
