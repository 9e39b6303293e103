import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeKexecMetadata, decodeScratchArray, KEXEC_METADATA_NAME, KHO_V4, readKhoRoot } from '../abi/index.js';
import { X86_64 } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { FdtReader, formatDts } from '../fdt/index.js';
import { hex, ImageMemory, PAGE_SIZE, walkRadixTree } from '../memblock/index.js';
import { formatBytes, plural } from '../report/index.js';

/** What `inspect` found, as `--json` shows it. Addresses are numbers. */
export type InspectReport =
  | { readonly kind: 'fdt'; readonly size: number; readonly dts: string }
  | {
      readonly kind: 'image';
      readonly bootRecord: { readonly kind: string; readonly address: number; readonly commandLine: string };
      readonly root: { readonly address: number; readonly compatible: string; readonly memoryMap: number };
      readonly scratch: readonly { readonly address: number; readonly size: number }[];
      /** Number of preserved objects of each order. */
      readonly preserved: Readonly<Record<number, number>>;
      readonly preservedBytes: number;
      readonly trackerPages: number;
      readonly subtrees: readonly {
        readonly name: string;
        readonly address: number;
        readonly size: number;
        readonly compatible?: string;
        /** Absent for a blob that is no FDT. */
        readonly dts?: string;
        readonly metadata?: { readonly previousRelease: string; readonly kexecCount: number };
      }[];
    };

/**
 * Reads an FDT blob, a memory image, or the image of a directory that `run --out` wrote.
 * KHO_ENOENT if there is no such path, KHO_EIMAGE or an FDT error for what is neither.
 */
export async function inspectPath(path: string): Promise<InspectReport> {
  const file = await imageOrFile(path);
  const head = await firstBytes(file);
  if (head.length >= 4 && Buffer.from(head).readUInt32BE(0) === 0xd00dfeed) {
    const reader = FdtReader.open(await readFile(file));
    return { kind: 'fdt', size: reader.totalSize, dts: formatDts(reader) };
  }
  return inspectImage(file);
}

function inspectImage(file: string): InspectReport {
  const memory = ImageMemory.open(file);
  try {
    const record = X86_64.findBootRecord(memory);
    const root = readKhoRoot(memory.read(record.root, PAGE_SIZE), [KHO_V4]);
    const preserved: Record<number, number> = {};
    let preservedBytes = 0;
    const tables = walkRadixTree(memory, root.memoryMap, (_address, order) => {
      preserved[order] = (preserved[order] ?? 0) + 1;
      preservedBytes += 2 ** order * PAGE_SIZE;
    });
    return {
      kind: 'image',
      bootRecord: { kind: record.kind, address: record.address, commandLine: record.commandLine },
      root: { address: record.root, compatible: root.compatible, memoryMap: root.memoryMap },
      scratch: decodeScratchArray(memory.read(record.scratchArray, record.scratchArraySize)),
      preserved,
      preservedBytes,
      trackerPages: tables.length,
      subtrees: root.subtrees.map(({ name, address, size }) => {
        const bytes = memory.read(address, size);
        if (name === KEXEC_METADATA_NAME) return { name, address, size, metadata: decodeKexecMetadata(bytes) };
        const reader = FdtReader.open(bytes);
        const compatible = reader.root.property('compatible')?.string();
        return { name, address, size, ...(compatible && { compatible }), dts: formatDts(reader) };
      }),
    };
  } finally {
    memory.close();
  }
}

/** The report as people read it; the trees only if asked for. */
export function inspectLines(report: InspectReport, trees: boolean): string[] {
  if (report.kind === 'fdt') return report.dts.trimEnd().split('\n');
  const orders = Object.entries(report.preserved).map(([order, count]) => `${count} of order ${order}`);
  const objects = Object.values(report.preserved).reduce((sum, count) => sum + count, 0);
  return [
    `boot record   ${report.bootRecord.kind} at ${hex(report.bootRecord.address)}`,
    `command line  ${report.bootRecord.commandLine}`,
    `root FDT      ${hex(report.root.address)}, ${report.root.compatible}`,
    `scratch       ${report.scratch.map(({ address, size }) => `${hex(address)} (${formatBytes(size)})`).join(', ')}`,
    `preserved     ${plural(objects, 'object')}, ${formatBytes(report.preservedBytes)}: ${orders.join(', ')}`,
    `tracker       ${hex(report.root.memoryMap)}, ${plural(report.trackerPages, 'page')}`,
    'subtrees',
    ...report.subtrees.flatMap(({ name, address, size, compatible, dts, metadata }) => [
      `  ${name.padEnd(16)} ${hex(address)}  ${formatBytes(size)}  ${
        metadata === undefined ? compatible : `from ${metadata.previousRelease}, kexec ${metadata.kexecCount}`
      }`,
      ...(trees && dts !== undefined ? dts.trimEnd().split('\n') : []),
    ]),
  ];
}

async function imageOrFile(path: string): Promise<string> {
  try {
    return (await stat(path)).isDirectory() ? join(path, 'ram.img') : path;
  } catch (error) {
    throw new KhoError('KHO_ENOENT', `there is no ${path}`, { file: path }, { cause: error });
  }
}

async function firstBytes(file: string): Promise<Uint8Array> {
  const memory = ImageMemory.open(file);
  try {
    const [range] = memory.ranges;
    return range === undefined ? new Uint8Array() : memory.read(range.base, Math.min(4, range.size));
  } finally {
    memory.close();
  }
}
