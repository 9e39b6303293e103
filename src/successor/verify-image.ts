import { createHash } from 'node:crypto';
import { digestsOf, type FailureRecord, type RangeRecord, type RunRecord } from '../coordinator/index.js';
import { hex, type ImageMemory, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';

/**
 * Compares an image with what run.json recorded at the jump: root FDT, tracker, every preserved object. Each difference
 * names the page, its owner and, where it is known, the instance.
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
    const found = digestsOf(memory, range.address as PhysicalAddress, range.order);
    if (found.sha256 === range.sha256) continue;
    for (const page of differingPages(range.pageCrcs, found.pageCrcs)) failures.push(difference(range, page, record));
  }
  return failures;
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
    (owner.kind === 'blob' && driver !== undefined ? instancesAt(record, driver.name, page) : undefined);
  const whose = {
    pages: `driver ${owner.name}, instance ${instance}, shard ${owner.shard}`,
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

/** The instances whose nodes have bytes in a page of their driver's FDT, first to last. */
function instancesAt(record: RunRecord, driver: string, page: number): string | undefined {
  const members = record.instances.filter((instance) => instance.driver === driver);
  const start = page * PAGE_SIZE;
  const inside = members.filter(({ blobOffset }, index) => {
    const next = members[index + 1]?.blobOffset ?? Number.POSITIVE_INFINITY;
    return blobOffset < start + PAGE_SIZE && next > start;
  });
  const first = inside[0]?.name;
  const last = inside.at(-1)?.name;
  return first === last ? first : `${first} to ${last}`;
}
