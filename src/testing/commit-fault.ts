import { resourceLimits, threadId } from 'node:worker_threads';
import { physicalAddress } from '../memblock/index.js';
import type { DmaWindow, MemoryWriter, PrepareContext, RestoreContext, ShardAccess } from '../workers/driver.js';
import type { Fault } from './fault.js';
import { FAULT_STATES, type FaultBoard } from './fault-board.js';

/** The calls that some callback's context has; a call that this one does not have is the fault's own error. */
export type AnyContext = Partial<ShardAccess> &
  Partial<Pick<PrepareContext<unknown, unknown>, 'shard'>> &
  Partial<Pick<RestoreContext, 'claim' | 'claimFolio' | 'discard'>> & { readonly memory?: Partial<MemoryWriter> };

/** In the image of the running kernel: a page that no driver was ever granted. */
const FOREIGN = { address: physicalAddress(16 * 2 ** 20), pages: 1 };
/** More than any shard declares; who gets so far was not stopped. */
const BYTES_STEP = 16 * 1024;
const BYTES_STEPS = 8 * 1024;
const MANY = 1_000_000;
/** A limit of old space above which filling the heap would harm the machine rather than the thread. */
const HEAP_LIMIT_MB = 256;

/** Of a page, so many bytes change. */
const LATE_BYTES = 64;
/** How long a callback goes on after it has asked for an abort: in that time the main thread mostly does it. */
const ABORT_MS = 5;

const never = (): Promise<never> => new Promise(() => {});

/**
 * Does what a fault says, on the driver's own thread. It may throw, reject, or not come back at all; if it returns, the
 * harm shows elsewhere, and the callback goes on. `window` is that of the instance's device, if it has one; `shards` is how
 * many the instance has.
 */
export function commitFault(
  fault: Fault,
  context: AnyContext,
  board: FaultBoard,
  { window, shards }: { readonly window: DmaWindow | undefined; readonly shards: number },
): unknown {
  const { fault: kind, callback, driver } = fault;
  const text = `injected: ${kind} in ${callback} of ${driver}`;
  switch (kind) {
    case 'throw':
      throw new Error(text);
    case 'reject':
      return new Promise((_resolve, reject) => setTimeout(reject, 1, new Error(text)));
    case 'hang':
      board.announce(FAULT_STATES.hangs, threadId);
      for (;;);
    case 'never':
      board.announce(FAULT_STATES.hangs, threadId);
      return never();
    case 'exit':
      return process.exit(3);
    case 'terminate':
      board.announce(FAULT_STATES.awaitsEnd, threadId);
      return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    case 'abort':
      board.announce(FAULT_STATES.aborts, threadId);
      return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ABORT_MS);
    case 'rejection':
      void Promise.reject(new Error(text));
      return never();
    case 'uncaught':
      setTimeout(() => {
        throw new Error(text);
      }, 0);
      return never();
    case 'out of memory':
      return fillHeap();
    case 'not cloneable':
    case 'unclaimed':
    case 'double claim':
      return undefined; // what the callback returns, or what its context does: see wrapDriver()
    case 'late write':
      if (window === undefined) throw new Error(`${text}: only a hosted driver that has preserved pages can do it`);
      return window.fill(0, Math.min(window.size, LATE_BYTES), 0xee);
    default:
      return misuse(fault, context, shards);
  }
}

/** What the context's calls must refuse, or finalize must find. */
function misuse({ fault: kind, callback, times = 1 }: Fault, context: AnyContext, shards: number): void {
  const { root, memory } = context;
  switch (kind) {
    case 'too many bytes': {
      const node = root?.node('too-many-bytes');
      const bytes = new Uint8Array(BYTES_STEP);
      for (let step = 0; step < BYTES_STEPS; step++) node?.bytes(`step${step}`, bytes);
      throw notStopped(kind);
    }
    case 'too many nodes':
      for (let step = 0; step < MANY; step++) root?.node(`too-many-nodes${step}`);
      throw notStopped(kind);
    case 'too many pages':
      for (let step = 0; step < MANY; step++) context.alloc?.(1);
      throw notStopped(kind);
    case 'foreign free':
      context.free?.(FOREIGN);
      throw notStopped(kind);
    case 'foreign unpreserve':
      context.unpreserve?.(FOREIGN);
      throw notStopped(kind);
    case 'foreign write':
      memory?.write?.(FOREIGN.address, new Uint8Array(1));
      throw notStopped(kind);
    case 'collision':
      root?.u32('collision', 1);
      // In serialize the instance's other shards come by here too, if it happens more than once.
      if (callback !== 'serialize') otherRoot(context)?.u32('collision', 2);
      else if (times < 2 || shards < 2) root?.u32('collision', 2);
      return;
    case 'sibling names':
      root?.node('sibling').flag('plain');
      root?.node('sibling@1').flag('addressed');
      return;
    default:
  }
}

function otherRoot(context: AnyContext) {
  try {
    return context.shard?.(1).root ?? context.root;
  } catch {
    return context.root; // it has one shard only: then the property is there twice at once
  }
}

function fillHeap(): never {
  const limit = resourceLimits.maxOldGenerationSizeMb ?? Number.POSITIVE_INFINITY;
  if (limit > HEAP_LIMIT_MB) {
    throw new Error(
      `the fault 'out of memory' needs resourceLimits of at most ${HEAP_LIMIT_MB} MiB (maxOldGenerationSizeMb is ${limit})`,
    );
  }
  const hog: unknown[][] = [];
  for (;;) hog.push(new Array(10_000).fill(hog.length));
}

/** A fault that khorus let through: the text is looked for. */
export const NOT_STOPPED = 'khorus did not stop it';

function notStopped(kind: string): Error {
  return new Error(`${kind}: ${NOT_STOPPED}`);
}
