import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KhoError } from '#dist/errors.js';
import { checkNodeName, checkPropertyName, siblingsConflict } from '#dist/fdt/index.js';

function messageOf(body: () => void): string {
  try {
    body();
  } catch (error) {
    if (error instanceof KhoError && error.code === 'KHO_EINVAL') return error.message;
    throw error;
  }
  throw new Error('nothing was thrown');
}

test.each([
  'memory',
  'memory@0',
  'cpu@0,1',
  '0000-3b-00.0',
  'a,b._+-',
  'A@f',
  'x'.repeat(63),
  `${'x'.repeat(63)}@${'1'.repeat(63)}`,
])('node name %s is right', (name) => {
  expect(() => checkNodeName(name)).not.toThrow();
});

test.each([
  ['0000:3b:00.0', /'0000:3b:00\.0' has ':', which .* write '0000-3b-00\.0'/],
  ['a@b@c', /has '@'.*write 'a@b-c'/],
  ['a/b', /has '\/'.*write 'a-b'/],
  ['clock#1', /has '#'/],
  ['a b', /has ' '/],
  ['a\u0000', /'aU\+0000' has U\+0000/],
  ['prüf', /has 'ü'.*write 'pr-f'/],
  ['p\u{1f600}', /has '\u{1f600}'.*write 'p-'/u],
  ['a\n', /has U\+000A/],
  ['', /lacks a name$/],
  ['@1', /lacks a name before its '@'/],
  ['cpu@', /lacks a unit address after its '@'/],
  ['x'.repeat(64), /too long: a name has at most 63 characters, this one has 64/],
  [`x@${'1'.repeat(64)}`, /too long: a unit address/],
])('node name %j is refused with a reason', (name, reason) => {
  expect(messageOf(() => checkNodeName(name))).toMatch(reason);
});

test('a name suggested for a wrong one is right itself', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary', maxLength: 70 }), fc.string({ maxLength: 20 })), (name) => {
      for (const check of [checkNodeName, checkPropertyName]) {
        try {
          check(name);
        } catch (error) {
          const suggested = /; write '(.*)'$/s.exec(String(error instanceof KhoError ? error.message : error))?.[1];
          if (suggested !== undefined) check(suggested);
        }
      }
    }),
    { numRuns: 2000 },
  );
});

test('property names may have ? and #, but no @', () => {
  for (const name of ['#address-cells', 'linux,phandle', 'ok?', 'x'.repeat(63)]) checkPropertyName(name);
  expect(messageOf(() => checkPropertyName('a@1'))).toMatch(/'a@1' has '@', which a property's name .*write 'a-1'/);
  expect(messageOf(() => checkPropertyName(''))).toMatch(/lacks a name/);
  expect(messageOf(() => checkPropertyName('x'.repeat(64)))).toMatch(/too long/);
});

test('siblings conflict if they are equal or if one is the other without unit address', () => {
  const conflict = ['port', 'port@0', 'port@1', 'ports', 'port-a@0'].map((a) =>
    ['port', 'port@0', 'port@1', 'ports', 'port-a@0'].map((b) => siblingsConflict(a, b)),
  );
  expect(conflict).toEqual([
    [true, true, true, false, false],
    [true, true, false, false, false],
    [true, false, true, false, false],
    [false, false, false, true, false],
    [false, false, false, false, true],
  ]);
});
