import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { khorus, SMALL_SCENARIO } from '../support/run.js';

describe.each(['kho-v1', 'kho-v1-6.16', 'kho-v2', 'kho-v3'])('a run in profile %s', (profile) => {
  const base = mkdtempSync(join(tmpdir(), 'khorus-profiles-'));
  const out = join(base, 'out');
  const scenario = join(base, 'host.yaml');
  const compatible = profile.slice(0, 6);
  beforeAll(async () => {
    writeFileSync(scenario, SMALL_SCENARIO);
    const { code, stderr } = await khorus(['run', scenario, '--profile', profile, '--out', out]);
    expect([code, stderr]).toEqual([0, '']);
    return () => rmSync(base, { recursive: true, force: true });
  }, 60_000);

  test('is verified, also as a kernel of that profile does, and refused as one of another', async () => {
    for (const as of [[], ['--profile', profile]]) {
      const { code, stdout } = await khorus(['verify', out, ...as]);
      expect([code, stdout]).toEqual([0, expect.stringContaining('all digests equal')]);
    }
    const refused = await khorus(['verify', out, '--profile', 'kho-v4']);
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringContaining(`the root FDT is '${compatible}', which is incompatible: expected kho-v4`),
    ]);
  }, 60_000);

  test('is inspected, also as a kernel of that profile does, and found to be no other', async () => {
    const names = readdirSync(join(out, 'kho/out/sub_fdts'));
    expect(names.includes('kexec-metadata')).toBe(profile === 'kho-v3');
    for (const as of [[], ['--profile', profile]]) {
      const { code, stdout } = await khorus(['inspect', out, '--no-contents', ...as]);
      expect(code).toBe(0);
      expect(stdout).toContain(compatible === profile ? `, ${profile}, ` : `, ${compatible} (${profile}), `);
      expect(stdout).toMatch(
        compatible === 'kho-v1' ? /^tracker .* pages of chunks and bitmaps$/m : /^tracker .* pages$/m,
      );
      expect(stdout).toContain(`${names.length + 3} files as in memory`);
      expect(stdout).not.toMatch(/^findings|unclaimed/m);
    }
    const other = await khorus(['inspect', out, '--no-contents', '--profile', 'kho-v4']);
    expect([other.code, other.stdout]).toEqual([1, expect.stringContaining('incompatible: expected kho-v4')]);
  }, 60_000);

  test('takes no kernel, and no room for one FDT', async () => {
    const kernel = await khorus(['kexec', out, '--kernel', join(out, 'run.json')]);
    expect([kernel.code, kernel.stderr]).toEqual([
      2,
      expect.stringMatching(new RegExp(`speaks profile ${profile}[:,]`)),
    ]);
    const room = await khorus(['run', scenario, '--profile', profile, '--fdt-max', '1M']);
    expect([room.code, room.stderr]).toEqual([2, expect.stringContaining(`the profile ${profile} has no one FDT`)]);
  });
});

test('a profile that there is not is wrong usage, also to read as', async () => {
  for (const command of [['verify', 'out'], ['inspect', 'out'], ['run']]) {
    const { code, stderr } = await khorus([...command, '--profile', 'kho-v5']);
    expect([code, stderr]).toEqual([2, expect.stringContaining('kho-v1-6.16')]);
  }
});
