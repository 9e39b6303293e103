import { KhoDebugfs, KhoSysfs } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import { countOf, driverModule, SharedLog, SMALL_HOST } from '../support/drivers.js';

const OPTIONS = { mode: 'hash', workers: 1, seed: 1, fdtMax: 2 ** 20 } as const;

function drivers(log: SharedLog, body = '') {
  const base = { count: 1, options: { log: log.buffer }, after: [], priority: 0 };
  return [
    { ...base, module: driverModule('good') },
    { ...base, module: driverModule('tested', body) },
  ];
}
const NO_KHO = { ...SMALL_HOST, cmdline: 'kho=off' };
const NO_SCRATCH = { ...SMALL_HOST, memory: 64 * 2 ** 20, nodes: 1, cmdline: 'kho=on kho_scratch=8M,512M,8M' };

describe('/sys/kernel/kho of series v4', () => {
  test('active makes the FDT and undoes it; the same again does nothing', async () => {
    const log = new SharedLog();
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, drivers(log));
    const free = files.coordinator.host.pages.statistics();
    expect(await files.read('active')).toBe('0\n');
    await expect(files.read('dt')).rejects.toMatchObject({ code: 'KHO_ENOENT' });
    await files.write('active', '0\n');
    await files.write('active', '1\n');
    await files.write('active', 'y');
    expect(countOf(log.lines, 'serialize')).toBe(4);
    expect(await files.read('active')).toBe('1\n');
    const root = FdtReader.open((await files.read('dt')) as Uint8Array).root;
    expect(root.property('compatible')?.string()).toBe('kho-v1');
    expect([...root.children()].map(({ name }) => name)).toContain('tested');
    await files.write('active', 'off');
    expect(await files.read('active')).toBe('0\n');
    expect(countOf(log.lines, 'cancel')).toBe(2);
    expect(files.coordinator.host.pages.statistics()).toEqual(free);
  });

  test('two writers take turns', async () => {
    const log = new SharedLog();
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, drivers(log));
    await Promise.all([files.write('active', '1'), files.write('active', '1'), files.write('active', '0')]);
    expect(countOf(log.lines, 'serialize')).toBe(4);
    expect(await files.read('active')).toBe('0\n');
  });

  test.each(['', 'maybe', '2', '\n'])('what is no truth value (%j) is KHO_EINVAL', async (text) => {
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, []);
    await expect(files.write('active', text)).rejects.toMatchObject({
      code: 'KHO_EINVAL',
      details: { file: 'active' },
    });
  });

  test('KHO that is off is KHO_EOPNOTSUPP, no scratch KHO_ENOMEM; but the value is looked at first', async () => {
    await using off = KhoSysfs.boot(NO_KHO, OPTIONS, []);
    await expect(off.write('active', '1')).rejects.toMatchObject({ code: 'KHO_EOPNOTSUPP' });
    await expect(off.write('active', 'maybe')).rejects.toMatchObject({ code: 'KHO_EINVAL' });
    expect(await off.read('active')).toBe('0\n');
    await using none = KhoSysfs.boot(NO_SCRATCH, OPTIONS, []);
    await expect(none.write('active', '1')).rejects.toMatchObject({ code: 'KHO_ENOMEM' });
  });

  test('whatever a driver fails with is KHO_EINVAL, with the real error as its cause; all is rolled back', async () => {
    const log = new SharedLog();
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, drivers(log, "serialize() { throw new Error('boom') },"));
    const free = files.coordinator.host.pages.statistics();
    await expect(files.write('active', '1')).rejects.toMatchObject({
      code: 'KHO_EINVAL',
      cause: { code: 'KHO_EDRIVER', message: 'boom', details: { driver: 'tested' } },
    });
    expect(await files.read('active')).toBe('0\n');
    expect(countOf(log.lines, 'cancel')).toBe(2);
    expect(files.coordinator.host.pages.statistics()).toEqual(free);
  });

  test('dt_max is read and written as a number of any base, and KHO_EBUSY while there is an FDT', async () => {
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, drivers(new SharedLog()));
    expect(await files.read('dt_max')).toBe('0x100000\n');
    await files.write('dt_max', '2097152\n');
    expect(await files.read('dt_max')).toBe('0x200000\n');
    await files.write('dt_max', '04000000');
    await files.write('dt_max', '0x100000');
    expect(await files.read('dt_max')).toBe('0x100000\n');
    for (const text of ['', 'ten', '0x', '089', '1 2']) {
      await expect(files.write('dt_max', text), text).rejects.toMatchObject({ code: 'KHO_EINVAL' });
    }
    await files.write('active', '1');
    await expect(files.write('dt_max', '0x100000')).rejects.toMatchObject({ code: 'KHO_EBUSY' });
    const handover = await files.jump();
    await expect(files.write('active', '0')).rejects.toMatchObject({ code: 'KHO_EBUSY' });
    handover[Symbol.dispose]();
    expect(await files.read('active')).toBe('0\n');
  });

  test('files that are to be read alone, or are not there, are KHO_EPERM and change nothing', async () => {
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, drivers(new SharedLog()));
    for (const file of ['scratch_phys', 'dt', 'foo']) {
      await expect(files.write(file as 'active', '1'), file).rejects.toMatchObject({ code: 'KHO_EPERM' });
    }
    expect(await files.read('active')).toBe('0\n');
  });

  test('scratch has a line for each area', async () => {
    await using files = KhoSysfs.boot(SMALL_HOST, OPTIONS, []);
    const areas = files.coordinator.host.scratch.areas;
    expect(await files.read('scratch_phys')).toBe(areas.map(({ address }) => `0x${address.toString(16)}\n`).join(''));
    expect(await files.read('scratch_len')).toBe(areas.map(({ size }) => `0x${size.toString(16)}\n`).join(''));
  });
});

describe('/sys/kernel/debug/kho/out of series v5', () => {
  test('finalize twice is KHO_EEXIST, undoing what is not there KHO_ENOENT, after the jump KHO_EBUSY', async () => {
    const log = new SharedLog();
    await using files = KhoDebugfs.boot(SMALL_HOST, OPTIONS, drivers(log));
    await expect(files.write('finalize', '0')).rejects.toMatchObject({ code: 'KHO_ENOENT' });
    await expect(files.write('finalize', 'x')).rejects.toMatchObject({ code: 'KHO_EINVAL' });
    await files.write('finalize', '1');
    await expect(files.write('finalize', '1')).rejects.toMatchObject({ code: 'KHO_EEXIST' });
    expect(await files.read('finalize')).toBe('1\n');
    expect(FdtReader.open((await files.read('fdt')) as Uint8Array).root.child('preserved-memory')).toBeDefined();
    await files.write('finalize', '0');
    expect(countOf(log.lines, 'cancel')).toBe(2);
    await expect(files.read('fdt')).rejects.toMatchObject({ code: 'KHO_ENOENT' });
    await files.write('finalize', '1');
    using _handover = await files.jump();
    await expect(files.write('finalize', '0')).rejects.toMatchObject({ code: 'KHO_EBUSY' });
    await expect(files.write('fdt_max', '0x1000')).rejects.toMatchObject({ code: 'KHO_EBUSY' });
  });

  test("a driver's failure is told as it is", async () => {
    const body = "serialize() { throw new Error('boom') },";
    await using files = KhoDebugfs.boot(SMALL_HOST, OPTIONS, drivers(new SharedLog(), body));
    await expect(files.write('finalize', '1')).rejects.toMatchObject({ code: 'KHO_EDRIVER', message: 'boom' });
    expect(await files.read('finalize')).toBe('0\n');
  });

  test('KHO that is off is KHO_EOPNOTSUPP', async () => {
    await using off = KhoDebugfs.boot(NO_KHO, OPTIONS, []);
    await expect(off.write('finalize', '1')).rejects.toMatchObject({ code: 'KHO_EOPNOTSUPP' });
  });
});
