import type { Coordinator, Handover, LifecycleCall } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import type { Random } from '../workers/index.js';

/** One call on a coordinator. */
export type ChaosStep =
  /** A call of the lifecycle; some concern single drivers. */
  | { readonly call: Exclude<LifecycleCall, 'register'>; readonly drivers?: readonly string[] }
  /** A call that is not legal now: it must be refused, and change nothing. */
  | { readonly illegal: Exclude<LifecycleCall, 'register' | 'cancel'> }
  /** A call, and `cancel()` while it is under way. */
  | { readonly call: LifecycleCall; readonly cancelled: true };

/** How a run goes about it: all in one call, or call by call. */
export type ChaosPath = 'handover' | readonly ChaosStep[];

/** `legal` by the state that the calls before have led to. */
const ILLEGAL_BEFORE = { prepare: 'serialize', freeze: 'finalize', finalize: 'prepare', jump: 'update' } as const;

/** A path for a coordinator with these drivers; `dependencies` are the names that come before each. */
export function randomPath(
  random: Random,
  drivers: readonly { readonly name: string; readonly after: readonly string[] }[],
): ChaosPath {
  if (random.oneIn(2)) return 'handover';
  const steps: ChaosStep[] = [{ call: 'prepare' }];
  if (random.oneIn(2)) steps.push({ call: 'update' });
  if (random.oneIn(2)) {
    const early = withDependencies(random, drivers);
    steps.push({ call: 'freezeEarly', drivers: early });
    if (random.oneIn(2)) steps.push({ call: 'unfreeze', drivers: early });
  }
  if (random.oneIn(2)) steps.push({ call: 'freeze' }, { call: 'serialize' });
  else steps.push({ call: 'shutdown' });
  steps.push({ call: 'finalize' }, { call: 'jump' });
  if (random.oneIn(6)) {
    const position = random.below(steps.length);
    const step = steps[position] as ChaosStep;
    const illegal = 'call' in step && step.call in ILLEGAL_BEFORE && ILLEGAL_BEFORE[step.call as 'prepare'];
    if (illegal) steps.splice(position, 0, { illegal });
  }
  if (!random.oneIn(4)) return steps;
  // Nothing can be cancelled before it is prepared, not even after a call that is not legal there.
  const begun = steps.findIndex((step) => 'call' in step && step.call === 'prepare') + 1;
  const end = begun + random.below(steps.length - begun);
  const last = steps[end];
  if (random.oneIn(2) || last === undefined || !('call' in last)) return [...steps.slice(0, end), { call: 'cancel' }];
  return [...steps.slice(0, end), { call: last.call, cancelled: true }];
}

/** A driver, and those that must be frozen before it. */
function withDependencies(
  random: Random,
  drivers: readonly { readonly name: string; readonly after: readonly string[] }[],
): string[] {
  const chosen = new Set<string>();
  const add = (name: string): void => {
    chosen.add(name);
    for (const before of drivers.find((driver) => driver.name === name)?.after ?? []) add(before);
  };
  add(drivers[random.below(drivers.length)]?.name ?? '');
  return [...chosen];
}

/** Goes the path. Undefined if it ends without a handover. Rejects with the first call that fails. */
export async function goPath(
  path: ChaosPath,
  coordinator: Coordinator,
  signal: AbortSignal,
): Promise<Handover | undefined> {
  if (path === 'handover') return await coordinator.handover({ signal });
  let handover: Handover | undefined;
  for (const step of path) {
    if ('illegal' in step) await mustRefuse(coordinator, step.illegal);
    else if ('cancelled' in step) return await cancelMeanwhile(coordinator, step.call);
    else handover = (await make(coordinator, step.call, signal, step.drivers)) ?? handover;
  }
  return handover;
}

/** Whether a path means to be rolled back. */
export function endsInCancel(path: ChaosPath): boolean {
  const last = path === 'handover' ? undefined : path.at(-1);
  return last !== undefined && 'call' in last && (last.call === 'cancel' || 'cancelled' in last);
}

export function describePath(path: ChaosPath): string {
  if (path === 'handover') return path;
  return path
    .map((step) => {
      if ('illegal' in step) return `(illegal ${step.illegal})`;
      if ('cancelled' in step) return `${step.call}, cancelled meanwhile`;
      return [step.call, ...(step.drivers ?? [])].join(' ');
    })
    .join(' > ');
}

async function make(
  coordinator: Coordinator,
  call: LifecycleCall,
  signal: AbortSignal,
  drivers: readonly string[] = [],
): Promise<Handover | undefined> {
  switch (call) {
    case 'prepare':
      await coordinator.prepare({ signal });
      return undefined;
    case 'freezeEarly':
    case 'unfreeze':
      await coordinator[call](drivers);
      return undefined;
    case 'jump':
      return await coordinator.jump();
    case 'register':
      return undefined;
    default:
      await coordinator[call]();
      return undefined;
  }
}

/** Text of a violation that a path finds itself. */
export const NOT_REFUSED = 'an illegal call was not refused';

async function mustRefuse(
  coordinator: Coordinator,
  call: Exclude<LifecycleCall, 'register' | 'cancel'>,
): Promise<void> {
  const { state } = coordinator;
  const answer = await make(coordinator, call, new AbortController().signal).then(
    () => 'done',
    (error: unknown) => KhoError.from(error).code,
  );
  if (answer !== 'KHO_EINVAL' || coordinator.state !== state) {
    throw new Error(`${NOT_REFUSED}: ${call}() in '${state}': ${answer}, and then '${coordinator.state}'`);
  }
}

/** The call may be over before it can be interrupted: what it has led to is cancelled then, or disposed of. */
async function cancelMeanwhile(coordinator: Coordinator, call: LifecycleCall): Promise<undefined> {
  const made = make(coordinator, call, new AbortController().signal);
  made.catch(() => {}); // awaited below
  await new Promise((resolve) => setImmediate(resolve));
  await coordinator.cancel().catch((error: unknown) => {
    // Too late: it is handed over, or was rolled back for another reason.
    if (KhoError.from(error).code !== 'KHO_EINVAL') throw error;
  });
  (await made)?.[Symbol.dispose]();
}
