import { KhoError } from '../errors.js';

/** One thing that is wrong in a scenario file. */
export interface ScenarioProblem {
  /** What was found and what would be right. */
  readonly what: string;
  /** Path of the field, `drivers[0].use`; empty for the file as a whole. */
  readonly field: string;
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
}

/** A path as people write it: `drivers[0].use`. */
export function fieldPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text === '' ? String(key) : `${text}.${String(key)}`;
  }, '');
}

/** KHO_ESCENARIO: one line a problem, in the order of the file. The details are those of the first. */
export function scenarioError(file: string, problems: readonly ScenarioProblem[]): KhoError {
  const inOrder = [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
  const [{ line, column, field }] = inOrder;
  const lines = inOrder.map((problem) => {
    const where = `${file}:${problem.line}:${problem.column}`;
    return `${problem.what} (${problem.field === '' ? where : `${where}, ${problem.field}`})`;
  });
  return new KhoError('KHO_ESCENARIO', lines.join('\n'), { file, line, column, ...(field !== '' && { field }) });
}
