import Table from 'cli-table3';

/** One column: its heading, and to which side its cells go. */
export interface Column {
  readonly heading: string;
  readonly align: 'left' | 'right';
}

const NO_BORDERS = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
} as const;

/** Rows under their headings, in aligned columns two blanks apart; no borders, no colours, no blanks at a line's end. */
export function columns(layout: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const table = new Table({
    head: layout.map(({ heading }) => heading),
    colAligns: layout.map(({ align }) => align),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) table.push([...row]);
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
}
