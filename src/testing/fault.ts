/** The callbacks of a driver in which a fault can be injected. */
export const FAULT_CALLBACKS = [
  'create',
  'prepare',
  'update',
  'shutdown',
  'freeze',
  'serialize',
  'snapshot',
  'unfreeze',
  'cancel',
  'restore',
  'finish',
] as const;
export type FaultCallback = (typeof FAULT_CALLBACKS)[number];

/** Callbacks that return nothing to wait for: a promise of theirs is an error, or a state like any other. */
const SYNCHRONOUS: ReadonlySet<FaultCallback> = new Set(['create', 'serialize', 'snapshot']);
/** Callbacks of the next kernel, where there is nothing left to roll back to. */
export const SUCCESSOR_CALLBACKS: ReadonlySet<FaultCallback> = new Set(['restore', 'finish']);
/** Callbacks that run only while a run is rolled back. */
export const ROLLBACK_CALLBACKS: ReadonlySet<FaultCallback> = new Set(['unfreeze', 'cancel']);
const WRITES_NODES: ReadonlySet<FaultCallback> = new Set(['prepare', 'update', 'serialize']);
const ALLOCATES: ReadonlySet<FaultCallback> = new Set(['prepare', 'serialize']);
const GIVES_BACK: ReadonlySet<FaultCallback> = new Set(['prepare', 'serialize', 'cancel']);

/**
 * What can go wrong in a callback. Each does it in the driver's own thread, as a driver would.
 *
 * | kind | what happens |
 * |---|---|
 * | `throw` | an exception |
 * | `reject` | the promise rejects, a moment later |
 * | `hang` | an endless loop: the thread does nothing else any more |
 * | `never` | a promise that never settles: the thread goes on with timers and messages |
 * | `exit` | `process.exit()` |
 * | `terminate` | the main thread terminates the worker in the middle of the callback |
 * | `rejection` | a promise that nobody looks at rejects |
 * | `uncaught` | an exception in a timer |
 * | `abort` | the embedder's AbortSignal fires, while the callback runs |
 * | `out of memory` | the heap is filled until the thread's limit ends it (needs `resourceLimits`) |
 * | `too many bytes`, `too many nodes`, `too many pages` | more than the shard declared |
 * | `foreign free`, `foreign unpreserve`, `foreign write` | of pages that are another's |
 * | `late write` | the device of a hosted driver writes to a preserved page after it was frozen |
 * | `collision` | a property that is there already, from another shard if there is one |
 * | `sibling names` | `x` and `x@1` below one node: libfdt cannot tell them apart |
 * | `not cloneable` | `prepare` returns what cannot go to another thread |
 * | `unclaimed` | `restore` claims and discards nothing |
 * | `double claim` | `restore` claims the same object twice |
 */
export const FAULT_KINDS = [
  'throw',
  'reject',
  'hang',
  'never',
  'exit',
  'terminate',
  'rejection',
  'uncaught',
  'abort',
  'out of memory',
  'too many bytes',
  'too many nodes',
  'too many pages',
  'foreign free',
  'foreign unpreserve',
  'foreign write',
  'late write',
  'collision',
  'sibling names',
  'not cloneable',
  'unclaimed',
  'double claim',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Kinds after which the thread is gone. */
export const DEADLY_KINDS: ReadonlySet<FaultKind> = new Set([
  'hang',
  'never',
  'exit',
  'terminate',
  'rejection',
  'uncaught',
  'out of memory',
]);

/** Where and what: one fault. */
export interface Fault {
  /** The driver's name. */
  readonly driver: string;
  /** The instance's name, or its index within the driver; absent for the first that comes. */
  readonly instance?: string | number;
  /** In `serialize`, which shard; absent for the first that comes. */
  readonly shard?: number;
  readonly callback: FaultCallback;
  readonly fault: FaultKind;
  /**
   * `before` the driver's own callback (the default), `after` it, or `midway`: after its first call on its context, and at
   * its end if it makes none.
   */
  readonly when?: 'before' | 'midway' | 'after';
  /** How often it happens; default 1. */
  readonly times?: number;
}

/** Why such a fault cannot exist there; undefined if it can. */
export function impossible(kind: FaultKind, callback: FaultCallback): string | undefined {
  const only = (where: ReadonlySet<FaultCallback>, what: string): string | undefined =>
    where.has(callback) ? undefined : `${callback} has no call that ${what}`;
  switch (kind) {
    case 'reject':
    case 'never':
    case 'rejection':
    case 'uncaught':
      if (!SYNCHRONOUS.has(callback)) return undefined;
      return `${callback} is synchronous: it returns before a promise or a timer can fail`;
    case 'too many bytes':
    case 'too many nodes':
    case 'collision':
    case 'sibling names':
      return only(WRITES_NODES, 'writes nodes');
    case 'too many pages':
      return only(ALLOCATES, 'allocates pages');
    case 'foreign free':
    case 'foreign unpreserve':
      return only(GIVES_BACK, 'gives pages back');
    case 'foreign write':
      return only(new Set(['prepare', 'freeze', 'shutdown', 'serialize']), 'writes memory');
    case 'late write':
      return callback === 'serialize' ? undefined : `memory that ${callback} writes is not frozen yet, or not any more`;
    case 'not cloneable':
      return callback === 'prepare' ? undefined : `what ${callback} returns stays on its thread`;
    case 'unclaimed':
    case 'double claim':
      return callback === 'restore' ? undefined : `${callback} claims nothing`;
    default:
      return undefined;
  }
}
