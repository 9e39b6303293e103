import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** An entry of apt's sources, in the form of a one-paragraph .sources file (deb822). */
export interface SourceEntry {
  suites: readonly string[];
  components: readonly string[];
  /** All other fields as they stand: Types, URIs, Signed-By, … */
  fields: ReadonlyMap<string, string>;
}

/** The entries of binary packages in a directory such as /etc/apt: sources.list and sources.list.d, both syntaxes. */
export function readSources(directory: string): SourceEntry[] {
  const parts = join(directory, 'sources.list.d');
  const names = existsSync(parts) ? readdirSync(parts).sort() : [];
  const files = [join(directory, 'sources.list'), ...names.map((name) => join(parts, name))];
  return files.filter((file) => existsSync(file)).flatMap((file) => parseSources(file, readFileSync(file, 'utf8')));
}

/** By the file's name: `.sources` is deb822, `.list` has one entry a line, others are none of apt's. */
export function parseSources(file: string, text: string): SourceEntry[] {
  if (file.endsWith('.sources')) return text.split(/\n[ \t]*\n/).flatMap(parseParagraph);
  return file.endsWith('.list') ? text.split('\n').flatMap(parseLine) : [];
}

/** The entry with another suite instead of its own. */
export function withSuite({ components, fields }: SourceEntry, suite: string): string {
  const lines = [...fields].map(([name, value]) => `${name}: ${value}`);
  return `${[...lines, `Suites: ${suite}`, `Components: ${components.join(' ')}`].join('\n')}\n`;
}

function parseParagraph(text: string): SourceEntry[] {
  const fields = new Map<string, string>();
  let last = '';
  for (const line of text.split('\n').filter((line) => !line.startsWith('#'))) {
    const field = /^([A-Za-z-]+):[ \t]*(.*)$/.exec(line);
    if (field !== null) {
      last = field[1];
      fields.set(last, field[2]);
    } else if (/^[ \t]/.test(line) && last !== '') {
      fields.set(last, `${fields.get(last)}\n${line}`); // the value goes on
    }
  }
  return entry(fields);
}

/** `deb [name=value …] uri suite component…` */
function parseLine(line: string): SourceEntry[] {
  const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
  if (match === null) return [];
  const [, options = '', uri, suite, components] = match;
  const fields = new Map([
    ['Types', 'deb'],
    ['URIs', uri],
    ['Suites', suite],
    ['Components', components.trim()],
  ]);
  for (const option of options.split(/\s+/).filter((word) => word.includes('='))) {
    const [name, value] = option.split(/=(.*)/s);
    const field = name.replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase()); // signed-by: Signed-By
    fields.set(ONE_LINE_NAMES.get(field) ?? field, value.replaceAll(',', ' '));
  }
  return entry(fields);
}

/** Options whose name is in the plural in deb822. */
const ONE_LINE_NAMES = new Map([
  ['Arch', 'Architectures'],
  ['Lang', 'Languages'],
]);

function entry(fields: Map<string, string>): SourceEntry[] {
  const words = (name: string): string[] => (fields.get(name) ?? '').split(/\s+/).filter((word) => word !== '');
  const [suites, components, types] = [words('Suites'), words('Components'), words('Types')];
  if (!types.includes('deb') || fields.get('Enabled') === 'no' || suites.length === 0) return [];
  fields.delete('Suites');
  fields.delete('Components');
  fields.set('Types', 'deb');
  return [{ suites, components, fields }];
}
