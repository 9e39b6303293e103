import { type Document, isAlias, isMap, isPair, isScalar, isSeq, LineCounter, parseDocument, visit } from 'yaml';
import { fieldPath, type ScenarioProblem } from './scenario-problem.js';

/** A line and a column, both from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** A YAML file as plain values, which still knows where each of them stands. */
export class ScenarioDocument {
  readonly value: unknown;
  /** What is wrong with the YAML itself; `value` is then not to be used. */
  readonly problems: readonly ScenarioProblem[];
  readonly #document: Document;
  readonly #lines = new LineCounter();

  constructor(text: string) {
    // Keys are strings in a scenario (`1:` would be a number), and the library must not print warnings itself.
    this.#document = parseDocument(text, { lineCounter: this.#lines, stringKeys: true, logLevel: 'error' });
    const problems: ScenarioProblem[] = [];
    const report = (what: string, offset: number) =>
      problems.push({ what, field: this.#fieldAt(offset), ...this.#position(offset) });

    for (const error of [...this.#document.errors, ...this.#document.warnings]) {
      report(yamlMessage(error), error.pos[0]);
    }
    visit(this.#document, {
      Alias: (_, alias) => {
        if (alias.resolve(this.#document) === undefined) {
          report(`there is no anchor '&${alias.source}' before '*${alias.source}'`, alias.range?.[0] ?? 0);
        }
      },
    });
    if (problems.length === 0) {
      try {
        this.value = this.#document.toJS();
      } catch (error) {
        // The library's own guard against aliases that multiply ("a billion laughs").
        report(`the aliases cannot be expanded: ${error instanceof Error ? error.message : String(error)}`, 0);
      }
    }
    this.problems = problems;
  }

  /**
   * Where the value at `path` stands, or its key with `of: 'key'`. For what is missing, where the nearest thing around
   * it stands.
   */
  locate(path: readonly PropertyKey[], of: 'key' | 'value' = 'value'): Position {
    let node: unknown = this.#document.contents;
    let offset = offsetOf(node) ?? 0;
    for (const [depth, key] of path.entries()) {
      const collection = isAlias(node) ? node.resolve(this.#document) : node;
      let keyOffset: number | undefined;
      if (isMap(collection)) {
        const pair = collection.items.find(
          (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(key),
        );
        keyOffset = offsetOf(pair?.key);
        node = pair?.value;
      } else {
        node = isSeq(collection) && typeof key === 'number' ? collection.items[key] : undefined;
      }
      const wantsKey = of === 'key' && depth === path.length - 1;
      const next = wantsKey ? (keyOffset ?? offsetOf(node)) : (offsetOf(node) ?? keyOffset);
      if (next === undefined) break;
      offset = next;
    }
    return this.#position(offset);
  }

  /** A problem with the value at `path`, or with its key. */
  problem(what: string, path: readonly PropertyKey[], of: 'key' | 'value' = 'value'): ScenarioProblem {
    return { what, field: fieldPath(path), ...this.locate(path, of) };
  }

  /** The path of the field whose key stands at `offset`; empty if none does. */
  #fieldAt(offset: number): string {
    let field = '';
    visit(this.#document, {
      Pair: (_, pair, ancestors) => {
        if (offsetOf(pair.key) !== offset) return undefined;
        const nodes = [...ancestors, pair];
        const path = nodes.flatMap((node, depth): PropertyKey[] => {
          if (isPair(node)) return isScalar(node.key) ? [String(node.key.value)] : [];
          return isSeq(node) ? [node.items.indexOf(nodes[depth + 1])] : [];
        });
        field = fieldPath(path);
        return visit.BREAK;
      },
    });
    return field;
  }

  #position(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }
}

function offsetOf(node: unknown): number | undefined {
  if (typeof node !== 'object' || node === null || !('range' in node) || !Array.isArray(node.range)) return undefined;
  const [start] = node.range;
  return typeof start === 'number' ? start : undefined;
}

/** The library's message without its position and source excerpt, which stand elsewhere in ours. */
function yamlMessage(error: { code: string; message: string }): string {
  if (error.code === 'DUPLICATE_KEY') return 'this field is there twice; keep one of them';
  if (error.code === 'MULTIPLE_DOCS') return "a second YAML document begins here ('---'); a scenario is one";
  const [summary] = error.message.split(/ at line \d+, column \d+/);
  return `not valid YAML: ${summary}`;
}
