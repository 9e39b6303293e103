import { ARENA_WORDS, driverRoot, Stage, type StageHandle } from '#dist/hashstage/index.js';
import type { Program } from './program.js';
import type { LoadShipped, Shipped } from './shipped.js';

/** What threads returned, by name. */
export type Results = Readonly<Record<string, unknown>>;
/** What a thread does with a stage of its own, attached to the shared one. */
export type Body = (stage: Stage, module: Shipped, received: Results) => unknown;
/** The threads that a thread awaits, and what it does then. */
export type Awaiting = readonly [after: readonly string[], body: Body];

/** A program on the shipped stage. Add one to stage-programs.ts for each new thing that threads may do to it at once. */
export interface StageProgram {
  readonly name: string;
  readonly threads: Readonly<Record<string, Body | Awaiting>>;
  check(results: Results): void;
  /** What is done to the stage before there are threads. */
  prepare?(stage: Stage): void;
  readonly options?: StageSize;
}

export type StageSize = Parameters<typeof Stage.create>[0];

/** Four name slots, so that names meet. (1024 node slots are the fewest there are.) */
export const SMALL_STAGE: StageSize = { shardCount: 2, maxBytes: 256, threads: 1, maxNames: 2 };
/** Room for three shards, and for the names of what is written there. */
export const SHARDS: StageSize = { shardCount: 3, maxBytes: 1024, threads: 3, maxNames: 4 };

export const ROOT = driverRoot(0);

/** A program on the shipped stage as the checker wants it. */
export function stageProgram(load: LoadShipped, program: StageProgram): Program<Shipped> {
  const { name, threads, check, prepare, options = SMALL_STAGE } = program;
  return {
    name,
    sharedWords: Stage.create(options).words.length,
    load,
    setup: (module) => {
      const stage = module.Stage.create(options);
      prepare?.(stage);
      return stage.handle;
    },
    threads: Object.entries(threads).map(([thread, what]) => {
      const [after, body]: Awaiting = typeof what === 'function' ? [[], what] : what;
      return {
        name: thread,
        after,
        run: (module, handle, received) => body(module.Stage.attach(handle as StageHandle), module, received),
      };
    }),
    check,
  };
}

/** Leaves so many arenas to the threads. */
export function leaveArenas(count: number): (stage: Stage) => void {
  return (stage) => {
    const { arenasAt, totalWords } = stage.geometry;
    for (let left = (totalWords - arenasAt) / ARENA_WORDS; left > count; left--) stage.allocate(ARENA_WORDS);
  };
}

/** Allocates what is left of the thread's arena. */
export function useUpArena(stage: Stage): void {
  const at = stage.allocate(1);
  const left = (ARENA_WORDS - ((at + 1) % ARENA_WORDS)) % ARENA_WORDS;
  if (left > 0) stage.allocate(left);
}

/** True if `call` throws KHO_ENOSPC. Other errors are the caller's. */
export function isFull(call: () => void): boolean {
  try {
    call();
    return false;
  } catch (error) {
    // By its code: simulated modules have a class KhoError of their own.
    if (error instanceof Error && 'code' in error && error.code === 'KHO_ENOSPC') return true;
    throw error;
  }
}

/** Two names whose records want the same slot of a small stage, whatever its hash: found by looking. */
export function wantOneSlot(slots: 'name' | 'node', prefix: string): [string, string] {
  const stage = Stage.create(SMALL_STAGE);
  const { nameSlotsAt, nameSlots, nodeSlotsAt, nodeSlots } = stage.geometry;
  const [at, count] = slots === 'name' ? [nameSlotsAt, nameSlots] : [nodeSlotsAt, nodeSlots];
  const bySlot = new Map<number, string>();
  for (let index = 0; ; index++) {
    const name = `${prefix}${index}`;
    if (slots === 'name') stage.nameId(name);
    else stage.openNode(ROOT, name);
    const slot = stage.words.subarray(at, at + count).findIndex((ref) => ref !== 0);
    const other = bySlot.get(slot);
    if (other !== undefined) return [other, name];
    bySlot.set(slot, name);
    stage.words.fill(0, at, at + count);
  }
}
