import { type Column, columns } from '#dist/report/index.js';
import type { Fact } from './comparison.js';
import { type Goal, goalVerdict } from './goals.js';
import type { ComparisonResult, VariantResult } from './rounds.js';
import type { Spread } from './statistics.js';
import type { SuiteResult } from './suite.js';

const left = (heading: string): Column => ({ heading, align: 'left' });
const right = (heading: string): Column => ({ heading, align: 'right' });

/** Three significant digits, never an exponent. */
export function formatNumber(value: number): string {
  const decimals = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 3));
}

/** The table of one comparison, with a heading and a line that says what was left out. */
export function comparisonLines(result: ComparisonResult): string[] {
  const tail = result.show === 'tail';
  const layout = [
    left(result.unit),
    right('min'),
    right('median'),
    right(tail ? 'p99' : 'p25-p75'),
    right(tail ? 'max' : 'MAD'),
    right(`x ${result.reference}`),
    right('p25-p75'),
  ];
  const rows = result.variants.map((variant) => rowOf(variant, tail, result.verdict === 'contaminated'));
  const notes = result.variants.flatMap(({ name, notes }) => notes.map((note) => `${name}: ${note}`));
  return [result.title, ...columns(layout, rows), ...notes, roundsLine(result)];
}

function rowOf({ name, spread, ratio }: VariantResult, tail: boolean, contaminated: boolean): string[] {
  if (contaminated) return [name, '', 'contaminated', '', '', '', ''];
  if (spread === undefined) return [name, '', 'nothing', '', '', '', ''];
  return [
    name,
    formatNumber(spread.min),
    formatNumber(spread.median),
    tail ? formatNumber(spread.p99) : quartiles(spread),
    formatNumber(tail ? spread.max : spread.mad),
    ratio === undefined ? '' : formatNumber(ratio.median),
    ratio === undefined ? '' : quartiles(ratio),
  ];
}

const quartiles = ({ p25, p75 }: Spread): string => `${formatNumber(p25)}-${formatNumber(p75)}`;

function roundsLine({ rounds, contaminated, verdict }: ComparisonResult): string {
  const used = `${rounds.length - contaminated} rounds`;
  if (verdict === 'not measured') return `${used}; whether others used the machine was not measured`;
  const out = contaminated === 0 ? 'none' : String(contaminated);
  return `${used}; ${out} left out because others used the machine${verdict === 'contaminated' ? ': CONTAMINATED' : ''}`;
}

/** What follows a suite's tables: facts, goals, notes. */
export function suiteLines({ facts, goals, notes }: SuiteResult): string[] {
  const lines: string[] = [];
  if (facts.length > 0) {
    const rows = facts.map(({ name, value, unit }: Fact) => [name, formatNumber(value), unit]);
    lines.push(...columns([left('facts'), right('value'), left('unit')], rows), '');
  }
  if (goals.length > 0) {
    const layout = [left('goals'), right('measured'), right('pass'), right('aim'), left('unit'), left('verdict')];
    lines.push(...columns(layout, goals.map(goalRow)), '');
  }
  for (const note of notes) lines.push(`note: ${note}`);
  return lines;
}

function goalRow(goal: Goal): string[] {
  const sign = goal.better === 'less' ? '<=' : '>=';
  return [
    goal.name,
    goal.value === undefined ? '' : formatNumber(goal.value),
    `${sign} ${formatNumber(goal.pass)}`,
    `${sign} ${formatNumber(goal.aim)}`,
    goal.unit,
    goalVerdict(goal),
  ];
}
