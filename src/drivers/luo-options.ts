import * as z from 'zod';
import { LUO_FLB_MAX, LUO_SESSION_NAME_SIZE, type LuoFlb } from '../abi/index.js';
import { PAGE_SIZE } from '../driver.js';
import { luoSchema, MAX_SESSIONS, type MemfdFields, type MemfdsOption, type SessionEntry } from './luo-schema.js';
import type { FileShape } from './memfd-layout.js';

/** A memfd of a session. */
export interface MemfdOptions extends FileShape {
  /** The user's name for it; unique in its session. */
  readonly token: bigint;
  /** F_SEAL_*. */
  readonly seals: number;
  /** The file position when it is frozen. */
  readonly pos: bigint;
}

/** A session. */
export interface SessionOptions {
  readonly name: string;
  readonly memfds: readonly MemfdOptions[];
}

/** The options of the driver, complete. */
export interface LuoOptions {
  readonly liveupdateNumber: bigint;
  readonly sessions: readonly SessionOptions[];
  readonly flbs: readonly LuoFlb[];
}

/** What CONFIG_LIVEUPDATE_TEST of Linux hangs on every file handler (lib/tests/liveupdate.c). */
const TEST_FLBS = Array.from({ length: 3 }, (_, index) => ({
  compatible: `liveupdate-test-flb-v${index}`,
  data: 0xfeedf00dcafebee0n + BigInt(index),
  count: undefined,
}));

type MemfdDefaults = Omit<MemfdOptions, 'token'>;
const DEFAULTS: MemfdDefaults = { size: 2 ** 16, order: 0, holes: 0, seals: 0, pos: 0n };

/**
 * Options from a scenario. What is said of memfds at the top holds for every session, and what a session says for each of
 * its memfds, unless it says otherwise itself.
 */
export const luoOptions = luoSchema.transform((given, context): LuoOptions => {
  const bad = (message: string, ...path: PropertyKey[]) => context.addIssue({ code: 'custom', message, path });
  const defaults = inherit(DEFAULTS, given);
  const wanted = given.sessions ?? 2;
  const entries: readonly SessionEntry[] = typeof wanted === 'number' ? unnamed(wanted) : wanted;
  const sessions: SessionOptions[] = [];
  for (const [index, entry] of entries.entries()) {
    const { name, count } = entry;
    const memfds = expand(entry.memfds ?? given.memfds ?? 2, inherit(defaults, entry));
    for (const problem of problemsOf(memfds)) bad(problem, 'sessions', index);
    const names = count === undefined ? [name] : numbered(name, count);
    sessions.push(...names.map((each) => ({ name: each, memfds })));
  }
  for (const problem of problemsOfNames(sessions)) bad(problem, 'sessions');

  const files = sessions.reduce((sum, { memfds: { length } }) => sum + length, 0);
  const flbs = [...given.flbs, ...(given.testFlbs ? TEST_FLBS : [])];
  const twice = firstDuplicate(flbs.map(({ compatible }) => compatible));
  if (twice !== undefined) bad(`there are two FLBs '${twice}'`, 'flbs');
  if (flbs.length > LUO_FLB_MAX) bad(`${flbs.length} FLBs; LUO has room for ${LUO_FLB_MAX}`, 'flbs');
  if (context.issues.length > 0) return z.NEVER;
  return {
    liveupdateNumber: given.liveupdateNumber,
    sessions,
    flbs: flbs
      .map(({ compatible, data, count = files }) => ({ compatible, data, count: BigInt(count) }))
      .filter(({ count }) => count > 0n), // Linux hands over none that no file depends on
  };
});

function unnamed(count: number): SessionEntry[] {
  return count === 0 ? [] : [{ name: 'session', count }];
}

function inherit(outer: MemfdDefaults, own: MemfdFields): MemfdDefaults {
  return {
    size: own.size ?? outer.size,
    order: own.order ?? outer.order,
    holes: own.holes ?? outer.holes,
    seals: own.seals ?? outer.seals,
    pos: own.pos ?? outer.pos,
  };
}

function expand(memfds: NonNullable<MemfdsOption>, defaults: MemfdDefaults): MemfdOptions[] {
  const entries = typeof memfds === 'number' ? (memfds === 0 ? [] : [{ token: 0n, count: memfds }]) : memfds;
  return entries.flatMap((entry) =>
    Array.from({ length: entry.count ?? 1 }, (_, position) => ({
      ...inherit(defaults, entry),
      token: entry.token + BigInt(position),
    })),
  );
}

function* problemsOf(memfds: readonly MemfdOptions[]): Generator<string> {
  const twice = firstDuplicate(memfds.map(({ token }) => token));
  if (twice !== undefined) yield `there are two memfds with token ${twice}`;
  const last = memfds.at(-1);
  if (last !== undefined && last.token >= 2n ** 64n) yield `token ${last.token} does not fit into 64 bits`;
  for (const { token, size, holes } of memfds) {
    if (typeof holes === 'number') continue;
    const end = Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    const outside = holes.find((hole) => hole.at + hole.size > end);
    if (outside === undefined) continue;
    yield `the hole at ${outside.at} of memfd ${token} ends beyond its last page, which ends at ${end}`;
  }
}

function* problemsOfNames(sessions: readonly SessionOptions[]): Generator<string> {
  if (sessions.length > MAX_SESSIONS) yield `${sessions.length} sessions; at most ${MAX_SESSIONS}`;
  const twice = firstDuplicate(sessions.map(({ name }) => name));
  if (twice !== undefined) yield `there are two sessions named '${twice}'`;
  const long = sessions.find(({ name }) => new TextEncoder().encode(name).length >= LUO_SESSION_NAME_SIZE);
  if (long !== undefined) yield `the name '${long.name}' has more than ${LUO_SESSION_NAME_SIZE - 1} bytes`;
}

function numbered(name: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${name}${index}`);
}

function firstDuplicate<T>(values: readonly T[]): T | undefined {
  const met = new Set<T>();
  return values.find((value) => met.has(value) || !met.add(value));
}
