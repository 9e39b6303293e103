import { describe, expect } from 'vitest';
import { PAGE_SIZE } from '#dist/memblock/index.js';
import { Damage } from './support/damage.js';
import { foundBy, guestReport, troubleOn } from './support/guest-console.js';
import { type KernelTestContext, kernelTest } from './support/kernel-test.js';
import { handOverLoaded, type Shape, takeOver } from './support/khorus.js';
import { digestsOf } from './support/run-digests.js';

/** All that can be damaged. */
const SHAPE: Shape = {
  memory: '512M',
  reserveMem: { trace: '1M', pstore: '64K' },
  drivers: [
    { use: 'kho-test', options: { orders: [2, 0, 5] } },
    { use: 'luo', options: { testFlbs: true, sessions: [{ name: 'vm', memfds: 2 }] } },
  ],
};
const SESSIONS = ['vm 0', 'vm 1'];

/** Damages the handover of {@link SHAPE}, boots, and tells what the kernel made of it. */
async function bootDamaged(
  context: KernelTestContext,
  damage: (image: Damage) => boolean,
  sessions: readonly string[] = SESSIONS,
) {
  const handed = await handOverLoaded(context, SHAPE, sessions);
  {
    using image = new Damage(handed);
    expect(damage(image)).toBe(true);
  }
  const { status, boot } = await takeOver(handed);
  const console = boot.console.join('\n');
  const report = guestReport(console);
  const expected = digestsOf(handed.record);
  const trouble = troubleOn(console).map((line) => line.replace(/^\[[ \d.]+\] /, ''));
  return { status, boot, console, report, trouble, expected, found: foundBy(report) };
}

describe('a kernel that gets a damaged handover', () => {
  kernelTest('boots without it if the root FDT is of another kind', async (context) => {
    const end = await bootDamaged(
      context,
      (image) => image.replace(image.root, PAGE_SIZE, text('kho-v4'), text('kho-v9')),
      [],
    );
    expect(end.trouble).toEqual([
      expect.stringMatching(/^KHO: setup: handover FDT \(0x[0-9a-f]+\) is incompatible with 'kho-v4': 1$/),
      'KHO: disabling KHO revival',
    ]);
    expect(end.console).not.toContain('found kexec handover data');
    expect(end.report).toMatchObject({ done: true, errors: [] });
    expect(end.found).toEqual(new Map());
    expect([end.status, end.boot.arrived]).toEqual([1, false]);
  });

  kernelTest('fails its own test, and nothing else, if a byte of a test folio is another', async (context) => {
    const end = await bootDamaged(context, (image) =>
      image.objects('kho_test', 5).some((folio) => image.flip(folio + 1234)),
    );
    expect(end.trouble).toEqual(['test_kho: KHO restore failed']);
    expect(end.report).toMatchObject({ done: true, errors: [] });
    expect(end.found).toEqual(end.expected);
    expect(end.boot.failures).toEqual(['the kernel says: test_kho: KHO restore failed']);
    expect(end.status).toBe(1);
  });

  kernelTest(
    'makes a fresh area instead of one whose size is another, and cannot hand over areas itself',
    async (context) => {
      const end = await bootDamaged(context, (image) => {
        const { address, size } = image.blob('memblock');
        return image.replace(address, size, u64(2 ** 20), u64(2 ** 21));
      });
      expect(end.trouble).toEqual([
        "KHO reserve-mem 'trace' has wrong size (0x200000 != 0x100000)",
        // The fresh area was allocated when there was nothing but scratch, where nothing may be preserved.
        expect.stringMatching(/^WARNING: kernel\/liveupdate\/kexec_handover\.c:\d+ /),
        'Call Trace:',
        'failed to prepare memblock FDT for KHO: -22',
      ]);
      expect(end.console).not.toContain("Revived memory reservation 'trace'");
      expect(end.report).toMatchObject({ done: true, errors: [] });
      end.expected.delete('reserve_mem trace');
      expect(end.found).toEqual(end.expected);
      expect(end.status).toBe(1);
    },
  );

  kernelTest('panics if the LUO blob is of another kind', async (context) => {
    const end = await bootDamaged(context, (image) => {
      const { address, size } = image.blob('LUO');
      return image.replace(address, size, text('luo-v5'), text('luo-v6'));
    });
    expect(end.trouble).toEqual([
      "luo: LUO state is incompatible with 'luo-v5'",
      'Kernel panic - not syncing: The incoming tree failed to initialize properly [-22], disabling live update',
      'Call Trace:',
    ]);
    expect(end.report.done).toBe(false);
    expect(end.boot.end).toEqual({ how: 'exited' }); // panic=-1 reboots
    expect(end.status).toBe(1);
  });

  kernelTest('gives no session to user space if a file is of a kind that it does not know', async (context) => {
    const end = await bootDamaged(context, (image) =>
      image.objects('LUO', 0).some((page) => image.replace(page, PAGE_SIZE, text('memfd-v2'), text('memfd-v9'))),
    );
    expect(end.trouble).toEqual([
      "luo: No registered handler for compatible 'memfd-v9'",
      'luo: Failed to deserialize files for session [vm] -2',
      'khorus-guest: error /dev/liveupdate cannot be opened: Input/output error',
    ]);
    for (const name of end.expected.keys()) if (name.startsWith('memfd')) end.expected.delete(name);
    expect(end.found).toEqual(end.expected);
    expect(end.status).toBe(1);
  });
});

function text(ascii: string): Uint8Array {
  return Buffer.from(ascii, 'latin1');
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
