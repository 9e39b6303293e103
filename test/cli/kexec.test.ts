import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { RunRecord } from 'khorus';
import { beforeAll, describe, expect, test } from 'vitest';
import { fakeBzImage } from '../support/fake-bz-image.js';
import { khorus, ROOT, startKhorus, temporaryDirectory } from '../support/run.js';

const SCENARIO = `
host: { memory: 128M, cmdline: "kho=on kho_scratch=12M,8M,8M reserve_mem=64K:4096:trace" }
drivers:
  - { use: netdevsim, count: 1, options: { queues: 2 } }
`;
const FAKE_QEMU = join(ROOT, 'test/fixtures/fake-qemu.sh');

let base = '';
const at = (...names: string[]): string => join(base, ...names);

/** The command with a QEMU that behaves as told, and with a directory for temporary files of its own. */
function withQemu(behaviour: string) {
  const directory = temporaryDirectory();
  const pidFile = join(directory, 'pid');
  const temporary = join(directory, 'tmp');
  mkdirSync(temporary);
  return {
    env: {
      KHORUS_QEMU: FAKE_QEMU,
      FAKE_QEMU: behaviour,
      FAKE_QEMU_PID: pidFile,
      FAKE_QEMU_CONSOLE: at('console'),
      TMPDIR: temporary,
    },
    started: async (): Promise<void> => {
      for (let tries = 0; !existsSync(pidFile); tries++) {
        if (tries > 1000) throw new Error('QEMU was not started');
        await delay(10);
      }
    },
    /** Whether the process is gone; zombies count as gone. Waits a moment: a signal is not an end. */
    gone: async (): Promise<boolean> => {
      const pid = readFileSync(pidFile, 'utf8').trim();
      for (let tries = 0; tries < 200; tries++) {
        const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : ') Z';
        if (/\) Z/.test(stat)) return true;
        await delay(10);
      }
      return false;
    },
    leftovers: (): string[] => readdirSync(temporary),
  };
}

beforeAll(async () => {
  base = mkdtempSync(join(tmpdir(), 'khorus-kexec-'));
  writeFileSync(at('s.yaml'), SCENARIO);
  writeFileSync(at('bzImage'), fakeBzImage());
  writeFileSync(at('initrd'), Buffer.alloc(5000, 7));
  mkdirSync(at('empty'));
  const run = await khorus(['run', 's.yaml', '--out', 'run', '--quiet'], { cwd: base });
  expect([run.code, run.stderr]).toEqual([0, '']);
  const record: RunRecord = JSON.parse(readFileSync(at('run/run.json'), 'utf8'));
  writeFileSync(
    at('console'),
    [
      '[    0.000000] Linux version 7.2.13-fake (a@b)',
      '[    0.000000] KHO: found kexec handover data.',
      "[    0.000000] Revived memory reservation 'trace' from KHO",
      '[    0.000000] KHO: exec from: 7.2.0-khorus (count 1)',
      `khorus-guest: reserve_mem trace 65536 ${record.host.reserveMem[0]?.sha256}`,
      'khorus-guest: done',
      '',
    ].join('\r\n'),
  );
  return () => rmSync(base, { recursive: true, force: true });
}, 300_000);

const kexec = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  khorus(['kexec', ...args], { cwd: base, env });

describe('khorus kexec', () => {
  test('writes what boots the handover, and prints the command that does', async () => {
    const written = await kexec(['run', '--kernel', 'bzImage', '--initrd', 'initrd', '--out', 'boot']);
    expect([written.code, written.stderr]).toEqual([0, '']);
    expect(readdirSync(at('boot')).sort()).toEqual(['boot.rom', 'kexec.json', 'ram.img']);
    expect(written.stdout).toMatch(/loaded bzImage: Linux 7\.2\.0-fake/);
    expect(written.stdout).toMatch(/qemu-system-x86_64 -M pc,memory-backend=ram .*mem-path=boot\/ram\.img/);
    expect(written.stdout).toMatch(/loading is prepare, not blackout: .*read the kernel .*load the kernel/);
    const document = JSON.parse(readFileSync(at('boot/kexec.json'), 'utf8'));
    expect(document).toMatchObject({
      schemaVersion: 1,
      memorySize: 128 * 2 ** 20,
      commandLine: `kho=on kho_scratch=12M,8M,8M reserve_mem=64K:4096:trace console=ttyS0 acpi=off reboot=k panic=-1`,
    });
    const again = await kexec(['run', '--kernel', 'bzImage', '--out', 'boot']);
    expect([again.code, again.stderr]).toEqual([2, expect.stringMatching(/replace it with --force/)]);
    const forced = await kexec(['run', '--kernel', 'bzImage', '--out', 'boot', '--force', '--json']);
    expect([forced.code, JSON.parse(forced.stdout)]).toMatchObject([0, { out: 'boot', kexec: { kernel: 'bzImage' } }]);
  });

  test('never replaces the run that it reads, nor another', async () => {
    for (const out of ['run', 'other-run']) {
      cpSync(at('run'), at('other-run'), { recursive: true });
      const result = await kexec(['run', '--kernel', 'bzImage', '--out', out, '--force']);
      expect([result.code, result.stderr]).toEqual([
        2,
        expect.stringMatching(/holds something that khorus kexec did not/),
      ]);
      expect(existsSync(at(out, 'run.json'))).toBe(true);
    }
  });

  test('tells of an area that is handed over and not asked for', async () => {
    const { env } = withQemu('console');
    const result = await kexec(['run', '--kernel', 'bzImage', '--cmdline', 'kho=on', '--qemu'], env);
    expect(result.stderr).toMatch(/^note: the area 'trace' is handed over, but the command line has no reserve_mem=/);
  });

  test('a run that loads the kernel does so in prepare, and comes to the same bytes', async () => {
    const flags = ['--kernel', 'bzImage', '--initrd', 'initrd', '--cmdline', 'kho=on quiet reserve_mem=64K:4096:trace'];
    const run = await khorus(['run', 's.yaml', '--out', 'loaded', '--quiet', ...flags], { cwd: base });
    expect([run.code, run.stderr]).toEqual([0, '']);
    const { kexec: loaded, timeline }: RunRecord = JSON.parse(readFileSync(at('loaded/run.json'), 'utf8'));
    expect(loaded?.segments.map(({ what }) => what)).toContain('the kernel');
    const steps = timeline.spans.filter(({ step }) => step === 'read the kernel' || step === 'load the kernel');
    expect(steps.map(({ phase }) => phase)).toEqual(['prepare', 'prepare']);
    const freeze = timeline.phases.find(({ phase }) => phase === 'freeze');
    for (const { end } of steps) expect(end).toBeLessThan(freeze?.start ?? 0);

    const written = await kexec(['run', ...flags, '--out', 'loaded-later', '--quiet']);
    expect([written.code, written.stdout, written.stderr]).toEqual([0, '', '']);
    for (const file of ['ram.img', 'boot.rom']) {
      expect(readFileSync(at('loaded', file)).equals(readFileSync(at('loaded-later', file)))).toBe(true);
    }
    const { env } = withQemu('console');
    expect((await kexec(['loaded', '--qemu'], env)).stdout).toMatch(/Revived memory reservation/);
  });

  test('boots it in QEMU, streams the console, and exits 0 if the handover arrived', async () => {
    const qemu = withQemu('console');
    const result = await kexec(['run', '--kernel', 'bzImage', '--qemu'], qemu.env);
    expect([result.code, result.stderr]).toEqual([0, '']);
    expect(result.stdout).toContain("[    0.000000] Revived memory reservation 'trace' from KHO\n");
    expect(result.stdout).toMatch(/\nLinux 7\.2\.13-fake took over: 1 reservation revived, 1 digest equal\n$/);
    expect(qemu.leftovers()).toEqual([]);
    const json = await kexec(['run', '--kernel', 'bzImage', '--qemu', '--json'], qemu.env);
    expect(JSON.parse(json.stdout)).toMatchObject({ schemaVersion: 1, arrived: true, failures: [], digestsEqual: 1 });
    const quiet = await kexec(['run', '--kernel', 'bzImage', '--qemu', '--quiet'], qemu.env);
    expect([quiet.code, quiet.stdout, quiet.stderr]).toEqual([0, '', '']);
  });

  test('QEMU gets the ROM, and all of the RAM', async () => {
    const { env } = withQemu('files');
    const { stdout } = await kexec(['run', '--kernel', 'bzImage', '--qemu'], env);
    expect(stdout).toMatch(/\n fa fc 66 2e 0f\n134217728\n/);
  });
});

describe('khorus kexec refuses', () => {
  const refused: [string, string[], number, RegExp][] = [
    ['a run without a kernel', ['run'], 2, /run has no kernel loaded; name one with --kernel/],
    ['an initrd without a kernel', ['run', '--initrd', 'initrd'], 2, /--initrd is for a kernel; give --kernel too/],
    ['a kernel that is not there', ['run', '--kernel', 'none'], 2, /there is no kernel none/],
    ['an initrd that is not there', ['run', '--kernel', 'bzImage', '--initrd', 'none'], 2, /there is no initrd none/],
    ['a kernel that is a directory', ['run', '--kernel', 'run'], 2, /the kernel run is a directory/],
    ['a kernel that is a pipe', ['run', '--kernel', 'pipe'], 2, /the kernel pipe is not a regular file/],
    ['a directory that kexec wrote', ['written'], 2, /written was written by khorus kexec, for QEMU itself/],
    ['a kernel without an end', ['run', '--kernel', '/dev/zero'], 2, /the kernel \/dev\/zero is not a regular file/],
    [
      'an initrd without an end',
      ['run', '--kernel', 'bzImage', '--initrd', '/dev/urandom'],
      2,
      /the initrd \/dev\/urandom is not a regular file/,
    ],
    [
      'an initrd beyond all bounds',
      ['run', '--kernel', 'bzImage', '--initrd', 'initrd-huge'],
      1,
      /more than the 1073741824 that are read/,
    ],
    ['a file that is no bzImage', ['run', '--kernel', 's.yaml'], 2, /s\.yaml cannot be loaded: it is not a bzImage/],
    ['a kernel of 32 bits', ['run', '--kernel', 'bzImage-32'], 2, /no 64-bit entry/],
    ['a kernel that is cut short', ['run', '--kernel', 'bzImage-short'], 2, /cut short: 30000 of 68096 bytes/],
    [
      'a kernel larger than scratch',
      ['run', '--kernel', 'bzImage-large'],
      1,
      /the kernel needs 20 MiB.*no scratch area/,
    ],
    [
      'an initrd larger than scratch',
      ['run', '--kernel', 'bzImage', '--initrd', 'initrd-large'],
      1,
      /the initrd needs 13 MiB.*no scratch area.*kho_scratch=/,
    ],
    ['a directory that is not there', ['none', '--kernel', 'bzImage'], 2, /none\/ram\.img/],
    ['a directory of something else', ['empty', '--kernel', 'bzImage'], 2, /empty\/ram\.img/],
    [
      'an image cut short',
      ['short', '--kernel', 'bzImage'],
      1,
      /short\/ram\.img is cut short: 1048576 of 134217728 bytes/,
    ],
    ['an image without a handover', ['zeros', '--kernel', 'bzImage'], 1, /no boot record/],
    ['a damaged tracker', ['cycle', '--kernel', 'bzImage'], 1, /the tracker is damaged: .*a page met before/],
    ['a timeout of nothing', ['run', '--kernel', 'bzImage', '--qemu', '--timeout', '0ms'], 2, /0ms/],
    ['--force without a directory', ['run', '--kernel', 'bzImage', '--qemu', '--force'], 2, /give --out DIR too/],
  ];
  beforeAll(() => {
    writeFileSync(at('bzImage-32'), fakeBzImage({ xloadflags: 0 }));
    writeFileSync(at('bzImage-short'), fakeBzImage().subarray(0, 30000));
    writeFileSync(at('bzImage-large'), fakeBzImage({ initSize: 20 * 2 ** 20 }));
    writeFileSync(at('initrd-large'), Buffer.alloc(13 * 2 ** 20));
    writeFileSync(at('initrd-huge'), '');
    execFileSync('mkfifo', [at('pipe')]);
    cpSync(at('run'), at('written'), { recursive: true });
    writeFileSync(at('written/kexec.json'), '{}');
    truncateSync(at('initrd-huge'), 2 ** 30 + 1);
    for (const name of ['short', 'zeros', 'cycle']) cpSync(at('run'), at(name), { recursive: true });
    truncateSync(at('short/ram.img'), 2 ** 20);
    truncateSync(at('zeros/ram.img'), 0);
    truncateSync(at('zeros/ram.img'), 128 * 2 ** 20);
    const record: RunRecord = JSON.parse(readFileSync(at('run/run.json'), 'utf8'));
    const [root] = record.tracker;
    const image = readFileSync(at('cycle/ram.img'));
    const slot = image.subarray(root?.address, (root?.address ?? 0) + 4096).findIndex((byte) => byte !== 0);
    image.writeBigUInt64LE(BigInt(root?.address ?? 0), (root?.address ?? 0) + slot - (slot % 8));
    writeFileSync(at('cycle/ram.img'), image);
  });

  test.each(refused)('%s', async (_what, args, code, message) => {
    const out = args.includes('--qemu') ? [] : ['--out', 'refused'];
    const result = await kexec([...args, ...out]);
    expect(result.stderr).toMatch(message);
    expect(
      result.stderr
        .trimEnd()
        .split('\n')
        .filter((line) => !line.startsWith('(khorus')),
    ).toHaveLength(1);
    expect([result.code, result.stdout]).toEqual([code, '']);
    expect(existsSync(at('refused'))).toBe(false);
    expect(readdirSync(base).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('to boot where there is no QEMU, and says what to install', async () => {
    const result = await kexec(['run', '--kernel', 'bzImage', '--qemu'], { KHORUS_QEMU: 'no-such-qemu' });
    expect([result.code, result.stderr]).toEqual([2, expect.stringMatching(/no-such-qemu is not there; install QEMU/)]);
  });
});

describe('a QEMU that', () => {
  test('says nothing is ended after the time limit', async () => {
    const qemu = withQemu('silent');
    const result = await kexec(['run', '--kernel', 'bzImage', '--qemu', '--timeout', '300ms'], qemu.env);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/the console stayed silent: the kernel has no serial console/);
    expect(result.stderr).toMatch(/the console was silent for 0\.3 s, so QEMU was ended/);
    expect(await qemu.gone()).toBe(true);
    expect(qemu.leftovers()).toEqual([]);
  });

  test('never comes to an end is ended too', async () => {
    const qemu = withQemu('chatter');
    const result = await kexec(['run', '--kernel', 'bzImage', '--qemu', '--timeout', '200ms'], qemu.env);
    expect([result.code, result.stderr]).toEqual([1, expect.stringMatching(/still running after \d+\.\d s/)]);
    expect(await qemu.gone()).toBe(true);
    expect(qemu.leftovers()).toEqual([]);
  });

  test('fails is told of in its own words', async () => {
    const qemu = withQemu('fail');
    const result = await kexec(['run', '--kernel', 'bzImage', '--qemu'], qemu.env);
    expect([result.code, result.stderr]).toEqual([1, 'khorus: QEMU ended with exit code 3: qemu: it did not work\n']);
    expect(qemu.leftovers()).toEqual([]);
  });

  test('runs when Ctrl-C comes is ended, and nothing is left', async () => {
    const qemu = withQemu('silent');
    const { child, ended } = startKhorus(['kexec', at('run'), '--kernel', at('bzImage'), '--qemu'], { env: qemu.env });
    await qemu.started();
    child.kill('SIGINT');
    expect((await ended).code).toBe(130);
    expect(await qemu.gone()).toBe(true);
    expect(qemu.leftovers()).toEqual([]);
  });

  test.skipIf(!existsSync('/usr/bin/setpriv'))(
    'runs when khorus is killed outright ends with it, and nothing is left',
    async () => {
      const qemu = withQemu('silent');
      const { child, ended } = startKhorus(['kexec', at('run'), '--kernel', at('bzImage'), '--qemu'], {
        env: qemu.env,
      });
      await qemu.started();
      child.kill('SIGKILL');
      await ended;
      expect(await qemu.gone()).toBe(true);
      expect(qemu.leftovers()).toEqual([]);
    },
  );
});
