import { listed } from './scenario-schema.js';
import { didYouMean } from './suggest.js';

/** What the order of drivers depends on. */
export interface OrderedEntry {
  /** The driver's name, where it is known without loading the module: that of a built-in driver. */
  readonly name?: string;
  readonly after: readonly string[];
}

/** What is wrong with one name in an entry's `after`. */
export interface OrderProblem {
  readonly entry: number;
  /** Index into the entry's `after`. */
  readonly index: number;
  readonly what: string;
}

/**
 * Names in `after` that no entry has, and dependency circles; each circle once, at the name that closes it.
 *
 * A module of the user's own has a name that only loading it tells. While there is one, an unknown name may be its own:
 * then the coordinator decides, which checks all of this again. `others` are names that may be there beside the entries.
 */
export function findOrderProblems(entries: readonly OrderedEntry[], others: readonly string[] = []): OrderProblem[] {
  const names = new Set([...entries.flatMap(({ name }) => name ?? []), ...others]);
  const allKnown = entries.every(({ name }) => name !== undefined);
  const problems: OrderProblem[] = [];
  // Entries of the same driver add up, so edges belong to names.
  const edges = new Map<string, { entry: number; index: number; to: string }[]>();

  for (const [entry, { name, after }] of entries.entries()) {
    for (const [index, to] of after.entries()) {
      if (!names.has(to)) {
        if (allKnown) {
          const hint = didYouMean(to, names) || `; expected ${listed([...names])}`;
          problems.push({ entry, index, what: `there is no driver '${to}' in this scenario${hint}` });
        }
      } else if (name !== undefined) {
        edges.set(name, [...(edges.get(name) ?? []), { entry, index, to }]);
      }
    }
  }

  const path: string[] = [];
  const done = new Set<string>();
  const follow = (name: string) => {
    path.push(name);
    for (const { entry, index, to } of edges.get(name) ?? []) {
      const begin = path.indexOf(to);
      if (begin >= 0) {
        const circle = [...path.slice(begin), to].join(' → ');
        const what = begin === path.length - 1 ? `'${to}' cannot come after itself` : `dependency circle ${circle}`;
        problems.push({ entry, index, what: `${what}; remove one of these from 'after'` });
      } else if (!done.has(to)) {
        follow(to);
      }
    }
    path.pop();
    done.add(name);
  };
  for (const name of names) if (!done.has(name)) follow(name);
  return problems;
}
