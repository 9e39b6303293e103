import * as z from 'zod';
import { LUO_FLB_NAME_SIZE, LUO_SESSION_NAME_SIZE, MEMFD_SEALS } from '../abi/index.js';
import { PAGE_SIZE } from '../driver.js';
import { byteSize, memorySize } from './memory-size.js';

/** The largest memfd: its list of single folios is as long as readers go. */
const MAX_SIZE = 2 ** 34;
/** Linux takes more, but each session is a shard. */
export const MAX_SESSIONS = 10_000;
const MAX_MEMFDS = 10_000;
/** The largest folio of a page cache on x86-64: 2 MiB. */
const MAX_ORDER = 9;
const MAX_POS = 2n ** 63n - 1n;

const U64_FORM = 'expected an integer of 64 bits; quote it above 2^53: "0xFEEDF00DCAFEBEE0"';
const u64 = z
  .union([z.int({ error: U64_FORM }).min(0, { error: U64_FORM }), z.string().regex(/^(0[xX][0-9a-fA-F]+|[0-9]+)$/)], {
    error: U64_FORM,
  })
  .transform((value) => BigInt(value))
  .refine((value) => value < 2n ** 64n, { error: U64_FORM });

/** Text that goes into `size` bytes with its NUL. */
const text = (size: number) =>
  z.string().refine(
    (value) => {
      const { length } = new TextEncoder().encode(value);
      return length > 0 && length < size && !value.includes('\0');
    },
    { error: `expected 1 to ${size - 1} bytes, none of them NUL` },
  );

/**
 * A number, or a list: what the value is says by which schema it is checked. A union would only say that it is neither.
 */
const numberOrList = <N, L>(number: z.ZodType<N>, list: z.ZodType<L>) =>
  z.unknown().transform((value, context): N | L => {
    const result = (Array.isArray(value) ? list : number).safeParse(value);
    if (result.success) return result.data;
    for (const { message, path } of result.error.issues) context.addIssue({ code: 'custom', message, path });
    return z.NEVER;
  });

const sealNames = Object.keys(MEMFD_SEALS) as [keyof typeof MEMFD_SEALS, ...(keyof typeof MEMFD_SEALS)[]];
const hole = z.strictObject({
  at: memorySize({ min: 0, max: MAX_SIZE }),
  size: memorySize({ min: PAGE_SIZE, max: MAX_SIZE }),
});

/** What may be said of a memfd, of a session for its memfds, and at the top for all. */
const memfdFields = {
  size: byteSize({ min: 0, max: MAX_SIZE }).optional().describe('Bytes of the file, or 64K; default 64K'),
  order: z.int().min(0).max(MAX_ORDER).optional().describe('Largest order of its folios; default 0'),
  holes: numberOrList(z.int().min(0), z.array(hole))
    .optional()
    .describe('n: every nth stretch of 2^order pages is a hole; or a list of them; default 0, none'),
  seals: z
    .array(z.enum(sealNames))
    .transform((names) => names.reduce((all, name) => all | MEMFD_SEALS[name], 0))
    .optional()
    .describe('Seals of the file; default none'),
  pos: u64
    .refine((pos) => pos <= MAX_POS, { error: `expected a file position of at most ${MAX_POS}` })
    .optional()
    .describe('Position of the file; default 0'),
};

const memfd = z.strictObject({
  token: u64.describe('Names the file in its session'),
  count: z.int().min(1).max(MAX_MEMFDS).optional().describe('So many, with tokens from `token` on'),
  ...memfdFields,
});
const memfds = numberOrList(z.int().min(0).max(MAX_MEMFDS), z.array(memfd)).optional();

const session = z.strictObject({
  name: text(LUO_SESSION_NAME_SIZE),
  count: z.int().min(1).max(MAX_SESSIONS).optional().describe('So many, named `name` and a number from 0 on'),
  memfds: memfds.describe('A number, with tokens from 0 on, or a list'),
  ...memfdFields,
});

const flb = z.strictObject({
  compatible: text(LUO_FLB_NAME_SIZE),
  data: u64,
  count: z
    .int()
    .min(1)
    .max(2 ** 31 - 1)
    .optional()
    .describe('Files that depend on it; default all'),
});

/** What a scenario may say of LUO. */
export const luoSchema = z.strictObject({
  liveupdateNumber: u64.default(1n).describe('Live updates so far, this one included'),
  sessions: numberOrList(z.int().min(0).max(MAX_SESSIONS), z.array(session))
    .optional()
    .describe('A number, named session0 and so on, or a list; default 2'),
  memfds: memfds.describe('Memfds of each session that does not say it; default 2'),
  ...memfdFields,
  flbs: z.array(flb).default([]).describe('File-lifecycle-bound objects'),
  testFlbs: z.boolean().default(false).describe('Those of a kernel with CONFIG_LIVEUPDATE_TEST'),
});
export type SessionEntry = z.output<typeof session>;
export type MemfdFields = { readonly [Field in keyof typeof memfdFields]?: z.output<(typeof memfdFields)[Field]> };
export type MemfdsOption = z.output<typeof memfds>;
