import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { khorus, SMALL_SCENARIO, startKhorus, temporaryDirectory } from '../support/run.js';

const HOST = 'host: { memory: 512M, cmdline: "kho=on kho_scratch=16M,32M,16M" }';
const ONE = 'drivers: [{ use: netdevsim }]';
const withCommandLine = (words: string) => `host: { memory: 512M, cmdline: "kho=on ${words}" }\n${ONE}`;
const nine = Array.from({ length: 9 }, (_, index) => `reserve_mem=4096:4096:r${index}`).join(' ');
const driver = (serialize: string) =>
  `export default { name: 'd', compatible: 'd-v1', create: () => ({}), restore: () => ({}), snapshot: (s) => s, serialize: ${serialize} };`;

/** Name, scenario, module beside it, exit code, and what the message must say. */
const CASES: [string, string, string, number, RegExp][] = [
  ['an unknown field', `${HOST}\ndrivers:\n  - { use: netdevsim, cuont: 2 }`, '', 2, /'cuont'.*'count'.*:3:\d+/],
  ['a wrong unit', `host: { memory: 512Q }\n${ONE}`, '', 2, /'512Q' is not a size.*:1:\d+, host\.memory/],
  ['an unknown driver', `${HOST}\ndrivers: [{ use: netdevsin }]`, '', 2, /'netdevsin'.*'netdevsim'.*drivers\[0\]\.use/],
  [
    'a dependency circle',
    `${HOST}\ndrivers:\n  - { use: netdevsim, after: [iommu] }\n  - { use: iommu, after: [netdevsim] }`,
    '',
    2,
    /circle netdevsim → iommu → netdevsim/,
  ],
  [
    'memory too small for its scratch',
    `host: { memory: 128M, cmdline: "kho=on kho_scratch=16M,512M,16M" }\n${ONE}`,
    '',
    1,
    /no room for the global scratch area: 536870912 bytes wanted; the largest free place has \d+/,
  ],
  ['KHO left off', `host: { memory: 512M, cmdline: "quiet" }\n${ONE}`, '', 2, /'kho=on'/],
  ['kho_scratch=1G', withCommandLine('kho_scratch=1G'), '', 2, /kho_scratch=1G: expected <lowmem>,<global>,<per node>/],
  ['reserve_mem=1M:3:x', withCommandLine('reserve_mem=1M:3:x'), '', 2, /the alignment 3 is no power of two/],
  ['a ninth reserve_mem', withCommandLine(nine), '', 2, /r8: no more room, 8 reservations/],
  [
    'a name that the FDT forbids',
    '',
    driver("(c) => void c.node('0000:3b:00.0')"),
    1,
    /':'.*'0000-3b-00\.0'.*driver d, instance d0/,
  ],
  ['a missing module', `${HOST}\ndrivers: [{ use: ./missing.js }]`, '', 2, /no driver module \.\/missing\.js/],
  ['a module without a default export', '', 'export const driver = 1;', 2, /no default export/],
  [
    'a module that exports the wrong thing',
    '',
    'export default 5;',
    2,
    /expected a driver made by defineDriver.*found number/,
  ],
  [
    'a driver without restore',
    '',
    "export default { name: 'd', compatible: 'd', create() {}, serialize() {}, snapshot() {} };",
    2,
    /driver 'd' has no restore\(\)/,
  ],
  ['a module with a syntax error', '', 'export default {;', 2, /cannot be loaded/],
  ['a promise from serialize', '', driver('async () => {}'), 1, /serialize returned a promise; it must be synchronous/],
  [
    'a driver that throws',
    '',
    driver("() => { throw new Error('boom') }"),
    1,
    /boom \(driver d, instance d0, shard 0, in serialize\)/,
  ],
  [
    'more bytes than declared',
    '',
    driver("(c) => void c.root.bytes('b', new Uint8Array(20000))"),
    1,
    /declared maxBytes 16384.*driver d/,
  ],
  ['more pages than declared', '', driver('(c) => void c.alloc(1)'), 1, /driver d, instance d0, shard 0/],
  [
    'an option that the driver does not have',
    `${HOST}\ndrivers: [{ use: netdevsim, options: { queus: 3 } }]`,
    '',
    2,
    /queus.*driver netdevsim/,
  ],
];

test.each(CASES)(
  '%s gets one clear message and leaves nothing behind',
  async (_name, scenario, module, code, message) => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
    if (module !== '') writeFileSync(join(directory, 'd.js'), module);
    writeFileSync(join(directory, 's.yaml'), scenario === '' ? `${HOST}\ndrivers: [{ use: ./d.js }]` : scenario);
    const before = readdirSync(directory);
    const result = await khorus(['run', 's.yaml', '--out', 'out'], { cwd: directory });
    expect(result.stderr).toMatch(message);
    expect(result.stderr.trim().split('\n')).toHaveLength(1);
    expect([result.code, result.stdout]).toEqual([code, '']);
    expect(readdirSync(directory)).toEqual(before);
    const json = await khorus(['run', 's.yaml', '--json'], { cwd: directory });
    expect([json.code, JSON.parse(json.stdout).schemaVersion, json.stderr]).toEqual([code, 1, '']);
    expect(JSON.parse(json.stdout).error.message).toMatch(/\S/);
  },
);

test('--out into a directory that holds something else is refused before anything runs, and never replaced', async () => {
  const directory = temporaryDirectory();
  const target = join(directory, 'mine');
  mkdirSync(target);
  writeFileSync(join(target, 'thesis.txt'), 'years of work');
  for (const force of [[], ['--force']]) {
    const { code, stderr } = await khorus(['run', '--out', target, ...force]);
    expect(code).toBe(2);
    expect(stderr).toContain('holds something that khorus run did not write (thesis.txt)');
  }
  expect(readdirSync(target)).toEqual(['thesis.txt']);
  expect(readdirSync(directory)).toEqual(['mine']);
});

test('--out over an earlier run needs --force', async () => {
  const directory = temporaryDirectory();
  const run = (...args: string[]) =>
    khorus(['run', '-', '--quiet', '--out', join(directory, 'o'), ...args], { input: SMALL_SCENARIO });
  expect((await run()).code).toBe(0);
  const again = await run();
  expect([again.code, again.stderr.includes('--force')]).toEqual([2, true]);
  expect((await run('--force', '--seed', '9')).code).toBe(0);
  expect(readdirSync(directory)).toEqual(['o']);
});

test('a driver that hangs is ended when the budget is used up, and the run with it', async () => {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
  writeFileSync(join(directory, 'd.js'), driver('() => { for (;;); }'));
  writeFileSync(join(directory, 's.yaml'), `${HOST}\ndrivers: [{ use: ./d.js }]`);
  const { code, stderr } = await khorus(['run', 's.yaml', '--budget', '200ms', '--out', 'out'], { cwd: directory });
  expect([code, stderr.includes('budget of 200 ms')]).toEqual([1, true]);
  expect(existsSync(join(directory, 'out'))).toBe(false);
});

test('over budget: cancel exits 1, ignore hands over and exits 0', async () => {
  const cancelled = await khorus(['run', '-', '--budget', '1us'], { input: SMALL_SCENARIO });
  expect([cancelled.code, cancelled.stderr.includes('budget')]).toEqual([1, true]);
  const ignored = await khorus(['run', '-', '--budget', '1us', '--on-overrun', 'ignore'], { input: SMALL_SCENARIO });
  expect([ignored.code, ignored.stdout.includes('over)')]).toEqual([0, true]);
});

test('wrong usage exits 2 and suggests what was meant; help and version exit 0', async () => {
  const typo = await khorus(['rnu']);
  expect([typo.code, typo.stderr.includes('Did you mean run?')]).toEqual([2, true]);
  expect((await khorus(['run', '--mode', 'magic'])).code).toBe(2);
  expect((await khorus(['run', '--workers', '0'])).code).toBe(2);
  expect((await khorus(['run', 'nowhere.yaml'])).code).toBe(2);
  expect((await khorus(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  for (const command of ['run', 'inspect', 'verify', 'time', 'blame']) {
    const help = await khorus([command, '--help']);
    expect([command, help.code, help.stdout.includes('Examples:')]).toEqual([command, 0, true]);
  }
});

test('SIGINT and SIGTERM roll back, leave nothing, and exit 130 and 143', async () => {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
    // The driver itself says when it is in its callback, so that the signal comes in the middle of the blackout.
    const marker = join(directory, 'serializing');
    writeFileSync(
      join(directory, 'd.js'),
      `import { writeFileSync } from 'node:fs';
       ${driver(`() => { writeFileSync(${JSON.stringify(marker)}, ''); for (;;); }`)}`,
    );
    writeFileSync(join(directory, 's.yaml'), `${HOST}\ndrivers: [{ use: ./d.js }]`);
    const { child, ended } = startKhorus(['run', 's.yaml', '--out', 'out'], { cwd: directory });
    while (!existsSync(marker)) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill(signal);
    const result = await ended;
    expect([result.code, result.stderr.includes(signal)]).toEqual([code, true]);
    expect(readdirSync(directory).sort()).toEqual(['d.js', 'package.json', 's.yaml', 'serializing']);
  }
});
