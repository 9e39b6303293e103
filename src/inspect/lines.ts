import { hex } from '../memblock/index.js';
import { formatBytes, formatCount, plural } from '../report/index.js';
import type { FdtReport, RawBlobReport } from './blob-report.js';
import type { ContentState } from './context.js';
import type { Finding } from './findings.js';
import type { ImageReport, InspectReport } from './inspect-path.js';
import type { KhoTestReport } from './kho-test-report.js';
import type { LuoFileReport, LuoReport } from './luo-report.js';
import type { MemfdReport } from './memfd-report.js';
import type { RootReport } from './root-report.js';
import type { SubtreeReport } from './subtree-report.js';
import type { TrackerReport } from './tracker-report.js';

/** Ranges that nobody claims are listed up to so many. */
const UNCLAIMED_LISTED = 10;
/** Width of the names at the beginning of lines. */
const LABEL_WIDTH = 14;
const NAME_WIDTH = 16;
const OWNER_WIDTH = 28;
/** What areas of scratch are for; those after the first two belong to nodes. */
const SCRATCH_KINDS = ['lowmem', 'global'];

/** The report as people read it; `trees` prints every FDT too. */
export function inspectLines(report: InspectReport, { trees = false }: { readonly trees?: boolean } = {}): string[] {
  switch (report.kind) {
    case 'fdt':
      return [...fdtLines(report), ...findingLines(report.findings)];
    case 'blob':
      return [...rawBlobLines(report), ...findingLines(report.findings)];
    case 'image':
      return imageLines(report, trees);
  }
}

/** The findings, most severe first; nothing where there are none. */
export function findingLines(findings: readonly Finding[]): string[] {
  if (findings.length === 0) return [];
  return [
    'findings',
    ...findings.map(({ severity, code, message }) => `  ${severity.padEnd(8)} ${code}  ${printable(message)}`),
  ];
}

function fdtLines({ size, totalSize, dts }: FdtReport): string[] {
  const cut = totalSize !== undefined && totalSize > size ? [`// cut short: ${size} of ${totalSize} bytes`] : [];
  return [...cut, ...textLines(dts)];
}

function rawBlobLines({ format, size, luo, metadata }: RawBlobReport): string[] {
  if (metadata !== undefined) {
    return [line('kexec-metadata', `${size} bytes: from ${metadata.previousRelease}, kexec ${metadata.kexecCount}`)];
  }
  if (luo === undefined) return [line(format, `${size} bytes`)];
  const where = luo.sessions === 'none' ? 'no sessions' : `sessions at ${luo.sessions}`;
  return [line('LUO', `${size} bytes: live update ${luo.liveupdateNumber}, ${where}, FLBs at ${luo.flbs}`)];
}

function imageLines(report: ImageReport, trees: boolean): string[] {
  const { bootRecord, root, scratch, tracker, subtrees, metadata, reservations, khoTest, luo, debugfs, extracted } =
    report;
  return [
    line('file', fileText(report)),
    ...(bootRecord === undefined
      ? []
      : [
          line('boot record', `${bootRecord.kind} at ${hex(bootRecord.address)}`),
          line('command line', printable(bootRecord.commandLine)),
        ]),
    ...(root === undefined ? [] : [line(root.form === 'one-fdt' ? 'FDT' : 'root FDT', rootText(root))]),
    ...(root !== undefined && trees ? tree(root.dts) : []),
    ...(metadata === undefined
      ? []
      : [line('from', `${printable(metadata.previousRelease)}, kexec ${metadata.kexecCount}`)]),
    ...(scratch === undefined ? [] : [line('scratch', scratch.areas.map(areaText).join(', ') || 'none')]),
    ...(tracker === undefined
      ? []
      : [
          line('tracker', trackerText(tracker)),
          line(
            'preserved',
            `${plural(tracker.objects, 'object')}, ${formatBytes(tracker.bytes)}${ordersText(': ', tracker.orders)}`,
          ),
        ]),
    ...(subtrees.length === 0 ? [] : [root?.form === 'one-fdt' ? 'nodes' : 'sub-blobs']),
    ...subtrees.flatMap((subtree) => subtreeLines(subtree, trees)),
    ...(reservations === undefined || reservations.length === 0 ? [] : ['reserve_mem']),
    ...(reservations ?? []).map(({ name, address, size, content, sha256 }) =>
      item(name, `${hex(address)}  ${formatBytes(size)}  ${contentText(content, sha256)}`),
    ),
    ...(khoTest === undefined ? [] : [line('kho_test', khoTestText(khoTest))]),
    ...(luo === undefined ? [] : luoLines(luo)),
    ...claimLines(report),
    ...(debugfs === undefined ? [] : [line('kho/out', debugfsText(debugfs.equal.length, debugfs.shorter))]),
    ...(extracted === undefined ? [] : [line('extracted', `${formatBytes(extracted.size)} to ${extracted.file}`)]),
    ...findingLines(report.findings),
  ];
}

function fileText({ file }: ImageReport): string {
  const { path, format, size, memory, held, highMemoryAt } = file;
  if (format === 'elf') return `${path}: ELF core, ${formatBytes(held)} of ${formatBytes(memory)} of memory`;
  if (highMemoryAt === undefined) return `${path}: flat, ${formatBytes(size)}`;
  return (
    `${path}: ${formatBytes(size)}, QEMU's RAM without the hole below 4 GiB: ` +
    `byte ${hex(highMemoryAt)} of the file is address 0x100000000`
  );
}

function rootText({ address, compatible, profile, size }: RootReport): string {
  const which = profile === undefined || profile === compatible ? '' : ` (${profile})`;
  return `${hex(address)}, ${compatible ?? 'no compatible'}${which}, ${plural(size, 'byte')}`;
}

function trackerText({ form, address, pages }: TrackerReport): string {
  if (form === 'mem-properties') return "the FDT's properties mem";
  return `${hex(address)}, ${plural(pages, 'page')}${form === 'chunk-list' ? ' of chunks and bitmaps' : ''}`;
}

function subtreeLines(
  { name, address, size, format, compatible, instances = 0, dts, head }: SubtreeReport,
  trees: boolean,
): string[] {
  const what = {
    fdt: compatible ?? 'an FDT without compatible',
    node: `${compatible ?? 'no compatible'}, ${plural(instances, 'instance')}`,
    luo: compatible ?? '',
    'kexec-metadata': 'version 1',
    raw: `raw: ${spaced(head ?? '')}`,
    unreadable: 'cannot be read',
  }[format];
  return [
    item(name, `${hex(address)}  ${formatBytes(size)}  ${printable(what)}`),
    ...(trees && dts !== undefined ? tree(dts) : []),
  ];
}

function khoTestText({ folios, bytes, orders, csum, content, verified }: KhoTestReport): string {
  const sum = {
    read: verified === true ? 'verified' : 'is not that of the folios',
    'not in this file': 'not verifiable: the folios are not in this file',
    damaged: 'not verifiable: the folios cannot be read',
    'not asked for': 'not verified',
    'too large': 'not verified: too large',
  }[content];
  return `${plural(folios, 'folio')}, ${formatBytes(bytes)}${ordersText(': ', orders)}; checksum ${csum} ${sum}`;
}

function luoLines({ liveupdateNumber, sessions, flbs }: LuoReport): string[] {
  const files = sessions.reduce((sum, session) => sum + session.files.length, 0);
  const counts = `${plural(sessions.length, 'session')}, ${plural(files, 'file')}, ${plural(flbs.length, 'FLB')}`;
  return [
    line('LUO', `live update ${liveupdateNumber}: ${counts}`),
    ...sessions.flatMap((session) => [
      `  session ${printable(session.name)}`,
      ...session.files.map((file) => `    token ${file.token}  ${fileLine(file)}`),
    ]),
    ...flbs.map(
      ({ compatible, data, count }) => `  FLB ${printable(compatible)}  data ${data}, ${plural(count, 'file')}`,
    ),
  ];
}

function fileLine({ compatible, data, memfd }: LuoFileReport): string {
  if (memfd === undefined) return `${printable(compatible)}  data ${data}`;
  return `${printable(compatible)}  ${memfdText(memfd)}`;
}

function memfdText({ size, seals, folios, orders, holeBytes, content, sha256 }: MemfdReport): string {
  const parts = [
    formatBytes(size),
    `${plural(folios, 'folio')}${orders === undefined || folios === 0 ? '' : ordersText(': ', orders)}`,
    ...(holeBytes === undefined || holeBytes === 0 ? [] : [`${formatBytes(holeBytes)} of holes`]),
    seals.length === 0 ? 'no seals' : `seals ${seals.join(' ')}`,
  ];
  return `${parts.join(', ')}  ${contentText(content, sha256)}`;
}

function claimLines({ claims, unclaimed, tracker }: ImageReport): string[] {
  if (tracker === undefined) return [];
  const { objects, bytes, ranges } = unclaimed;
  return [
    'preserved by',
    ...withoutMemfds(claims).map((claim) =>
      item(claim.owner, `${plural(claim.objects, 'object')}, ${formatBytes(claim.bytes)}`, OWNER_WIDTH),
    ),
    ...(objects === 0
      ? []
      : [`  unclaimed by any known structure: ${plural(objects, 'object')}, ${formatBytes(bytes)}`]),
    ...ranges
      .slice(0, UNCLAIMED_LISTED)
      .map((range) => `    ${hex(range.address)}  ${formatBytes(range.size)}, ${plural(range.objects, 'object')}`),
    ...(ranges.length > UNCLAIMED_LISTED
      ? [`    and ${formatCount(ranges.length - UNCLAIMED_LISTED)} more ranges`]
      : []),
  ];
}

function areaText({ address, size }: { readonly address: number; readonly size: number }, index: number): string {
  return `${SCRATCH_KINDS[index] ?? 'node'} ${hex(address)} (${formatBytes(size)})`;
}

/** Many memfds are one line; what each has stands with it above. */
function withoutMemfds(claims: ImageReport['claims']): ImageReport['claims'] {
  const memfds = claims.filter(({ owner }) => owner.startsWith('memfd '));
  if (memfds.length < 2) return claims;
  const sum = (of: 'objects' | 'bytes'): number => memfds.reduce((total, claim) => total + claim[of], 0);
  const others = claims.filter((claim) => !memfds.includes(claim));
  return [...others, { owner: `${memfds.length} memfds`, objects: sum('objects'), bytes: sum('bytes') }];
}

function debugfsText(equal: number, shorter: readonly string[]): string {
  const less = shorter.length === 0 ? '' : `, ${shorter.join(' ')} as far as it goes`;
  return `${plural(equal, 'file')} as in memory${less}`;
}

function contentText(content: ContentState, sha256: string | undefined): string {
  if (sha256 !== undefined) return `sha256 ${sha256}`;
  return content === 'read' ? '' : `(content ${content === 'damaged' ? 'cannot be read' : content})`;
}

/** Highest order first, as the tracker is walked. */
function ordersText(before: string, orders: Readonly<Record<number, number>>): string {
  const parts = Object.entries(orders).reverse();
  if (parts.length === 0) return '';
  return before + parts.map(([order, count]) => `${formatCount(count)} of order ${order}`).join(', ');
}

function tree(dts: string): string[] {
  return textLines(dts).map((text) => `    ${text}`);
}

function textLines(text: string): string[] {
  return text.trimEnd().split('\n').map(printable);
}

function line(label: string, text: string): string {
  return `${label.padEnd(LABEL_WIDTH - 1)} ${text}`.trimEnd();
}

function item(name: string, text: string, width = NAME_WIDTH): string {
  return `  ${printable(name).padEnd(width - 1)} ${text}`.trimEnd();
}

function spaced(head: string): string {
  return head.replace(/(..)(?=.)/g, '$1 ');
}

/** Names come from memory that anybody may have written: a terminal must not act on them. Tabs of DTS stay. */
function printable(text: string): string {
  return text.replace(/(?!\t)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '\u{fffd}');
}
