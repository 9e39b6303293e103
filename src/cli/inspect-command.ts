import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ProfileName } from '../abi/index.js';
import { imageSizeOf, readRecord, unbackedMemoryOf } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import {
  findingLines,
  type InspectPathOptions,
  type InspectReport,
  inspectBytes,
  inspectLines,
  inspectPath,
} from '../inspect/index.js';
import { PAGE_SIZE } from '../memblock/index.js';
import { readStdin } from './input.js';
import { EXIT_DONE, EXIT_FAILED, type Terminal } from './terminal.js';

export interface InspectCommandOptions {
  readonly trees?: boolean;
  readonly bootParams?: number;
  readonly root?: number;
  readonly profile?: ProfileName;
  readonly extract?: string;
  readonly force?: boolean;
  /** False with `--no-contents`. */
  readonly contents?: boolean;
}

/** `khorus inspect`: what a file holds of a handover, and what is wrong with it. */
export async function inspectFile(
  path: string,
  options: InspectCommandOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  if (options.force === true && options.extract === undefined) {
    throw new KhoError('KHO_EINVAL', '--force replaces what --extract names; give --extract FILE too', {
      field: 'force',
    });
  }
  if (options.root !== undefined && options.bootParams !== undefined) {
    throw new KhoError('KHO_EINVAL', 'give either --boot-params or --root: each says where the handover begins', {
      field: 'root',
    });
  }
  const report =
    path === '-'
      ? await inspectStdin(options, signal)
      : await inspectPath(path, { ...options, ...(await ownersOf(path, terminal)), signal });
  const failed = report.findings.some(isError);
  if (terminal.json) terminal.printJson({ ...report });
  else if (terminal.quiet)
    for (const line of findingLines(report.findings.filter(isError))) terminal.streams.stderr.write(`${line}\n`);
  else for (const line of inspectLines(report, { trees: options.trees === true })) terminal.print(line);
  return failed ? EXIT_FAILED : EXIT_DONE;
}

async function inspectStdin({ extract }: InspectCommandOptions, signal: AbortSignal): Promise<InspectReport> {
  if (extract !== undefined)
    throw new KhoError('KHO_EINVAL', '--extract needs a memory image, which cannot come from stdin');
  return inspectBytes(await readStdin(signal), 'stdin');
}

function isError({ severity }: InspectReport['findings'][number]): boolean {
  return severity === 'error';
}

/** Beside an image of ours lies run.json, which knows whose the pages are that no structure of the kernel's names. */
async function ownersOf(
  path: string,
  terminal: Terminal,
): Promise<Pick<InspectPathOptions, 'owners' | 'imageSize' | 'unbacked' | 'recorded'>> {
  const record = existsSync(join(path, 'run.json'))
    ? await readRecord(join(path, 'run.json')).catch((error: unknown) => {
        terminal.say(`note: owners of pages are not known: ${KhoError.from(error).message}`);
        return undefined;
      })
    : undefined;
  if (record === undefined) return {};
  const owners = record.ranges.flatMap(({ address, owner }): [number, string][] =>
    owner.kind === 'pages' ? [[address, `driver ${owner.name}`]] : [],
  );
  for (const { address, order, count, owner } of record.unbacked ?? []) {
    for (let folio = 0; folio < count; folio++) {
      owners.push([address + folio * 2 ** order * PAGE_SIZE, `guest memory of ${owner.name}`]);
    }
  }
  const { address: bootParams, root } = record.successor?.bootRecord ?? {};
  return {
    owners: new Map(owners),
    imageSize: imageSizeOf(record),
    unbacked: unbackedMemoryOf(record),
    ...(bootParams !== undefined && root !== undefined && { recorded: { bootParams, root } }),
  };
}
