import { KhoError } from 'khorus';
import { expect, test } from 'vitest';

test('a KhoError carries the errno of its kernel name and keeps its fields across a structured clone', () => {
  const cause = new KhoError('KHO_ENOMEM', 'no pages');
  const error = new KhoError('KHO_EEXIST', 'taken', { driver: 'a', address: 0x1000 }, { cause });
  const back = KhoError.from(structuredClone(error.toJSON()));
  expect(back).toBeInstanceOf(KhoError);
  expect([back.code, back.errno, back.message, back.details]).toEqual([
    'KHO_EEXIST',
    17,
    'taken',
    { driver: 'a', address: 0x1000 },
  ]);
  expect(back.cause).toMatchObject({ code: 'KHO_ENOMEM' });
});

test('KhoError.from wraps what is not a KhoError and keeps it as the cause', () => {
  const thrown = new TypeError('boom');
  const error = KhoError.from(thrown, 'KHO_EDRIVER');
  expect(error.code).toBe('KHO_EDRIVER');
  expect(error.cause).toBe(thrown);
  expect(KhoError.from('text').message).toBe('text');
});

test('with() adds what is not said yet and overrides nothing', () => {
  const error = new KhoError('KHO_ENOSPC', 'full', { driver: 'a' }).with({ driver: 'b', shard: 3 });
  expect(error.details).toEqual({ driver: 'a', shard: 3 });
});
