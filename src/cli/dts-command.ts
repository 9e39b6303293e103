import { KhoError } from '../errors.js';
import { formatDts } from '../fdt/index.js';
import { BLOB_MAX, formatDecodedDts, openFdt, treeJson } from '../inspect/index.js';
import { readRegularFile } from '../regular-file.js';
import { readStdin } from './input.js';
import { EXIT_DONE, EXIT_FAILED, type Terminal } from './terminal.js';

/**
 * `khorus dts`: an FDT as devicetree source. A blob that is cut short or damaged is printed as far as it goes; what is
 * missing goes to stderr, and the exit code says that it was not all.
 */
export async function printDts(
  path: string,
  { plain = false }: { readonly plain?: boolean },
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const bytes = path === '-' ? await readStdin(signal) : await readRegularFile(path, 'the file', BLOB_MAX);
  let opened: ReturnType<typeof openFdt>;
  try {
    opened = openFdt(bytes);
  } catch (error) {
    throw error instanceof KhoError ? error.with({ file: path === '-' ? 'stdin' : path }) : error;
  }
  const { tree, size, totalSize, problems } = opened;
  if (terminal.json) {
    terminal.printJson({
      kind: 'fdt',
      size,
      ...(totalSize === undefined ? {} : { totalSize }),
      ...treeJson(tree),
      problems: problems.map(({ code, message }) => ({ code, message })),
    });
  } else {
    if (!terminal.quiet) terminal.print((plain ? formatDts(tree) : formatDecodedDts(tree)).trimEnd());
    for (const { message } of problems) terminal.streams.stderr.write(`khorus: ${message}\n`);
  }
  return problems.length === 0 ? EXIT_DONE : EXIT_FAILED;
}
