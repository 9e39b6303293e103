import { KhoError } from '../errors.js';

/** The driver callbacks that get a context. */
export type CallbackPhase = 'create' | 'prepare' | 'freeze' | 'serialize' | 'cancel' | 'restore' | 'finish';

const WRITE_NODES = [
  ...(['node', 'has', 'remove', 'replace', 'name'] as const),
  ...(['u32', 'u64', 'u32s', 'u64s', 'string', 'bytes', 'flag'] as const),
] as const;
const ALLOCATE = ['alloc', 'allocFolio', 'free', 'preserve', 'unpreserve'] as const;
const READ = ['memory.read'] as const;
const WRITE = ['memory.write'] as const;

/** A call that a context offers in some phase. */
export type ContextCall =
  | (typeof WRITE_NODES)[number]
  | (typeof ALLOCATE)[number]
  | (typeof READ)[number]
  | (typeof WRITE)[number]
  | 'shard'
  | 'claim'
  | 'discard';

/** Which calls each phase allows; everything else is KHO_EPERM. */
const ALLOWED: Record<CallbackPhase, ReadonlySet<ContextCall>> = {
  create: new Set(),
  prepare: new Set([...WRITE_NODES, ...ALLOCATE, ...READ, ...WRITE, 'shard']),
  freeze: new Set([...READ, ...WRITE]),
  serialize: new Set([...WRITE_NODES, ...ALLOCATE, ...READ, ...WRITE]),
  cancel: new Set([...READ, 'free', 'unpreserve']),
  restore: new Set([...READ, 'claim', 'discard']),
  finish: new Set(),
};

/**
 * One callback from its call to its return: what it may do, and that a context kept beyond it does nothing any more.
 * Everything that a context hands out shares the scope of its callback.
 */
export class CallbackScope {
  readonly phase: CallbackPhase;
  /** Ids of property names that were checked already; shared by the callbacks of a run on one thread. */
  readonly nameIds: Map<string, number>;
  readonly #allowed: ReadonlySet<ContextCall>;
  #open = true;
  #writesNodes: boolean;

  constructor(phase: CallbackPhase, nameIds: Map<string, number> = new Map()) {
    this.phase = phase;
    this.nameIds = nameIds;
    this.#allowed = ALLOWED[phase];
    this.#writesNodes = this.#allowed.has('node');
  }

  /**
   * {@link check} for a call that writes nodes: one test of a flag, where a look into a set of names would take as long as
   * writing the property.
   */
  checkNodes(call: (typeof WRITE_NODES)[number]): void {
    if (!this.#writesNodes) this.check(call);
  }

  /** KHO_EPERM unless the callback still runs and its phase allows `call`. */
  check(call: ContextCall): void {
    if (!this.#open) {
      throw new KhoError('KHO_EPERM', `${call} on a context of ${this.phase}, which has returned`, {
        phase: this.phase,
        call,
      });
    }
    if (!this.#allowed.has(call)) {
      const where = Object.entries(ALLOWED).flatMap(([phase, calls]) => (calls.has(call) ? [phase] : []));
      throw new KhoError('KHO_EPERM', `${call} is not allowed in ${this.phase}, only in ${where.join(', ')}`, {
        phase: this.phase,
        call,
      });
    }
  }

  /** Ends the callback: every later call is an error. */
  close(): void {
    this.#open = false;
    this.#writesNodes = false;
  }
}
