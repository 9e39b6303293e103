import { KhoError } from '../errors.js';

/** The driver callbacks that get a context; `early` is what a hosted driver does between them. */
export type CallbackPhase =
  | 'create'
  | 'prepare'
  | 'early'
  | 'update'
  | 'shutdown'
  | 'freeze'
  | 'serialize'
  | 'unfreeze'
  | 'cancel'
  | 'restore'
  | 'finish';

const WRITE_NODES = [
  ...(['node', 'has', 'remove', 'replace', 'name'] as const),
  ...(['u32', 'u64', 'u32s', 'u64s', 'string', 'bytes', 'flag'] as const),
] as const;
const ALLOCATE = ['alloc', 'allocFolio', 'allocGuest', 'free', 'preserve', 'unpreserve'] as const;
const READ = ['memory.read'] as const;
const WRITE = ['memory.write'] as const;

/** A call that a context offers in some phase. */
export type ContextCall =
  | (typeof WRITE_NODES)[number]
  | (typeof ALLOCATE)[number]
  | (typeof READ)[number]
  | (typeof WRITE)[number]
  | 'shard'
  | 'early'
  | 'dma'
  | 'claim'
  | 'discard';

/** Which calls each phase allows; everything else is KHO_EPERM. */
const ALLOWED: Record<CallbackPhase, ReadonlySet<ContextCall>> = {
  create: new Set(),
  prepare: new Set([...WRITE_NODES, ...ALLOCATE, ...READ, ...WRITE, 'shard', 'early', 'dma']),
  early: new Set([...WRITE_NODES, ...ALLOCATE]),
  update: new Set([...WRITE_NODES, ...ALLOCATE, ...READ, ...WRITE, 'shard', 'early', 'dma']),
  shutdown: new Set([...READ, ...WRITE]),
  freeze: new Set([...READ, ...WRITE]),
  serialize: new Set([...WRITE_NODES, ...ALLOCATE, ...READ, ...WRITE]),
  unfreeze: new Set([...READ]),
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
  /** What a call is while the scope is not open. */
  #closed: ((call: ContextCall) => KhoError) | undefined;
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

  /** KHO_EPERM unless the callback still runs and its phase allows `call`; or what {@link close} was told. */
  check(call: ContextCall): void {
    if (this.#closed !== undefined) throw this.#closed(call).with({ phase: this.phase, call });
    if (!this.#allowed.has(call)) {
      const where = Object.entries(ALLOWED).flatMap(([phase, calls]) => (calls.has(call) ? [phase] : []));
      throw new KhoError('KHO_EPERM', `${call} is not allowed in ${this.phase}, only in ${where.join(', ')}`, {
        phase: this.phase,
        call,
      });
    }
  }

  /** Ends the callback: every later call is an error, KHO_EPERM unless another is given. */
  close(error?: (call: ContextCall) => KhoError): void {
    this.#closed =
      error ?? ((call) => new KhoError('KHO_EPERM', `${call} on a context of ${this.phase}, which has returned`));
    this.#writesNodes = false;
  }

  /** Undoes {@link close}. */
  reopen(): void {
    this.#closed = undefined;
    this.#writesNodes = this.#allowed.has('node');
  }
}
