import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { memfdExtents, readLuo } from '#dist/abi/index.js';
import luo from '#dist/drivers/luo.js';
import { physicalAddress } from '#dist/memblock/index.js';
import type { Driver } from '#dist/workers/driver.js';
import { SmallHost } from './small-host.js';

const driver = luo as unknown as Driver;
const PAGE = 4096;

const OPTIONS = {
  testFlbs: true,
  liveupdateNumber: 3,
  sessions: [
    {
      name: 'vm 0/ä',
      memfds: [
        { token: 7, size: '5M', order: 9, seals: ['shrink', 'grow'], pos: 4097 },
        { token: '0xFEEDF00DCAFEBEE0', size: 50_001, holes: 3 },
        { token: 9, size: 0 },
        { token: 10, size: '64K', holes: 1 },
      ],
    },
    { name: 'many', memfds: 65, size: 1 },
    { name: 'none', memfds: 0 },
    { name: 's', count: 50, memfds: 1, size: '8K', order: 1 },
  ],
};

const SMALL = { sessions: [{ name: 'vm', memfds: 3, size: '20K', order: 2 }] };

/** Hands over and reads memory back with the decoder, which knows nothing of the driver. */
async function handedOver(options: unknown = OPTIONS) {
  const host = new SmallHost(driver, options);
  const { length: size } = await host.handOver();
  const address = host.memory.base; // the blob is the first page of shard 0
  const orders = new Map([...host.preserved].map((key) => [Number.parseInt(key, 16), Number(key.split('/')[1])]));
  return { host, read: readLuo(host.memory, address, size), orderAt: (at: number) => orders.get(at) };
}

const shared = await handedOver();

describe('luo', () => {
  it('leaves in memory what its options say', async () => {
    const { read } = shared;
    expect(read.liveupdateNumber).toBe(3n);
    expect(read.sessions.map(({ name }) => name)).toEqual([
      'vm 0/ä',
      'many',
      'none',
      ...Array.from({ length: 50 }, (_, n) => `s${n}`),
    ]);
    expect(read.sessionBlocks).toHaveLength(2);
    expect(read.sessions.map(({ blocks }) => blocks.length).slice(0, 4)).toEqual([1, 2, 0, 1]);
    const files = read.sessions[0]?.files.map(({ compatible, token, memfd }) => ({
      compatible,
      token,
      pos: memfd?.pos,
      size: memfd?.size,
      seals: memfd?.seals,
      indices: memfd?.folios.map(({ index }) => index),
      flags: [...new Set(memfd?.folios.map(({ flags }) => flags))],
    }));
    const memfd = { compatible: 'memfd-v2', pos: 0n, seals: 0, indices: [], flags: [] };
    expect(files).toEqual([
      { ...memfd, token: 7n, pos: 4097n, size: 5 * 2 ** 20, seals: 6, indices: [0, 512, 1024], flags: [3] },
      { ...memfd, token: 0xfeedf00dcafebee0n, size: 50_001, indices: [0, 1, 3, 4, 6, 7, 9, 10, 12], flags: [3] },
      { ...memfd, token: 9n, size: 0 },
      { ...memfd, token: 10n, size: 65536 },
    ]);
    expect(read.flbs.map(({ count }) => count)).toEqual([119n, 119n, 119n]);
  });

  it('preserves each folio at its order and all else as single pages, side by side', async () => {
    const { host, read, orderAt } = shared;
    const folios = read.sessions.flatMap(({ files }) => files.flatMap(({ memfd }) => memfd?.folios ?? []));
    const orders = folios.map(({ address }) => orderAt(address));
    expect(orders.slice(0, 4)).toEqual([9, 9, 8, 0]);
    expect(orders.slice(-50)).toEqual(Array.from({ length: 50 }, () => 1));
    const ofFolios = new Set<number>(folios.map(({ address }) => address));
    const others = [...host.preserved].filter((key) => !ofFolios.has(Number.parseInt(key, 16)));
    expect(others.every((key) => key.endsWith('/0'))).toBe(true);
    const tables = 1 + 1 + 2 + 1 + 2 + 50; // blob, FLB page, blocks of sessions and of files
    const lists = 1 + 1 + 65 + 50; // memfds with folios; each list is a page and a chunk
    expect(others).toHaveLength(tables + 119 + 2 * lists);
    expect(host.allocatedPages).toBe(host.shards.reduce((sum, { pages }) => sum + pages, 0));
  });

  it('names the digest of each memfd, which is that of the bytes in memory', async () => {
    const { host, read, orderAt } = shared;
    const { digests } = await host.restore(host.blob());
    expect(driver.digests?.(host.state)).toEqual(digests);
    expect(Object.keys(digests)).toHaveLength(119);
    expect(Object.keys(digests).slice(0, 2)).toEqual([
      'memfd vm%200%2F%C3%A4/7',
      'memfd vm%200%2F%C3%A4/18369602397145054944',
    ]);
    for (const { token, memfd } of read.sessions[0]?.files ?? []) {
      if (memfd === undefined) throw new Error('no memfd');
      const content = new Uint8Array(memfd.size);
      for (const { offset, bytes } of memfdExtents(host.memory, memfd, orderAt)) content.set(bytes, offset);
      const digest = createHash('sha256').update(content).digest('hex');
      expect(digests[`memfd vm%200%2F%C3%A4/${token}`]).toBe(digest);
      expect(content.length === 0 || memfd.folios.length === 0 || content.some((byte) => byte !== 0)).toBe(true);
    }
  });

  it('has zeros behind the end of a file whose last page is used in part', async () => {
    const { host, read } = shared;
    const last = read.sessions[0]?.files[1]?.memfd?.folios.at(-1);
    const page = host.memory.read(last?.address ?? host.memory.base, PAGE);
    expect(page.subarray(50_001 % PAGE).every((byte) => byte === 0)).toBe(true);
    expect(page.subarray(0, 50_001 % PAGE).some((byte) => byte !== 0)).toBe(true);
  });

  it('copies while the guest runs; the position and the last page follow when it is frozen', async () => {
    const host = new SmallHost(driver, { sessions: 1, memfds: 1, size: '12K', pos: 5 });
    await host.prepare();
    const before = host.preservedContent();
    await host.freeze();
    const changed = [...host.preservedContent()].filter(([key, bytes]) => !before.get(key)?.equals(bytes));
    expect(changed).toHaveLength(2);
    host.serialize();
    const { digest } = await host.restore(host.blob());
    expect(digest).toBe(host.snapshotDigest());
  });

  it('of no sessions points to none', async () => {
    const { read } = await handedOver({ sessions: 0, testFlbs: true });
    expect(read).toMatchObject({ sessions: [], sessionBlocks: [], flbs: [] });
  });

  it('is not restored from a file of another handler, nor from a damaged table', async () => {
    const { host, read } = await handedOver(SMALL);
    const block = read.sessions[0]?.blocks[0] ?? host.memory.base;
    host.memory.write(physicalAddress(block + 16), new TextEncoder().encode('vfio-v1\0'));
    await expect(host.restore(host.blob())).rejects.toMatchObject({
      code: 'KHO_ENOENT',
      message: "no handler here for 'vfio-v1', token 0 of session 'vm'",
    });
    host.memory.writeU64(physicalAddress(block + 8), 64n);
    await expect(host.restore(host.blob())).rejects.toMatchObject({ code: 'KHO_EIMAGE' });
  });

  it('notices a byte of content that changed', async () => {
    const { host, read } = await handedOver(SMALL);
    const folio = read.sessions[0]?.files[1]?.memfd?.folios[1]?.address ?? host.memory.base;
    host.memory.write(folio, Uint8Array.of((host.memory.read(folio, 1)[0] ?? 0) ^ 1));
    const { digest, unclaimed } = await host.restore(host.blob());
    expect(digest).not.toBe(host.snapshotDigest());
    expect([...unclaimed]).toEqual([]);
  });
});
