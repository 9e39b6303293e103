import { KhoError } from '../errors.js';

/** Where a coordinator is between two calls. `finish` is the successor's. */
export const LIFECYCLE_STATES = ['normal', 'prepared', 'frozen', 'serialized', 'finalized', 'handed over'] as const;
export type LifecycleState = (typeof LIFECYCLE_STATES)[number];

/** A call that moves a coordinator on, or is legal in some states alone. */
export type LifecycleCall =
  | 'register'
  | 'prepare'
  | 'update'
  | 'freezeEarly'
  | 'unfreeze'
  | 'freeze'
  | 'shutdown'
  | 'serialize'
  | 'finalize'
  | 'jump'
  | 'cancel';

/**
 * The state machine; docs/lifecycle.md draws it.
 *
 * ```text
 *   normal ──prepare──▶ prepared ──freeze──▶ frozen ──serialize──▶ serialized ──finalize──▶ finalized ──jump──▶ handed over
 *      ▲                 │  └─────────────shutdown─────────────────────▲                        │                  │
 *      └────cancel───────┴── from each state up to finalized ───────────────────────────────────┘                  │
 *      └──────────────────────────────── the handover is disposed of ──────────────────────────────────────────────┘
 * ```
 */
const TRANSITIONS: Record<LifecycleCall, { readonly from: readonly LifecycleState[]; readonly to: LifecycleState }> = {
  register: { from: ['normal'], to: 'normal' },
  prepare: { from: ['normal'], to: 'prepared' },
  update: { from: ['prepared'], to: 'prepared' },
  freezeEarly: { from: ['prepared'], to: 'prepared' },
  unfreeze: { from: ['prepared'], to: 'prepared' },
  freeze: { from: ['prepared'], to: 'frozen' },
  shutdown: { from: ['prepared'], to: 'serialized' },
  serialize: { from: ['frozen'], to: 'serialized' },
  finalize: { from: ['serialized'], to: 'finalized' },
  jump: { from: ['finalized'], to: 'handed over' },
  cancel: { from: ['prepared', 'frozen', 'serialized', 'finalized'], to: 'normal' },
};

/** Says which calls are legal, and keeps two from running at once. Main thread. */
export class Lifecycle {
  #state: LifecycleState = 'normal';
  #under: LifecycleCall | undefined;
  readonly #onChange: (from: LifecycleState, to: LifecycleState) => void;

  constructor(onChange: (from: LifecycleState, to: LifecycleState) => void = () => {}) {
    this.#onChange = onChange;
  }

  get state(): LifecycleState {
    return this.#state;
  }

  /** The call that is under way, if one is. */
  get underWay(): LifecycleCall | undefined {
    return this.#under;
  }

  /** What may be called in the present state, if nothing is under way. */
  get legal(): readonly LifecycleCall[] {
    return (Object.keys(TRANSITIONS) as LifecycleCall[]).filter((call) => TRANSITIONS[call].from.includes(this.#state));
  }

  /** KHO_EBUSY while another call is under way; KHO_EINVAL if the state does not allow it. Both say what is legal now. */
  check(call: LifecycleCall): void {
    if (this.#under !== undefined) {
      const legal = this.#under === 'cancel' ? 'nothing, until it is done' : 'cancel';
      const text = `${call}() is not legal while ${this.#under}() is under way; legal now: ${legal}`;
      throw new KhoError('KHO_EBUSY', text, { call, phase: this.#state });
    }
    if (TRANSITIONS[call].from.includes(this.#state)) return;
    const legal = this.#state === 'handed over' ? 'to dispose of the handover' : this.legal.join(', ');
    const text = `${call}() is not legal in state '${this.#state}'; legal now: ${legal}`;
    throw new KhoError('KHO_EINVAL', text, { call, phase: this.#state });
  }

  /** Runs `work` as a call; only if it succeeds is the state the call's. The errors of {@link check}, or of `work`. */
  async run<T>(call: LifecycleCall, work: () => Promise<T>): Promise<T> {
    this.check(call);
    this.#under = call;
    try {
      const result = await work();
      this.enter(TRANSITIONS[call].to);
      return result;
    } finally {
      this.#under = undefined;
    }
  }

  /** Everything was rolled back, or what was handed over was disposed of. */
  enter(state: LifecycleState): void {
    const from = this.#state;
    this.#state = state;
    if (from !== state) this.#onChange(from, state);
  }
}
