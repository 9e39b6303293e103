import { createHash } from 'node:crypto';
import {
  digestsOf,
  type FailureRecord,
  type InstanceRecord,
  type RangeRecord,
  type RunRecord,
} from '../coordinator/index.js';
import { hex, type ImageMemory, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';

/**
 * Compares an image with what run.json recorded at the jump: the FDT, what lists preserved memory, every preserved object.
 * Each difference names the page, its owner and, where it is known, the instance.
 */
export function verifyImage(memory: ImageMemory, record: RunRecord): FailureRecord[] {
  const failures: FailureRecord[] = [];
  for (const { address, sha256 } of record.tracker) {
    const bytes = memory.read(address as PhysicalAddress, PAGE_SIZE);
    if (createHash('sha256').update(bytes).digest('hex') !== sha256) {
      failures.push({
        code: 'KHO_ETRACKER',
        message: `the tracker's page at ${hex(address)} is not what it was at the jump`,
        address,
      });
    }
  }
  for (const range of record.ranges) {
    const found = digestsOf(memory, range.address as PhysicalAddress, 2 ** range.order);
    if (found.sha256 === range.sha256) continue;
    for (const page of differingPages(range.pageCrcs, found.pageCrcs)) failures.push(difference(range, page, record));
  }
  return [...failures, ...verifyOneFdt(memory, record)];
}

/** The one FDT, which is in no range. */
function verifyOneFdt(memory: ImageMemory, { root, instances }: RunRecord): FailureRecord[] {
  const { address: start, size, sha256, pageCrcs } = root;
  if (sha256 === undefined || pageCrcs === undefined) return [];
  const found = digestsOf(memory, start as PhysicalAddress, Math.ceil(size / PAGE_SIZE));
  if (found.sha256 === sha256) return [];
  const inOrder = [...instances].sort((a, b) => a.blobOffset - b.blobOffset);
  return differingPages(pageCrcs, found.pageCrcs).map((page) => {
    const address = start + page * PAGE_SIZE;
    const whose = instancesAt(inOrder, page, ({ driver, name }) => `${driver} ${name}`);
    const message = `the page at ${hex(address)} of the FDT is not what it was at the jump${whose ? `: ${whose}` : ''}`;
    return { code: 'KHO_EDIGEST', message, address };
  });
}

/** Numbers of the pages whose CRC differs; the first one if the CRCs agree although the digests do not. */
function differingPages(recorded: string, found: string): number[] {
  const a = Buffer.from(recorded, 'base64');
  const b = Buffer.from(found, 'base64');
  const pages: number[] = [];
  for (let page = 0; page * 4 < b.length; page++) {
    if (page * 4 + 4 > a.length || a.readUInt32LE(page * 4) !== b.readUInt32LE(page * 4)) pages.push(page);
  }
  return pages.length === 0 ? [0] : pages;
}

function difference(range: RangeRecord, page: number, record: RunRecord): FailureRecord {
  const { owner } = range;
  const address = range.address + page * PAGE_SIZE;
  const object =
    range.order === 0 ? '' : ` (page ${page} of the object of order ${range.order} at ${hex(range.address)})`;
  const driver = record.drivers.find(({ name }) => name === owner.name);
  const instance =
    owner.instance ??
    (owner.kind === 'blob' && driver !== undefined
      ? instancesAt(
          record.instances.filter((instance) => instance.driver === driver.name),
          page,
          ({ name }) => name,
        )
      : undefined);
  const whose = {
    pages: `driver ${owner.name}, instance ${instance}, shard ${owner.shard}`,
    guest: `driver ${owner.name}, instance ${instance}, shard ${owner.shard}`,
    blob: `the FDT of driver ${owner.name}${instance === undefined ? '' : `, instance ${instance}`}`,
    root: 'the root FDT',
    reserve_mem: `the reserve_mem area '${owner.name}'`,
  }[owner.kind];
  return {
    code: 'KHO_EDIGEST',
    message: `the page at ${hex(address)}${object} is not what it was at the jump: ${whose}`,
    address,
    ...(driver === undefined ? {} : { driver: owner.name }),
    ...(instance === undefined ? {} : { instance }),
  };
}

/** The instances whose nodes have bytes in a page of their FDT, first to last; `members` are all of that FDT's. */
function instancesAt(
  members: readonly InstanceRecord[],
  page: number,
  nameOf: (instance: InstanceRecord) => string,
): string | undefined {
  const start = page * PAGE_SIZE;
  const inside = members.filter(({ blobOffset }, index) => {
    const next = members[index + 1]?.blobOffset ?? Number.POSITIVE_INFINITY;
    return blobOffset < start + PAGE_SIZE && next > start;
  });
  const [first, last] = [inside[0], inside.at(-1)];
  if (first === undefined || last === undefined) return undefined;
  return first === last ? nameOf(first) : `${nameOf(first)} to ${nameOf(last)}`;
}
