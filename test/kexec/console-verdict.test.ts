import { describe, expect, test } from 'vitest';
import { type ConsoleExpectations, ConsoleVerdict } from '#dist/kexec/index.js';

const SHA = 'a'.repeat(64);
const OTHER = 'b'.repeat(64);

const EXPECTED: ConsoleExpectations = {
  metadata: { previousRelease: '7.2.0-khorus', kexecCount: 7 },
  reservations: ['trace'],
  khoTest: true,
  digests: new Map([
    ['reserve_mem trace', SHA],
    ['memfd vm0/1', OTHER],
  ]),
};

const GOOD = [
  '[    0.000000] Linux version 7.2.13 (root@vm) (gcc) #1 SMP',
  '[    0.000000] KHO: found kexec handover data.',
  '[    0.000000] KHO: scratch areas: lowmem: 24MiB global: 16MiB pernode: 16MiB',
  "[    0.108065] Revived memory reservation 'trace' from KHO",
  '[    0.200000] luo_core: Retrieved live update data, liveupdate number: 1',
  '[    0.422323] KHO: exec from: 7.2.0-khorus (count 7)',
  '[    0.5][    T1] test_kho: KHO restore succeeded',
  `khorus-guest: reserve_mem trace 1048576 ${SHA}`,
  `khorus-guest: memfd vm0 1 4096 ${OTHER}`,
  'khorus-guest: done',
  '[    1.300814] reboot: machine restart',
];

function verdictOf(lines: readonly string[], expected = EXPECTED) {
  const verdict = new ConsoleVerdict(expected);
  for (const line of lines) verdict.line(line);
  return verdict.report();
}

const replaced = (pattern: RegExp, line?: string): string[] =>
  GOOD.flatMap((original) => (pattern.test(original) ? (line === undefined ? [] : [line]) : [original]));

describe('the verdict over a console', () => {
  test('a kernel that says all it should, and nothing else, has taken the handover over', () => {
    expect(verdictOf(GOOD)).toEqual({
      kernel: '7.2.13',
      found: true,
      revived: ['trace'],
      execFrom: '7.2.0-khorus (count 7)',
      khoTest: 'succeeded',
      digestsEqual: 2,
      guestDone: true,
      failures: [],
      notes: [],
    });
  });

  const missing: [string, string[], RegExp][] = [
    ['nothing at all', [], /stayed silent.*CONFIG_SERIAL_8250_CONSOLE/],
    ['no version', ['SeaBIOS'], /did not come up/],
    ['no word of KHO', replaced(/found kexec/), /CONFIG_KEXEC_HANDOVER, or it refused/],
    ['a reservation that is not revived', replaced(/Revived/), /'trace' was not revived/],
    ['no release', replaced(/exec from/), /never said 'exec from: 7\.2\.0-khorus': KHO is off there/],
    ['another release', replaced(/exec from/, 'KHO: exec from: 7.1.0 (count 7)'), /says 'exec from: 7\.1\.0/],
    ['another count', replaced(/exec from/, 'KHO: exec from: 7.2.0-khorus (count 8)'), /\(count 8\)/],
    ['no kho_test', replaced(/test_kho/), /CONFIG_TEST_KEXEC_HANDOVER/],
    ['a digest that is missing', replaced(/memfd/), /did not find memfd vm0\/1/],
    ['another digest', replaced(/memfd/, `khorus-guest: memfd vm0 1 4096 ${SHA}`), /has the digest a+ in the guest/],
  ];
  test.each(missing)('%s is a failure', (_what, lines, message) => {
    const { failures } = verdictOf(lines);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatch(message);
  });

  const trouble = [
    'WARNING: CPU: 0 PID: 1 at kernel/liveupdate/kexec_handover.c:100 kho_restore_page+0x10/0x20',
    'BUG: unable to handle page fault for address: ffff888000000000',
    'Oops: Oops: 0000 [#1] SMP',
    'Call Trace:',
    'refcount_t: underflow; use-after-free.',
    'test_kho: KHO restore failed',
    'memfd_luo: Unable to restore folio at physical address: 1000',
    'Kernel panic - not syncing: The incoming tree failed to initialize properly',
    'KHO: disabling KHO revival',
    'KHO: setup: handover FDT (0x1000) is incompatible with kho-v4: -22',
    'luo: Failed to insert session [vm0] -EEXIST',
    'luo: Block set is corrupted',
    'khorus-guest: error /dev/liveupdate: No such file or directory',
  ];
  test.each(trouble)('%s is a failure, with and without a time stamp', (line) => {
    for (const shown of [line, `[    1.000000] ${line}`]) {
      const { failures } = verdictOf([...GOOD, line.startsWith('khorus') ? line : shown]);
      expect(failures).toEqual([`the kernel says: ${line}`]);
    }
  });

  test('words that only look like trouble are none', () => {
    const harmless = ['input: DEBUG: x', 'rcu: RCU restricting CPUs', 'printk: bug: none', 'Spectre V2 : Vulnerable'];
    expect(verdictOf([...GOOD, ...harmless]).failures).toEqual([]);
  });

  test('a guest that reports nothing leaves contents uncompared, which is said', () => {
    const { failures, notes, digestsEqual } = verdictOf(replaced(/khorus-guest/));
    expect([failures, digestsEqual]).toEqual([[], 0]);
    expect(notes).toEqual(['the guest reported no digests: contents were not compared']);
  });

  test('a guest that says it is done without a digest has lost them all', () => {
    expect(verdictOf(replaced(/khorus-guest: (reserve|memfd)/)).failures).toEqual([
      'the guest did not find reserve_mem trace',
      'the guest did not find memfd vm0/1',
    ]);
  });

  test('a guest that reports more than was recorded is noted', () => {
    const { failures, notes } = verdictOf([...GOOD, `khorus-guest: memfd vm9 1 0 ${SHA}`]);
    expect([failures, notes.length]).toEqual([[], 1]);
    expect(notes[0]).toMatch(/memfd vm9\/1/);
  });
});
