import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { machine } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { buildConfigSpace } from '#dist/drivers/pci-config-space.js';
import {
  IDENTITY,
  interfaceFiles,
  largeServerFiles,
  microVmFiles,
  serverFiles,
  writeMachine,
} from '../support/machine-files.js';
import { khorus, temporaryDirectory } from '../support/run.js';

/** What was handed over, without times. */
function recordOf(directory: string) {
  return JSON.parse(readFileSync(join(directory, 'run.json'), 'utf8'));
}

test('a captured server runs from its files and from its scenario alike: the same instances, digest for digest', async () => {
  const root = writeMachine(serverFiles());
  const directory = temporaryDirectory();
  const capture = await khorus(['capture', '--from', root]);
  expect(capture).toMatchObject({ code: 0, stderr: expect.stringContaining('0000:60:00.0 is left out') });
  writeFileSync(join(directory, 'host.yaml'), capture.stdout);
  writeFileSync(join(directory, 'from.yaml'), `host: { from: ${JSON.stringify(root)} }\n`);
  for (const name of ['host', 'from']) {
    const run = await khorus(['run', `${name}.yaml`, '--out', name, '--workers', '2'], { cwd: directory });
    expect(run).toMatchObject({ code: 0, stdout: expect.stringContaining('Blackout: ') });
  }
  const [host, from] = ['host', 'from'].map((name) => recordOf(join(directory, name)));
  const names = host.instances.map(({ name }: { name: string }) => name);
  expect(names).toEqual([
    '0000-3b-00.0',
    '0000-3b-02.1',
    '0000-5e-00.0',
    '0000-5f-00.0',
    '10000-01-00.0',
    'ens1f0np0',
    'ib0',
  ]);
  expect(from.instances).toEqual(host.instances);
  expect(from.host).toEqual(host.host);
  const [blob, other] = ['host', 'from'].map((name) =>
    readFileSync(join(directory, name, 'kho/out/sub_fdts/vfio-pci')),
  );
  expect(blob.includes(Buffer.from(buildConfigSpace(IDENTITY)))).toBe(true);
  expect(blob.equals(other)).toBe(true);
});

test('this machine, captured, runs as a scenario', async (context) => {
  const directory = temporaryDirectory();
  const { code, stdout, stderr } = await khorus(['capture']);
  if (code !== 0) {
    // Said out loud: another architecture, or a sandbox that shows nothing of its memory.
    const why = /no x86_64|nothing says where the memory/;
    expect(stderr).toMatch(why);
    if (machine() === 'x86_64') expect(stderr).toMatch(/nothing says where the memory/);
    return context.skip(`this machine cannot be captured: ${stderr.trim()}`);
  }
  const drivers = /^drivers: \[\]/m.test(stdout)
    ? stdout.replace(/^drivers: \[\].*$/m, 'drivers: [{ use: iommu }]')
    : stdout;
  writeFileSync(join(directory, 'host.yaml'), drivers);
  const run = await khorus(['run', 'host.yaml', '--json'], { cwd: directory });
  expect(run, run.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(run.stdout)).toMatchObject({ outcome: 'handed-over', failures: [] });
});

test('a captured server of 1.5 TiB runs with most of it given to guests', async () => {
  const root = writeMachine(largeServerFiles());
  const directory = temporaryDirectory();
  const { stdout } = await khorus(['capture', '--from', root, '--guest-memory', '1.4T']);
  expect(stdout).toContain('  guestMemory: 1468006M\n');
  writeFileSync(join(directory, 'host.yaml'), stdout);
  const run = await khorus(['run', 'host.yaml', '--json'], { cwd: directory });
  expect(run, run.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(run.stdout)).toMatchObject({ outcome: 'handed-over', failures: [] });
});

test('more for guests than the machine has room for is an error of the option, and nothing is printed', async () => {
  const root = writeMachine(serverFiles());
  const large = writeMachine({ ...largeServerFiles(), 'proc/cmdline': 'kho=on\n' });
  const cases: [string, string, string, RegExp][] = [
    [root, '1.4T', 'KHO_EINVAL', /--guest-memory 1468006M the machine does not boot: .* less than the host's memory/],
    [root, '1200M', 'KHO_EINVAL', /--guest-memory 1200M .*: node 1 has 536870912 bytes of memory: too few/],
    // The rest has no room for scratch as the kernel would scale it.
    [large, '1.4T', 'KHO_ENOMEM', /--guest-memory 1468006M the machine does not boot: .*scratch/],
  ];
  for (const [from, size, code, message] of cases) {
    const text = await khorus(['capture', '--from', from, '--guest-memory', size]);
    expect(text).toMatchObject({ stdout: '', stderr: expect.stringMatching(message) });
    expect(text.code).not.toBe(0);
    const json = await khorus(['capture', '--from', from, '--guest-memory', size, '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { code, message: expect.stringMatching(message) } });
  }
});

test('a host may have nodes with gaps between their numbers; drivers and guests have memory on all of them', async () => {
  const directory = temporaryDirectory();
  writeFileSync(
    join(directory, 'host.yaml'),
    `
host:
  cmdline: kho=on kho_scratch=16M,16M,16M
  guestMemory: 256M
  memoryMap:
    firmware: [{ start: 0x0, end: 0x3fffffff, type: System RAM }]
    nodes: [{ node: 1, start: 0x100000, end: 0x1fffffff }, { node: 6, start: 0x20000000, end: 0x3fffffff }]
drivers:
  - { use: memfd, count: 2, options: { size: 1M } }
  - { use: guest-memory, count: 2, options: { size: 64M, pageSize: 2M } }
`,
  );
  const run = await khorus(['run', 'host.yaml', '--out', 'out'], { cwd: directory });
  expect(run, run.stderr).toMatchObject({ code: 0 });
  const { ranges, unbacked } = recordOf(join(directory, 'out'));
  const nodesOf = (list: { address: number; owner: { name: string } }[], name: string) =>
    new Set(list.filter(({ owner }) => owner.name === name).map(({ address }) => (address < 0x20000000 ? 1 : 6)));
  expect(nodesOf(ranges, 'memfd')).toEqual(new Set([1, 6]));
  expect(nodesOf(unbacked, 'guest-memory')).toEqual(new Set([1, 6]));
});

test('--redact leaves nothing that tells whose machine it is; the scenario runs all the same', async () => {
  const root = writeMachine(serverFiles());
  const { stdout } = await khorus(['capture', '--from', root, '--redact']);
  expect(stdout).not.toMatch(/root=|02:5a|8a:8a/);
  expect(stdout).toContain('cmdline: "kho_scratch=16M,64M,16M kho=on"');
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'host.yaml'), stdout);
  expect(await khorus(['run', join(directory, 'host.yaml')])).toMatchObject({ code: 0 });
});

test('--dir copies files that are the same machine elsewhere, and replaces nothing', async () => {
  const root = writeMachine(serverFiles());
  const copy = join(temporaryDirectory(), 'copy');
  expect(await khorus(['capture', '--from', root, '--dir', copy])).toMatchObject({
    code: 0,
    stdout: '',
    stderr: expect.stringContaining(`use it with host: { from: ${copy} }`),
  });
  const [original, again] = [
    await khorus(['capture', '--from', root, '-q']),
    await khorus(['capture', '--from', copy, '-q']),
  ];
  const bare = ({ stdout }: { stdout: string }) => stdout.replaceAll(/^#.*$/gm, '');
  expect(bare(again)).toBe(bare(original));
  expect(await khorus(['capture', '--from', root, '--dir', copy])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('is there already'),
  });
  expect(await khorus(['capture', '--dir', `${copy}2`, '--redact'])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('give one of them'),
  });
});

test('--dir with --no-devices copies nothing of any device; a name that is none is wrong usage', async () => {
  const root = writeMachine(serverFiles());
  const directory = temporaryDirectory();
  const capture = (dir: string) =>
    khorus(['capture', '--from', root, '--no-devices', '--dir', dir], { cwd: directory });
  expect(await capture('my-server/')).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('8 CPUs, 0 PCI functions, 0 network interfaces'),
  });
  expect(readdirSync(directory)).toEqual(['my-server']);
  expect(readdirSync(join(directory, 'my-server/sys')).sort()).toEqual(['devices', 'firmware']);
  expect(await capture('')).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/'--dir <dir>' argument '' is invalid. expected the name of a directory/),
  });
  expect(await capture('no/copy')).toMatchObject({ code: 2, stderr: expect.stringContaining('there is no directory') });
});

test('one device is counted as one', async () => {
  const root = writeMachine({ ...microVmFiles(), ...interfaceFiles('eth0'), 'sys/devices/system/cpu/possible': '0\n' });
  const { stdout } = await khorus(['capture', '--from', root]);
  expect(stdout).toMatch(/^# .* one node, 1 CPU, 0 PCI functions, 1 network interface\. Made by/);
});

test('--json is the scenario as one document; what the machine lacks is said, also in a scenario', async () => {
  const root = writeMachine(microVmFiles());
  const { stdout, code } = await khorus(['capture', '--from', root, '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    schemaVersion: 1,
    scenario: { host: { arch: 'x86_64', cmdline: 'kho=on console=ttyS0 -- init-option kho=off' }, drivers: [] },
    notices: [expect.stringMatching(/^KHO was off/)],
  });
  const text = await khorus(['capture', '--from', root]);
  expect(text).toMatchObject({ code: 0, stderr: expect.stringContaining('no devices were captured') });
  expect(text.stdout).toMatch(/^# KHO was off on this machine/m);
});

test('a machine without room for its scratch is printed, with a notice that it does not boot', async () => {
  const iomem = String(microVmFiles()['proc/iomem']).replace('1fffffff : System RAM', '03efffff : System RAM');
  const { code, stdout, stderr } = await khorus([
    'capture',
    '--from',
    writeMachine({ ...microVmFiles(), 'proc/iomem': iomem }),
  ]);
  const notice =
    /^(khorus:|#) as it is the machine does not boot: no room for the lowmem scratch area.*: change the scenario/m;
  expect([code, stdout, stderr]).toEqual([0, expect.stringMatching(notice), expect.stringMatching(notice)]);
});

test('files that are cut or of another architecture are wrong usage, by file and line', async () => {
  const server = serverFiles();
  const iomem = String(server['proc/iomem']);
  const cut = writeMachine({ ...server, 'proc/iomem': iomem.slice(0, iomem.length - 8) });
  expect(await khorus(['capture', '--from', cut])).toMatchObject({
    code: 2,
    stdout: '',
    stderr: expect.stringContaining(`${join(cut, 'proc/iomem')}:22 is cut`),
  });
  const arm = writeMachine({ ...server, 'proc/sys/kernel/arch': 'aarch64\n' });
  const { code, stdout } = await khorus(['capture', '--from', arm, '--json']);
  expect(code).toBe(2);
  expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'KHO_EOPNOTSUPP' } });
});
