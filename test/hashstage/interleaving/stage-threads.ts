import { ok, strictEqual } from 'node:assert/strict';
import type { NodeRef, Stage } from '#dist/hashstage/index.js';
import { type Awaiting, type Body, isFull, type Results, ROOT, useUpArena } from './stage-program.js';

/** What a thread got: the ids of names, or nodes by path; and whether it got no further because the stage is full. */
export interface Got {
  readonly refs: Readonly<Record<string, number>>;
  readonly full: boolean;
}

function isGot(result: unknown): result is Got {
  return typeof result === 'object' && result !== null && 'refs' in result;
}

function get(keys: readonly string[], one: (key: string, refs: Record<string, number>) => number): Got {
  const refs: Record<string, number> = {};
  const full = isFull(() => {
    for (const key of keys) refs[key] = one(key, refs);
  });
  return { refs, full };
}

/** How many of the threads found the stage full. */
export function fullCount(results: Results): number {
  return Object.values(results).filter((result) => isGot(result) && result.full).length;
}

// -- names -------------------------------------------------------------------------------------------------------------

/** Interns names: {@link Got}. */
export function intern(...names: readonly string[]): Body {
  return (stage) => get(names, (name) => stage.nameId(name));
}

/** All names by id, and how many ids there are. */
export interface NamesSeen {
  readonly names: readonly (string | undefined)[];
  readonly count: number;
}

/** Once those threads have ended: {@link NamesSeen}. */
export function namesAfter(...threads: readonly string[]): Awaiting {
  return [threads, (stage): NamesSeen => ({ names: stage.names(), count: stage.nameCount })];
}

/** Of {@link intern} and, at the `end`, {@link namesAfter}: one id a name, the same for everybody, and nothing lost. */
export function checkNames({ end, ...results }: Results): void {
  const { names, count } = end as NamesSeen;
  const distinct = new Set<string>();
  for (const [thread, got] of Object.entries(results)) {
    if (!isGot(got)) continue;
    for (const [name, id] of Object.entries(got.refs)) {
      strictEqual(names[id], name, `${thread} got the id ${id} for '${name}', which is '${names[id]}' in the end`);
      distinct.add(name);
    }
  }
  const defined = names.filter((name) => name !== undefined);
  strictEqual(new Set(defined).size, defined.length, `a name is there twice: ${defined}`);
  for (const name of distinct) ok(defined.includes(name), `the name '${name}' is lost`);
  ok(count >= defined.length, `${count} ids were given to ${defined.length} names`);
}

// -- nodes -------------------------------------------------------------------------------------------------------------

/** Opens nodes by path, parents first: {@link Got}. */
export function openPaths(...paths: readonly string[]): Body {
  return (stage) => get(paths, (path, refs) => open(stage, path, refs));
}

/** The same, each but the first in a new arena: the one before is used up. */
export function openInNewArenas(...paths: readonly string[]): Body {
  return (stage) =>
    get(paths, (path, refs) => {
      if (path !== paths[0]) useUpArena(stage);
      return open(stage, path, refs);
    });
}

function open(stage: Stage, path: string, refs: Readonly<Record<string, NodeRef>>): NodeRef {
  const slash = path.lastIndexOf('/');
  return stage.openNode(refs[path.slice(0, slash)] ?? ROOT, path.slice(slash + 1));
}

/** By thread, then by the path that it opened: the path that the node has. */
export interface PathsSeen {
  readonly paths: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** Once those threads have ended: {@link PathsSeen}. */
export function pathsAfter(...threads: readonly string[]): Awaiting {
  const body: Body = (stage, _, received): PathsSeen => {
    const paths: Record<string, Record<string, string>> = {};
    for (const [thread, got] of Object.entries(received)) {
      if (!isGot(got)) continue;
      paths[thread] = Object.fromEntries(Object.entries(got.refs).map(([path, node]) => [path, stage.nodePath(node)]));
    }
    return { paths };
  };
  return [threads, body];
}

/** Of {@link openPaths} and, at the `end`, {@link pathsAfter}: one node a path, the same for everybody, and no other. */
export function checkPaths({ end, ...results }: Results): void {
  const { paths } = end as PathsSeen;
  const nodes = new Map<string, NodeRef>();
  for (const [thread, got] of Object.entries(results)) {
    if (!isGot(got)) continue;
    for (const [path, node] of Object.entries(got.refs)) {
      strictEqual(paths[thread]?.[path], path, `${thread} opened ${path} and got another node`);
      strictEqual(nodes.get(path) ?? node, node, `${path} is there twice`);
      nodes.set(path, node);
    }
  }
  strictEqual(new Set(nodes.values()).size, nodes.size, 'two paths have the same node');
}
