import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { loadScenario, parseScenario, planOf, type Scenario } from '#dist/cli/scenario.js';
import { KhoError } from '#dist/errors.js';

const builtIn = ['netdevsim', 'vfio-pci', 'iommu'].map((origin) => ({ origin, url: `file:///drivers/${origin}.js` }));
const directory = mkdtempSync(join(tmpdir(), 'khorus-scenario-'));
afterAll(() => rmSync(directory, { recursive: true }));

const parse = (text: string): Scenario => parseScenario(text, { file: 'host.yaml', directory, builtIn });

function errorOf(work: () => unknown): KhoError {
  try {
    work();
  } catch (error) {
    if (error instanceof KhoError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

test('a scenario with the least fields gets the documented defaults', () => {
  const scenario = parse('host: { memory: 2G, nodes: 2 }\ndrivers:\n  - { use: iommu }\n');
  expect(scenario).toEqual({
    file: 'host.yaml',
    host: { arch: 'x86_64', memory: 2 ** 31, nodes: 2, cpus: 4, cmdline: 'kho=on', release: '7.2.0-khorus' },
    profile: 'kho-v4',
    seed: 0,
    drivers: [{ module: builtIn[2], count: 1, options: {}, after: [], priority: 0, where: 'host.yaml:3' }],
  });
});

test('every field of a scenario arrives in the plan, and the command line comes before it', () => {
  const scenario = parse(`
host: { arch: x86_64, memory: 64T, nodes: 4, cpus: 3, kernelSize: 11M, cmdline: "kho=on kho_scratch=16M,256M,64M", release: 6.19.0 }
profile: kho-v4
mode: sequential
workers: 3
seed: 7
budget: { blackout: 1.5s, onOverrun: ignore }
drivers:
  - { use: netdevsim, count: 64, options: { queues: 8, names: [a, b] }, after: [iommu], priority: 5 }
  - { use: iommu }
`);
  expect(planOf(scenario)).toMatchObject({
    host: {
      memory: 2 ** 46,
      nodes: 4,
      cpus: 3,
      kernelSize: 11 * 2 ** 20,
      cmdline: 'kho=on kho_scratch=16M,256M,64M',
      release: '6.19.0',
    },
    mode: 'sequential',
    workers: 3,
    seed: 7,
    budget: { blackout: 1500, onOverrun: 'ignore' },
    drivers: [
      { count: 64, options: { queues: 8, names: ['a', 'b'] }, after: ['iommu'], priority: 5, where: 'host.yaml:9' },
      { where: 'host.yaml:10' },
    ],
  });
  expect(planOf(scenario, { mode: 'hash', workers: 1, seed: 8, blackout: 20 })).toMatchObject({
    mode: 'hash',
    workers: 1,
    seed: 8,
    budget: { blackout: 20, onOverrun: 'ignore' },
  });
});

test('without a budget there is none in the plan, and a policy on overruns is refused', () => {
  const scenario = parse('host: { memory: 2G }\ndrivers: [{ use: iommu }]\n');
  const plan = planOf(scenario);
  expect(plan).not.toHaveProperty('budget');
  expect(plan.mode).toBe('hash');
  expect(plan.workers).toBeGreaterThanOrEqual(1);
  expect(errorOf(() => planOf(scenario, { onOverrun: 'cancel' })).message).toContain('--budget 50ms');
});

const OK = 'drivers: [{ use: iommu }]';
test.each<[string, string, { line: number; column: number; field?: string }, string]>([
  [
    'an unknown field',
    `host: { memory: 2G,\n  memroy: 1G }\n${OK}`,
    { line: 2, column: 3, field: 'host.memroy' },
    "unknown field 'memroy'; did you mean 'memory'?",
  ],
  [
    'an unknown field at the top',
    `host: { memory: 2G }\n${OK}\nbugdet: 1`,
    { line: 3, column: 1, field: 'bugdet' },
    "did you mean 'budget'?",
  ],
  [
    'an unknown field of a driver',
    'host: { memory: 2G }\ndrivers:\n  - use: iommu\n    cuont: 3',
    { line: 4, column: 5, field: 'drivers[0].cuont' },
    "did you mean 'count'?",
  ],
  [
    'an unknown field unlike any',
    `host: { memory: 2G }\n${OK}\nzzzzzz: 1`,
    { line: 3, column: 1, field: 'zzzzzz' },
    'known here: host, profile, fdtMax, mode',
  ],
  [
    'a size with a wrong unit',
    `host:\n  memory: 2GB\n${OK}`,
    { line: 2, column: 11, field: 'host.memory' },
    'write 2G',
  ],
  [
    'too little memory',
    `host: { memory: 8M }\n${OK}`,
    { line: 1, column: 17, field: 'host.memory' },
    'expected 16M to 64T',
  ],
  [
    'a kernel that is not whole pages',
    `host: { memory: 2G, kernelSize: 5000 }\n${OK}`,
    { line: 1, column: 33, field: 'host.kernelSize' },
    'a multiple of 4K',
  ],
  [
    'too much memory',
    `host: { memory: 65T }\n${OK}`,
    { line: 1, column: 17, field: 'host.memory' },
    'expected 16M to 64T',
  ],
  [
    'memory that is no multiple of 2M',
    `host: { memory: 17M }\n${OK}`,
    { line: 1, column: 17, field: 'host.memory' },
    'expected 16M or 18M',
  ],
  [
    'a missing field',
    `host:\n  nodes: 2\n${OK}`,
    { line: 2, column: 3, field: 'host.memory' },
    "the field 'memory' is missing; expected a size",
  ],
  [
    'a budget without a unit',
    `host: { memory: 2G }\nbudget: { blackout: 50 }\n${OK}`,
    { line: 2, column: 21, field: 'budget.blackout' },
    'write 50ms or 50s',
  ],
  [
    'an unknown policy',
    `host: { memory: 2G }\nbudget: { blackout: 50ms, onOverrun: cancle }\n${OK}`,
    { line: 2, column: 38, field: 'budget.onOverrun' },
    "did you mean 'cancel'?",
  ],
  [
    'an unknown mode',
    `host: { memory: 2G }\nmode: sequentail\n${OK}`,
    { line: 2, column: 7, field: 'mode' },
    "did you mean 'sequential'?",
  ],
  [
    'an unknown profile',
    `host: { memory: 2G }\nprofile: kho-v9\n${OK}`,
    { line: 2, column: 10, field: 'profile' },
    "expected one of 'kho-v4', 'kho-v3', 'kho-v2', 'kho-v1', 'kho-v1-6.16', 'series-v4', 'series-v5'",
  ],
  [
    'a value of the wrong type',
    `host: { memory: 2G, nodes: two }\n${OK}`,
    { line: 1, column: 28, field: 'host.nodes' },
    "found 'two'; expected a whole number from 1 to 64",
  ],
  [
    'a count of nothing',
    'host: { memory: 2G }\ndrivers: [{ use: iommu, count: 0 }]',
    { line: 2, column: 32, field: 'drivers[0].count' },
    'from 1 to 65536',
  ],
  ['no drivers', 'host: { memory: 2G }\ndrivers: []', { line: 2, column: 10, field: 'drivers' }, 'found an empty list'],
  [
    'an unknown driver',
    'host: { memory: 2G }\ndrivers:\n  - use: netdevsmi',
    { line: 3, column: 10, field: 'drivers[0].use' },
    "unknown driver 'netdevsmi'; did you mean 'netdevsim'?",
  ],
  [
    'an unknown driver unlike any',
    'host: { memory: 2G }\ndrivers:\n  - use: foobarbaz',
    { line: 3, column: 10, field: 'drivers[0].use' },
    'built in are netdevsim, vfio-pci, iommu',
  ],
  [
    'a file named as a driver is',
    'host: { memory: 2G }\ndrivers:\n  - use: my-driver.js',
    { line: 3, column: 10, field: 'drivers[0].use' },
    "write './my-driver.js'",
  ],
  [
    'a path to nowhere',
    'host: { memory: 2G }\ndrivers:\n  - use: ./missing.js',
    { line: 3, column: 10, field: 'drivers[0].use' },
    `there is no driver module ./missing.js (looked for ${join(directory, 'missing.js')})`,
  ],
  [
    'an unknown after',
    'host: { memory: 2G }\ndrivers:\n  - use: iommu\n  - use: vfio-pci\n    after: [iomu]',
    { line: 5, column: 13, field: 'drivers[1].after[0]' },
    "there is no driver 'iomu' in this scenario; did you mean 'iommu'?",
  ],
  [
    'a dependency circle',
    'host: { memory: 2G }\ndrivers:\n  - { use: iommu, after: [vfio-pci] }\n  - { use: vfio-pci, after: [netdevsim] }\n  - { use: netdevsim, after: [iommu] }',
    { line: 5, column: 31, field: 'drivers[2].after[0]' },
    'dependency circle iommu → vfio-pci → netdevsim → iommu',
  ],
  [
    'a driver after itself',
    'host: { memory: 2G }\ndrivers:\n  - { use: iommu, after: [iommu] }',
    { line: 3, column: 27, field: 'drivers[0].after[0]' },
    "'iommu' cannot come after itself",
  ],
  [
    'a duplicate key',
    `host: { memory: 2G }\n${OK}\nhost: 3`,
    { line: 3, column: 1, field: 'host' },
    'this field is there twice',
  ],
  [
    'a duplicate key in a list',
    'host: { memory: 2G }\ndrivers:\n  - use: iommu\n    use: iommu',
    { line: 4, column: 5, field: 'drivers[0].use' },
    'this field is there twice',
  ],
  ['broken YAML', `host: { memory: 2G\n${OK}`, { line: 2, column: 1, field: 'drivers' }, 'not valid YAML: '],
  ['a tab as indentation', `host:\n\tmemory: 2G\n${OK}`, { line: 2, column: 1 }, 'Tabs are not allowed as indentation'],
  ['two documents', `host: { memory: 2G }\n---\n${OK}`, { line: 2, column: 1 }, 'a second YAML document'],
  ['an alias of nothing', `host: *nowhere\n${OK}`, { line: 1, column: 7 }, "there is no anchor '&nowhere'"],
  ['an empty file', '', { line: 1, column: 1 }, 'found nothing; expected a mapping'],
  ['a list', '- 1', { line: 1, column: 1 }, 'found a list; expected a mapping'],
  [
    '__proto__ as a field',
    `host: { memory: 2G }\n${OK}\n__proto__: { a: 1 }`,
    { line: 3, column: 1, field: '__proto__' },
    "unknown field '__proto__'",
  ],
])('a scenario with %s names line, column, field and what would be right', (_, text, details, message) => {
  const error = errorOf(() => parse(text));
  expect(error.code).toBe('KHO_ESCENARIO');
  const { line, column, field } = error.details;
  expect({ line, column, ...(field !== undefined && { field }) }).toEqual(details);
  const [first] = error.message.split('\n');
  expect(first).toContain(message);
  const where = `host.yaml:${details.line}:${details.column}`;
  expect(first.endsWith(details.field === undefined ? `(${where})` : `(${where}, ${details.field})`)).toBe(true);
});

test('everything that is wrong is reported at once, in the order of the file', () => {
  const error = errorOf(() =>
    parse(
      'seed: -1\nhost: { memory: 2GB, nodes: 0 }\ndrivers:\n  - { use: iomu, cuont: 1 }\n  - { use: iommu, after: [iommu] }\n',
    ),
  );
  const fields = error.message.split('\n').map((line) => /, ([^,]*)\)$/.exec(line)?.[1]);
  expect(fields).toEqual([
    'seed',
    'host.memory',
    'host.nodes',
    'drivers[0].use',
    'drivers[0].cuont',
    'drivers[1].after[0]',
  ]);
  expect(error.details).toMatchObject({ file: 'host.yaml', line: 1, column: 7, field: 'seed' });
});

test('aliases that multiply are refused instead of filling the memory', () => {
  const levels = Array.from(
    { length: 9 },
    (_, level) => `l${level + 1}: &l${level + 1} [${Array(9).fill(`*l${level}`)}]`,
  );
  const error = errorOf(() => parse(`l0: &l0 [x]\n${levels.join('\n')}`));
  expect(error.message).toContain('the aliases cannot be expanded');
});

test('a wrong value behind an alias is located where it is written', () => {
  const error = errorOf(() => parse('host: { memory: 2G }\ndrivers:\n  - &one { use: iommu, count: 0 }\n  - *one'));
  expect(error.message.split('\n').map((line) => /\((.*)\)$/.exec(line)?.[1])).toEqual([
    'host.yaml:3:31, drivers[0].count',
    'host.yaml:3:31, drivers[1].count',
  ]);
});

test('a driver of the user is found by path and by package, from the directory of the scenario', () => {
  writeFileSync(join(directory, 'own.js'), '');
  const packages = join(directory, 'node_modules');
  mkdirSync(join(packages, 'esm-driver'), { recursive: true });
  writeFileSync(
    join(packages, 'esm-driver', 'package.json'),
    JSON.stringify({ exports: { '.': { types: './x.d.ts', import: './esm.js' }, './b': './b.js' } }),
  );
  mkdirSync(join(packages, '@me', 'old'), { recursive: true });
  writeFileSync(join(packages, '@me', 'old', 'package.json'), JSON.stringify({ main: 'main.js' }));
  writeFileSync(join(packages, '@me', 'old', 'main.js'), '');

  const uses = ['./own.js', join(directory, 'own.js'), 'esm-driver', 'esm-driver/b', '@me/old'];
  const { drivers } = parse(`host: { memory: 2G }\ndrivers:\n${uses.map((use) => `  - use: '${use}'\n`).join('')}`);
  expect(drivers.map(({ module }) => module)).toEqual(
    [
      'own.js',
      'own.js',
      'node_modules/esm-driver/esm.js',
      'node_modules/esm-driver/b.js',
      'node_modules/@me/old/main.js',
    ].map((file, index) => ({ url: pathToFileURL(join(directory, file)).href, origin: uses[index] })),
  );
});

test('a name in after may be that of a module of the user, which only the coordinator can know', () => {
  writeFileSync(join(directory, 'own.js'), '');
  const { drivers } = parse('host: { memory: 2G }\ndrivers:\n  - { use: iommu, after: [mine] }\n  - { use: ./own.js }');
  expect(drivers[0].after).toEqual(['mine']);
});

test('a scenario is loaded from a file and from stdin; what cannot be read is named', async () => {
  const text = 'host: { memory: 2G }\ndrivers: [{ use: iommu }]\n';
  const file = join(directory, 'host.yaml');
  writeFileSync(file, text);
  expect((await loadScenario(file, { builtIn })).host.memory).toBe(2 ** 31);
  const fromStdin = await loadScenario('-', { builtIn, stdin: Readable.from([Buffer.from(text)]) });
  expect(fromStdin.drivers[0].where).toBe('<stdin>:2');
  await expect(loadScenario(join(directory, 'no.yaml'), { builtIn })).rejects.toMatchObject({ code: 'KHO_ENOENT' });
  await expect(loadScenario(directory, { builtIn })).rejects.toMatchObject({
    code: 'KHO_EIO',
    message: expect.stringContaining('is a directory'),
  });
});
