import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkTarget, writeDirectory } from '#dist/cli/output-directory.js';

let parent: string;
let target: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'khorus-out-'));
  target = join(parent, 'D');
});
afterEach(() => rmSync(parent, { recursive: true }));

const write = (content: string) => async (directory: string) => {
  mkdirSync(join(directory, 'kho', 'out'), { recursive: true });
  writeFileSync(join(directory, 'kho', 'out', 'fdt'), content);
  writeFileSync(join(directory, 'run.json'), '{"schemaVersion":1}');
};
const content = () => readFileSync(join(target, 'kho', 'out', 'fdt'), 'utf8');

/** The id of a process that has ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ['-e', '']).pid;
}

test('a directory is built beside the target and renamed once it is whole', async () => {
  await writeDirectory(target, {}, async (temporary) => {
    expect(readdirSync(parent)).toEqual([`.D.khorus-${process.pid}`]);
    expect(temporary).toBe(join(parent, `.D.khorus-${process.pid}`));
    await write('one')(temporary);
  });
  expect(readdirSync(parent)).toEqual(['D']);
  expect(content()).toBe('one');
});

test('an empty directory is filled', async () => {
  mkdirSync(target);
  await writeDirectory(target, {}, write('one'));
  expect(content()).toBe('one');
});

test('a former output is refused without force, and replaced with it', async () => {
  await writeDirectory(target, {}, write('one'));
  await expect(checkTarget(target)).rejects.toMatchObject({
    code: 'KHO_EEXIST',
    message: expect.stringMatching(/holds the output of an earlier run; replace it with --force/),
  });
  await writeDirectory(target, { force: true }, write('two'));
  expect(content()).toBe('two');
  expect(readdirSync(parent)).toEqual(['D']);
});

test.each<[string, () => void, RegExp]>([
  [
    'foreign files',
    () => {
      mkdirSync(target);
      writeFileSync(join(target, 'thesis.tex'), '');
    },
    /did not write \(thesis\.tex\)/,
  ],
  [
    'foreign files beside a former output',
    () => {
      mkdirSync(join(target, 'kho', 'out'), { recursive: true });
      writeFileSync(join(target, 'notes.txt'), '');
    },
    /did not write \(notes\.txt\)/,
  ],
  [
    "a run.json that is not khorus's",
    () => {
      mkdirSync(target);
      writeFileSync(join(target, 'run.json'), '{"name":"x"}');
    },
    /did not write \(run\.json\)/,
  ],
  ['a file', () => writeFileSync(target, 'x'), /is not a directory/],
  ['a link to nowhere', () => symlinkSync(join(parent, 'nowhere'), target), /is not a directory/],
])('a target that is or holds %s is refused even with force, and stays as it is', async (_, make, message) => {
  make();
  const before = readdirSync(parent, { recursive: true }).sort();
  let filled = false;
  const fill = async () => {
    filled = true;
  };
  for (const force of [false, true]) {
    await expect(checkTarget(target, { force })).rejects.toMatchObject({
      code: 'KHO_EEXIST',
      message: expect.stringMatching(message),
    });
    await expect(writeDirectory(target, { force }, fill)).rejects.toMatchObject({ code: 'KHO_EEXIST' });
  }
  expect(filled).toBe(false);
  expect(readdirSync(parent, { recursive: true }).sort()).toEqual(before);
});

test('a link to a directory stays a link', async () => {
  const real = join(parent, 'real');
  mkdirSync(real);
  symlinkSync(real, target);
  await writeDirectory(target, {}, write('one'));
  expect(readFileSync(join(real, 'kho', 'out', 'fdt'), 'utf8')).toBe('one');
  expect(readdirSync(parent).sort()).toEqual(['D', 'real']);
});

test('the working directory and what holds it are refused, and so is a target without a parent', async () => {
  for (const path of ['.', '..', '/']) await expect(checkTarget(path)).rejects.toMatchObject({ code: 'KHO_EBUSY' });
  await expect(checkTarget(join(parent, 'a', 'b'))).rejects.toMatchObject({
    code: 'KHO_ENOENT',
    message: expect.stringContaining(`there is no directory ${join(parent, 'a')}`),
  });
});

test('a failure midway leaves nothing, and a former output as it was', async () => {
  const fail = async (directory: string) => {
    await write('half')(directory);
    throw new Error('injected');
  };
  await expect(writeDirectory(target, {}, fail)).rejects.toThrow('injected');
  expect(readdirSync(parent)).toEqual([]);
  await writeDirectory(target, {}, write('one'));
  await expect(writeDirectory(target, { force: true }, fail)).rejects.toThrow('injected');
  expect(readdirSync(parent)).toEqual(['D']);
  expect(content()).toBe('one');
});

test('an abort while it is filled leaves nothing', async () => {
  const controller = new AbortController();
  const fill = async (directory: string) => {
    await write('half')(directory);
    controller.abort();
  };
  await expect(writeDirectory(target, { signal: controller.signal }, fill)).rejects.toMatchObject({
    code: 'KHO_ECANCELED',
  });
  expect(readdirSync(parent)).toEqual([]);
});

test('what came into the way since the check is refused, not replaced', async () => {
  const fill = async (directory: string) => {
    await write('mine')(directory);
    mkdirSync(target);
    writeFileSync(join(target, 'theirs'), '');
  };
  await expect(writeDirectory(target, {}, fill)).rejects.toMatchObject({ code: 'KHO_EEXIST' });
  expect(readdirSync(parent)).toEqual(['D']);
  expect(readdirSync(target)).toEqual(['theirs']);
});

test('the same target twice at the same time is refused', async () => {
  await writeDirectory(target, {}, async (directory) => {
    await write('one')(directory);
    await expect(writeDirectory(target, {}, write('two'))).rejects.toMatchObject({ code: 'KHO_EBUSY' });
  });
  expect(content()).toBe('one');
});

test('what dead processes left is cleaned up, what living ones and others have is kept', async () => {
  const keep = [`.D.khorus-${process.ppid}`, '.D.khorus-notes', '.E.khorus-1', `.D.khorus-${process.ppid}-former`];
  for (const name of [...keep, `.D.khorus-${deadPid()}`, `.D.khorus-${process.pid}`]) {
    mkdirSync(join(parent, name));
    writeFileSync(join(parent, name, 'half'), '');
  }
  await writeDirectory(target, {}, write('one'));
  expect(readdirSync(parent).sort()).toEqual([...keep, 'D'].sort());
});

test('a former output that a killed process had moved aside is put back', async () => {
  const aside = join(parent, `.D.khorus-${deadPid()}-former`);
  mkdirSync(aside);
  await write('former')(aside);
  await expect(writeDirectory(target, {}, write('one'))).rejects.toMatchObject({ code: 'KHO_EEXIST' });
  expect(content()).toBe('former');
  expect(readdirSync(parent)).toEqual(['D']);
});
