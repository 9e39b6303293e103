import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readCapturedMachine } from '#dist/capture/index.js';
import { serverFiles, writeMachine } from '../support/machine-files.js';

/** The error that names a file of a machine. */
const about = (code: string, root: string, path: string, what: RegExp) =>
  expect.objectContaining({
    code,
    message: expect.stringMatching(what),
    details: expect.objectContaining({ file: join(root, path) }),
  });

/** A server's files with a link in the place of one of them. */
function serverWithLink(path: string, target: string): string {
  const root = writeMachine(serverFiles());
  const file = join(root, path);
  rmSync(file, { recursive: true, force: true });
  mkdirSync(dirname(file), { recursive: true });
  symlinkSync(target, file);
  return root;
}

/** A server's files with a regular file in the place of a directory. */
function serverWithFile(path: string): string {
  const root = writeMachine(serverFiles());
  rmSync(join(root, path), { recursive: true });
  writeFileSync(join(root, path), 'x\n');
  return root;
}

/** Root may read everything: then it is done as nobody. */
function readUnprivileged(root: string): ReturnType<typeof readCapturedMachine> {
  if (process.geteuid?.() !== 0) return readCapturedMachine(root);
  process.seteuid?.(65534);
  try {
    return readCapturedMachine(root);
  } finally {
    process.seteuid?.(0);
  }
}

const WAYS = [
  'proc/iomem',
  'proc/cmdline',
  'proc/sys/kernel/osrelease',
  'sys/firmware',
  'sys/firmware/memmap',
  'sys/firmware/memmap/3/type',
  'sys/devices/system/node',
  'sys/devices/system/node/node1',
  'sys/bus/pci/devices',
  'sys/bus/pci/devices/0000:3b:00.0',
  'sys/class/net/ib0',
];

describe('the files of a machine', () => {
  it.each(WAYS)('%s being a link that leads nowhere is an error, not a machine without it', (path) => {
    const root = serverWithLink(path, '../nowhere/at/all');
    expect(() => readCapturedMachine(root)).toThrow(
      about('KHO_EINVAL', root, path, /links to what is not here; .*-RL/),
    );
  });

  it.each(WAYS)('%s being a link in a circle is KHO_EIO', (path) => {
    const root = serverWithLink(path, path.split('/').at(-1) ?? '');
    const named = expect.objectContaining({
      code: 'KHO_EIO',
      message: expect.stringMatching(/cannot be read: ELOOP/),
      details: { file: expect.stringContaining(join(root, path)) },
    });
    expect(() => readCapturedMachine(root)).toThrow(named);
  });

  it.each([
    'sys/firmware',
    'sys/firmware/memmap',
    'sys/devices/system/node',
    'sys/devices/system/node/node1',
    'sys/bus/pci/devices',
    'sys/bus/pci/devices/0000:3b:00.0',
    'sys/class/net',
  ])('%s being no directory is an error, not an empty one', (path) => {
    const root = serverWithFile(path);
    expect(() => readCapturedMachine(root)).toThrow(about('KHO_EINVAL', root, path, /is no directory$/));
  });

  it('may be reached by links that lead somewhere', () => {
    const root = writeMachine(serverFiles());
    const { notices: _, ...machine } = readCapturedMachine(root);
    renameSync(join(root, 'sys/devices'), join(root, 'elsewhere'));
    symlinkSync('../elsewhere', join(root, 'sys/devices'));
    expect(readCapturedMachine(root)).toMatchObject(machine);
  });

  it('that this user may not read are told by name, and no other error than a KhoError comes of it', () => {
    const forbidding = (path: string, mode: number) => {
      const root = writeMachine(serverFiles());
      chmodSync(root, 0o755);
      chmodSync(join(root, path), mode);
      onTestFinished(() => chmodSync(join(root, path), 0o755)); // or it cannot be removed
      return root;
    };
    const root = forbidding('', 0);
    expect(() => readUnprivileged(root)).toThrow(about('KHO_EIO', root, 'proc/iomem', /iomem may not be read$/));
    const devices = forbidding('sys/bus/pci/devices', 0o644);
    expect(() => readUnprivileged(devices)).toThrow(/devices\/0000:00:00.0 may not be read$/);
    expect(readUnprivileged(forbidding('sys/class/net', 0o644))).toMatchObject({
      interfaces: [],
      notices: expect.arrayContaining([expect.stringMatching(/^may not be read by this user: .*\/net\/ib0/)]),
    });
    expect(readUnprivileged(forbidding('proc', 0)).notices).toContainEqual(
      expect.stringMatching(/^may not be read by this user: .*proc\/iomem/),
    );
  });
});
