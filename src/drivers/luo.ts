/**
 * luo: what the Live Update Orchestrator of Linux 7.2 hands over: sessions of memfds, and file-lifecycle-bound objects. A
 * real kernel reads it; a program there opens /dev/liveupdate, retrieves a session by name and a memfd by token.
 *
 * ```text
 *   LUO blob ─┬─▶ sessions (KHO blocks) ─▶ files of a session (KHO blocks) ─▶ memfd ─▶ list of folios ─▶ folios
 *             └─▶ FLB page
 *
 *   shard 0       the blob, the blocks of sessions, the FLB page
 *   shard 1 + n   the blocks of files of session n, and its memfds
 * ```
 *
 * As in Linux, memfds are preserved while the guest runs; `freeze` finishes what it wrote last; the tables are laid out in
 * `prepare`, and the shards fill them in, in parallel: each session its own entry and those of its files. A folio of a
 * memfd is preserved at its order, everything else as single pages.
 */
import {
  encodeKhoBlockHeaders,
  encodeLuo,
  encodeLuoFile,
  encodeLuoFlbs,
  encodeLuoSession,
  khoBlockEntryAddress,
  khoBlocks,
  LUO_COMPATIBLE,
  LUO_FILE_SIZE,
  LUO_SESSION_SIZE,
  LUO_SIZE,
  LUO_SUBTREE_NAME,
  type LuoFlb,
  type LuoReadFile,
  MEMFD_LUO_COMPATIBLE,
  readLuo,
} from '../abi/index.js';
import {
  defineDriver,
  type InstanceContext,
  KhoError,
  type MemoryWriter,
  type PhysicalAddress,
  type RestoreContext,
  type ShardAccess,
  type SubBlob,
} from '../driver.js';
import {
  cancelMemfd,
  freezeMemfd,
  memfdPages,
  type PreservedMemfd,
  preserveMemfds,
  restoreMemfd,
} from './luo-memfd.js';
import { type LuoOptions, luoOptions } from './luo-options.js';
import { preservePage, unpreservePage } from './preserved-page.js';
import { type MemfdState, SimulatedMemfd } from './simulated-memfd.js';

interface State<M extends MemfdState = MemfdState> {
  readonly liveupdateNumber: bigint;
  readonly sessions: readonly { readonly name: string; readonly memfds: readonly M[] }[];
  readonly flbs: readonly LuoFlb[];
}

/** The state before the handover, whose memfds have content to be copied. Cheap: they make it when they are asked. */
function simulate(ctx: Pick<InstanceContext<LuoOptions>, 'options' | 'random'>): State<SimulatedMemfd> {
  const { liveupdateNumber, sessions, flbs } = ctx.options;
  const seed = ctx.random().u64();
  return {
    liveupdateNumber,
    flbs,
    sessions: sessions.map(({ name, memfds }) => ({
      name,
      memfds: memfds.map((memfd) => new SimulatedMemfd(memfd, `${seed}/${name}/${memfd.token}`)),
    })),
  };
}

/** Where the tables lie, and the memfds of each session. */
interface Prepared {
  readonly blob: SubBlob;
  readonly sessionBlocks: readonly PhysicalAddress[];
  readonly flbPage: PhysicalAddress;
  readonly sessions: readonly {
    readonly fileBlocks: readonly PhysicalAddress[];
    readonly memfds: readonly PreservedMemfd[];
  }[];
}

/** The blob and the FLB page. */
const SINGLE_PAGES = 2;

export default defineDriver<LuoOptions, State, Prepared>({
  name: LUO_SUBTREE_NAME,
  compatible: LUO_COMPATIBLE,
  blob: 'raw',
  options: luoOptions,

  shards: ({ sessions }) => [
    { pages: SINGLE_PAGES + khoBlocks(LUO_SESSION_SIZE, sessions.length) },
    ...sessions.map(({ memfds }) => ({
      pages: memfds.reduce((sum, memfd) => sum + memfdPages(memfd), khoBlocks(LUO_FILE_SIZE, memfds.length)),
    })),
  ],

  create: simulate,

  prepare(ctx) {
    const { sessions } = simulate(ctx);
    const core = ctx.shard(0);
    const blob = { address: preservePage(core, ctx.memory), size: LUO_SIZE };
    const flbPage = preservePage(core, ctx.memory);
    const sessionBlocks = layOutBlocks(core, ctx.memory, LUO_SESSION_SIZE, sessions.length);
    return {
      blob,
      flbPage,
      sessionBlocks,
      sessions: sessions.map(({ memfds }, session) => {
        const shard = ctx.shard(1 + session);
        // Folios first: single pages fit everywhere, and folios only where nothing lies yet.
        const preserved = preserveMemfds(shard, ctx.memory, memfds);
        return { memfds: preserved, fileBlocks: layOutBlocks(shard, ctx.memory, LUO_FILE_SIZE, memfds.length) };
      }),
    };
  },

  freeze(ctx) {
    for (const [session, { memfds }] of simulate(ctx).sessions.entries()) {
      for (const [file, memfd] of memfds.entries())
        freezeMemfd(ctx, ctx.prepared.sessions[session].memfds[file], memfd);
    }
  },

  serialize(ctx, shard) {
    const { options, prepared, memory } = ctx;
    if (shard === 0) {
      const { liveupdateNumber, flbs } = options;
      const [sessions] = prepared.sessionBlocks;
      memory.write(prepared.flbPage, encodeLuoFlbs(flbs));
      memory.write(prepared.blob.address, encodeLuo({ liveupdateNumber, sessions, flbs: prepared.flbPage }));
      return;
    }
    const session = shard - 1;
    const { name, memfds } = options.sessions[session];
    const { fileBlocks, memfds: preserved } = prepared.sessions[session];
    memory.write(
      khoBlockEntryAddress(prepared.sessionBlocks, LUO_SESSION_SIZE, session),
      encodeLuoSession({ name, files: fileBlocks[0], count: memfds.length }),
    );
    for (const [file, { token }] of memfds.entries()) {
      memory.write(
        khoBlockEntryAddress(fileBlocks, LUO_FILE_SIZE, file),
        encodeLuoFile({ compatible: MEMFD_LUO_COMPATIBLE, data: BigInt(preserved[file].address), token }),
      );
    }
  },

  cancel(ctx) {
    const { prepared } = ctx;
    if (prepared === undefined) return;
    for (const [session, { memfds }] of simulate(ctx).sessions.entries()) {
      const { memfds: preserved, fileBlocks } = prepared.sessions[session];
      for (const [file, memfd] of memfds.entries()) cancelMemfd(ctx, preserved[file], memfd);
      for (const block of fileBlocks) unpreservePage(ctx, block);
    }
    for (const page of [...prepared.sessionBlocks, prepared.flbPage, prepared.blob.address]) unpreservePage(ctx, page);
  },

  restore(ctx) {
    const { liveupdateNumber, sessions, sessionBlocks, flbs, flbPage } = readLuo(
      ctx.memory,
      ctx.blob.address,
      ctx.blob.size,
    );
    const restored = sessions.map(({ name, files, blocks }) => {
      const memfds = files.map((file) => restoreFile(ctx, name, file));
      for (const address of blocks) ctx.discard({ address, order: 0 });
      return { name, memfds };
    });
    for (const address of sessionBlocks) ctx.discard({ address, order: 0 });
    if (flbPage !== undefined) ctx.claim({ address: flbPage, order: 0 }); // Linux keeps it as long as it runs
    return { liveupdateNumber, sessions: restored, flbs };
  },

  snapshot: ({ liveupdateNumber, sessions, flbs }) => ({
    liveupdateNumber,
    sessions: sessions.map(({ name, memfds }) => ({
      name,
      memfds: memfds.map(({ token, pos, size, seals, folios, sha256 }) => ({
        token,
        pos,
        size,
        seals,
        folios: Uint32Array.from(folios.flatMap(({ index, order }) => [index, order])),
        sha256,
      })),
    })),
    flbs,
  }),

  digests: ({ sessions }) =>
    Object.fromEntries(
      sessions.flatMap(({ name, memfds }) =>
        memfds.map(({ token, sha256 }) => [`memfd ${percentEncode(name)}/${token}`, sha256]),
      ),
    ),
});

/** Pages for a chain of blocks with `count` entries, linked; the entries come later. */
function layOutBlocks(shard: ShardAccess, memory: MemoryWriter, entrySize: number, count: number): PhysicalAddress[] {
  const blocks = Array.from({ length: khoBlocks(entrySize, count) }, () => preservePage(shard, memory));
  const headers = encodeKhoBlockHeaders(blocks, entrySize, count);
  for (const [index, header] of headers.entries()) memory.write(blocks[index], header);
  return blocks;
}

function restoreFile(ctx: RestoreContext, session: string, { compatible, token, memfd }: LuoReadFile): MemfdState {
  if (memfd !== undefined) return restoreMemfd(ctx, token, memfd);
  throw new KhoError('KHO_ENOENT', `no handler here for '${compatible}', token ${token} of session '${session}'`);
}

/** What is not a letter, a digit, `.`, `_` or `-` becomes `%` and the two digits of each of its bytes. */
function percentEncode(name: string): string {
  return name.replace(/[^A-Za-z0-9._-]/gu, (character) =>
    [...new TextEncoder().encode(character)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}
