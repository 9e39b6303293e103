import type {
  CancelContext,
  Driver,
  FreezeContext,
  InstanceContext,
  PrepareContext,
  SerializeContext,
} from '../workers/driver.js';
import type { FaultCallback } from './fault.js';
import { FaultBoard, type FaultBoardHandle } from './fault-board.js';
import { Seat } from './seat.js';
import { successorSeat } from './successor-faults.js';
import { unwrapOptions } from './wrapped-options.js';

/** Options of an instance: the driver's own, and where the faults are planned. */
class FaultyOptions {
  readonly own: unknown;
  readonly #board: FaultBoard | undefined;
  readonly #firstIndex: number;
  readonly #firstJournal: number;
  readonly #shards: number;
  readonly #seats = new Map<number, Seat>();

  constructor(driver: Driver, raw: unknown) {
    const wrapped = unwrapOptions(raw);
    const options = wrapped === undefined ? raw : wrapped.options;
    this.own = driver.options === undefined ? options : driver.options.parse(options ?? {});
    this.#board = wrapped && boardOf(wrapped.board);
    this.#firstIndex = wrapped?.firstIndex ?? 0;
    this.#firstJournal = wrapped?.firstJournal ?? 0;
    this.#shards = driver.shards?.(this.own).length ?? 1;
  }

  seat({ driver, instance, index }: InstanceContext<unknown>): Seat | undefined {
    if (this.#board === undefined) return undefined;
    let seat = this.#seats.get(index);
    if (seat === undefined) {
      const journal = this.#firstJournal + index - this.#firstIndex;
      seat = new Seat(this.#board, driver, instance, index, { journal, shards: this.#shards });
      this.#seats.set(index, seat);
    }
    return seat;
  }
}

/** A state with the seat of its instance: `snapshot` gets nothing else. */
interface SeatedState {
  readonly own: unknown;
  readonly seat: Seat | undefined;
}

type Lifecycle = 'prepare' | 'update' | 'shutdown' | 'freeze' | 'unfreeze' | 'cancel';

/**
 * The driver with a point before, in and after each of its callbacks at which a planned fault strikes. It has every
 * callback, those too that the driver has not, so that faults can strike there as well. All else is the driver's own: it
 * sees its own options and states.
 */
export function wrapDriver(inner: Driver): Driver {
  const { name, compatible, hosted, blob, digests } = inner;
  const ownOptions = (options: unknown): unknown => (options as FaultyOptions).own;
  const lifecycle =
    <C extends InstanceContext<unknown>>(callback: Lifecycle) =>
    (context: C): unknown => {
      const seat = takeSeat(context);
      const own = (inner as unknown as Partial<Record<Lifecycle, (context: C) => unknown>>)[callback];
      const work = (given: C): unknown => own?.call(inner, given);
      return seat === undefined ? work(context) : seat.run(callback, context, undefined, work);
    };
  return {
    name,
    compatible,
    ...(hosted !== undefined && { hosted }),
    ...(blob !== undefined && { blob }),
    options: { parse: (raw) => new FaultyOptions(inner, raw) },
    ...(inner.instanceName && {
      instanceName: (options, index) => inner.instanceName?.(ownOptions(options), index) ?? '',
    }),
    ...(inner.shards && { shards: (options) => inner.shards?.(ownOptions(options)) ?? [{}] }),
    create(context): SeatedState {
      const seat = takeSeat(context);
      const work = (given: InstanceContext<unknown>): unknown => inner.create(given);
      return { seat, own: seat === undefined ? work(context) : seat.run('create', context, undefined, work) };
    },
    ...lifecycles({
      prepare: lifecycle<PrepareContext<unknown, unknown>>('prepare'),
      update: lifecycle<PrepareContext<unknown, unknown>>('update'),
      shutdown: lifecycle<FreezeContext<unknown, unknown, unknown>>('shutdown'),
      freeze: lifecycle<FreezeContext<unknown, unknown, unknown>>('freeze'),
      unfreeze: lifecycle<CancelContext<unknown, unknown, unknown>>('unfreeze'),
      cancel: lifecycle<CancelContext<unknown, unknown, unknown>>('cancel'),
    }),
    serialize(context: SerializeContext<unknown, unknown, unknown>, shard) {
      const seat = takeSeat(context);
      const work = (given: typeof context): unknown => inner.serialize(given, shard);
      // Passed on whatever it is: a promise, too, is the core's to refuse.
      return (seat === undefined ? work(context) : seat.run('serialize', context, shard, work)) as undefined;
    },
    snapshot(state) {
      return onState(state, 'snapshot', (own) => inner.snapshot(own));
    },
    ...(digests && { digests: (state) => digests.call(inner, (state as SeatedState).own) }),
    restore(context) {
      const seat = successorSeat(context.driver, context.instance);
      const work = (given: typeof context): unknown => inner.restore(given);
      const own = seat === undefined ? work(context) : seat.run('restore', context, undefined, work);
      return own instanceof Promise ? own.then((value) => ({ own: value, seat })) : { own, seat };
    },
    finish(context) {
      const { own, seat } = context.state as SeatedState;
      const work = (given: typeof context): unknown => inner.finish?.(given);
      const given = { ...context, state: own };
      return (seat === undefined ? work(given) : seat.run('finish', given, undefined, work)) as undefined;
    },
  };
}

/** As the driver declares them: what they return is the core's to judge. */
function lifecycles(callbacks: Record<Lifecycle, (context: never) => unknown>): Pick<Driver, 'prepare'> {
  return callbacks as Pick<Driver, 'prepare'>;
}

/** The seat of a context's instance. From now on the context shows the driver its own options and state. */
function takeSeat(context: InstanceContext<unknown>): Seat | undefined {
  const { options } = context;
  if (!(options instanceof FaultyOptions)) return undefined;
  Object.defineProperty(context, 'options', { value: options.own });
  if ('state' in Object.getPrototypeOf(context)) {
    const state = (): unknown => Reflect.get(Object.getPrototypeOf(context), 'state', context);
    Object.defineProperty(context, 'state', { get: () => (state() as SeatedState).own });
  }
  return options.seat(context);
}

function onState<T>(state: unknown, callback: FaultCallback, work: (own: unknown) => T): T {
  const { own, seat } = state as SeatedState;
  return seat === undefined ? work(own) : seat.run(callback, {}, undefined, () => work(own));
}

const boards = new WeakMap<SharedArrayBuffer, FaultBoard>();

/** One view a board and thread: it keeps the plan that it has read. */
function boardOf(handle: FaultBoardHandle): FaultBoard {
  let board = boards.get(handle.buffer);
  if (board === undefined) {
    board = FaultBoard.attach(handle);
    boards.set(handle.buffer, board);
  }
  return board;
}
