import { CALLS } from './calls.js';
import type { Operation, Peer, Sequence } from './peer.js';

/** Where two peers differ first. */
export interface Divergence {
  readonly sequence: Sequence;
  /** The operation of the sequence. */
  readonly index: number;
  /** What each said of it. */
  readonly said: readonly [string, string];
}

/** Runs sequences on two peers at once; for each, where they differ first, or undefined. */
export async function compare(
  [first, second]: readonly [Peer, Peer],
  sequences: readonly Sequence[],
): Promise<(Divergence | undefined)[]> {
  const [ours, theirs] = await Promise.all([first.run(sequences), second.run(sequences)]);
  return sequences.map((sequence, number) => {
    const index = sequence.operations.findIndex((_, at) => ours[number][at] !== theirs[number][at]);
    if (index < 0) return undefined;
    return { sequence, index, said: [ours[number][index] ?? 'nothing', theirs[number][index] ?? 'nothing'] };
  });
}

/**
 * A sequence as short as can be found that the peers differ in, with arguments as small as can be found. Pieces are left out,
 * ever shorter ones, as long as a difference remains, whichever it is; in the end no call can be left out.
 */
export async function shrink(peers: readonly [Peer, Peer], divergence: Divergence): Promise<Divergence> {
  let best = cut(divergence);
  /** Whether the peers differ with other operations, which are the best then. */
  const differs = async (operations: readonly Operation[]): Promise<boolean> => {
    const [found] = await compare(peers, [{ ...best.sequence, operations }]);
    if (found !== undefined) best = cut(found);
    return found !== undefined;
  };
  const leaveOut = async (length: number): Promise<boolean> => {
    let any = false;
    for (let start = 0; start < best.sequence.operations.length; ) {
      if (await differs(best.sequence.operations.toSpliced(start, length))) any = true;
      else start += length;
    }
    return any;
  };
  for (let length = best.sequence.operations.length; length > 1; length = Math.ceil(length / 2)) await leaveOut(length);
  while (await leaveOut(1));
  while ((await makeSmaller(() => best.sequence.operations, differs)) || (await leaveOut(1)));
  return best;
}

/** Tries every argument smaller: less by another argument, 0, half, or without its lower half of bits. */
async function makeSmaller(
  operations: () => readonly Operation[],
  differs: (operations: readonly Operation[]) => Promise<boolean>,
): Promise<boolean> {
  let any = false;
  // All that is as large as some argument, by as much: what lies together stays together.
  for (const shift of new Set(operations().flatMap(({ args }) => args.filter((value) => value > 1)))) {
    const shifted = operations().map(({ call, args }) => ({
      call,
      args: args.map((value) => (value < shift ? value : value - shift)),
    }));
    if (isValid(shifted) && (await differs(shifted))) any = true;
  }
  for (let index = 0; index < operations().length; index++) {
    for (let position = 0; position < operations()[index].args.length; position++) {
      const { call, args } = operations()[index];
      for (const smaller of smallerThan(args[position])) {
        const changed = operations().with(index, { call, args: args.with(position, smaller) });
        if (!isValid(changed) || !(await differs(changed))) continue;
        any = true;
        break;
      }
      if (index >= operations().length) break; // it differs earlier now
    }
  }
  return any;
}

/** Trimming to multiples of 0 is refused here, and takes all memory away there. */
function isValid(operations: readonly Operation[]): boolean {
  return operations.every(({ call, args }) =>
    args.every((value, index) => value > 0 || CALLS[call].kinds[index] !== 'trim'),
  );
}

function smallerThan(value: number): number[] {
  const rounded = value - (value % 2 ** (Math.floor(Math.log2(Math.max(value, 1)) / 2) + 1));
  return [...new Set([0, Math.floor(value / 2), rounded])].filter((smaller) => smaller >= 0 && smaller < value);
}

/** What comes after the divergence has no part in it. */
function cut({ sequence, index, said }: Divergence): Divergence {
  return { sequence: { ...sequence, operations: sequence.operations.slice(0, index + 1) }, index, said };
}
