import {
  decodeLuoFile,
  decodeLuoSession,
  khoBlockChain,
  LUO_FILE_SIZE,
  LUO_SESSION_SIZE,
  type LuoFile,
  type LuoFlb,
  MEMFD_LUO_COMPATIBLE,
  readLuoFlbs,
  readLuoHeader,
  type Structure,
  type Subtree,
  UntrustedMemory,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import { type InspectContext, noteClaims } from './context.js';
import { inspectMemfd, type MemfdReport } from './memfd-report.js';

/** What a LUO blob leads to, as far as it can be read. 64-bit values that are no addresses or sizes are text. */
export interface LuoReport {
  readonly liveupdateNumber: string;
  readonly sessions: readonly LuoSessionReport[];
  readonly flbs: readonly { readonly compatible: string; readonly data: string; readonly count: number }[];
}

export interface LuoSessionReport {
  readonly name: string;
  readonly files: readonly LuoFileReport[];
}

export interface LuoFileReport {
  readonly token: string;
  readonly compatible: string;
  readonly data: string;
  readonly memfd?: MemfdReport;
}

const OWNER = 'LUO';

/**
 * Reads sessions, files, memfds and FLBs, and claims their pages. What is damaged is found and left out; what stands
 * beside it is read. KHO_EIMAGE only if the blob itself is none.
 */
export function inspectLuo(context: InspectContext, { address, size }: Subtree): LuoReport {
  // One for all chains, so that two of them that meet are told apart from two that are equal.
  const memory = UntrustedMemory.of(context.memory);
  const header = readLuoHeader(memory, address, size);
  const sessions = inspectSessions(context, memory, header.sessions);
  const flbs = header.flbs === undefined ? [] : inspectFlbs(context, memory, header.flbs);
  return {
    liveupdateNumber: `${header.liveupdateNumber}`,
    sessions,
    flbs: flbs.map(({ compatible, data, count }) => ({ compatible, data: hex(data), count: Number(count) })),
  };
}

function inspectSessions(
  context: InspectContext,
  memory: UntrustedMemory,
  head: PhysicalAddress | undefined,
): LuoSessionReport[] {
  const names = new Set<string>();
  return chainEntries(context, memory, head, LUO_SESSION_SIZE, 'session').flatMap((entry) => {
    const session = context.findings.attempt(() => decodeLuoSession(entry));
    if (session === undefined) return [];
    const { name, files: first, count } = session;
    if (names.has(name)) context.findings.error(entry.bad(`there is a session '${name}' already`));
    names.add(name);
    const files = inspectFiles(context, memory, name, first);
    if (count !== BigInt(files.listed)) {
      context.findings.error(entry.bad(`count of '${name}' is ${count}, and ${files.listed} files can be read`));
    }
    return [{ name, files: files.reports }];
  });
}

function inspectFiles(
  context: InspectContext,
  memory: UntrustedMemory,
  session: string,
  head: PhysicalAddress | undefined,
): { listed: number; reports: LuoFileReport[] } {
  const tokens = new Set<bigint>();
  const entries = chainEntries(context, memory, head, LUO_FILE_SIZE, 'file', ` of session '${session}'`);
  const reports = entries.flatMap((entry) => {
    const file = context.findings.attempt(() => decodeLuoFile(entry));
    if (file === undefined) return [];
    if (tokens.has(file.token)) {
      context.findings.error(entry.bad(`there is a file with token ${file.token} in session '${session}' already`));
    }
    tokens.add(file.token);
    return [inspectFile(context, memory, session, file)];
  });
  return { listed: entries.length, reports };
}

function inspectFile(
  context: InspectContext,
  memory: UntrustedMemory,
  session: string,
  { compatible, data, token }: LuoFile,
): LuoFileReport {
  const report = { token: `${token}`, compatible, data: hex(data) };
  const where = `token ${token} of session '${session}'`;
  if (compatible !== MEMFD_LUO_COMPATIBLE) {
    const text = `${where} is a '${compatible}': what its handler wrote at ${hex(data)} is not known here`;
    context.findings.add('info', new KhoError('KHO_EOPNOTSUPP', text), 'files of unknown handlers');
    return report;
  }
  if (data === 0n || data % BigInt(PAGE_SIZE) !== 0n || data >= BigInt(PHYS_ADDR_MAX)) {
    const text = `${where}: data is ${hex(data)}, which is not the address of a page`;
    context.findings.error(new KhoError('KHO_EIMAGE', text));
    return report;
  }
  const memfd = inspectMemfd(context, memory, where, physicalAddress(Number(data)));
  return memfd === undefined ? report : { ...report, memfd };
}

function inspectFlbs(context: InspectContext, memory: UntrustedMemory, page: PhysicalAddress): readonly LuoFlb[] {
  noteClaims(context, (claims) => claims.folio(OWNER, 'the FLB page', page, 0), 'LUO');
  return context.findings.attempt(() => readLuoFlbs(memory, page)) ?? [];
}

/** The entries of a chain up to its damage, if it has some; the blocks are claimed. */
function chainEntries(
  context: InspectContext,
  memory: UntrustedMemory,
  head: PhysicalAddress | undefined,
  entrySize: number,
  what: string,
  of = '',
): Structure[] {
  const entries: Structure[] = [];
  context.findings.attempt(() => {
    for (const block of khoBlockChain(memory, head, entrySize, what)) {
      noteClaims(context, (claims) => claims.folio(OWNER, `a block of ${what}s${of}`, block.address, 0), 'LUO');
      context.budget.entries -= block.entries.length;
      if (context.budget.entries < 0) throw new KhoError('KHO_E2BIG', `more ${what}s${of} than are listed here`);
      for (const entry of block.entries) entries.push(entry);
    }
  });
  return entries;
}
