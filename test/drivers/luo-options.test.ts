import { describe, expect, it } from 'vitest';
import { luoOptions } from '#dist/drivers/luo-options.js';

const MEMFD = { size: 65536, order: 0, holes: 0, seals: 0, pos: 0n };

describe('the options of luo', () => {
  it('are two sessions of two memfds of 64 KiB if nothing is said', () => {
    const memfds = [
      { ...MEMFD, token: 0n },
      { ...MEMFD, token: 1n },
    ];
    expect(luoOptions.parse({})).toEqual({
      liveupdateNumber: 1n,
      sessions: [
        { name: 'session0', memfds },
        { name: 'session1', memfds },
      ],
      flbs: [],
    });
  });

  it('hold for all below unless it says otherwise', () => {
    const { sessions } = luoOptions.parse({
      size: '1M',
      order: 9,
      memfds: 1,
      sessions: [
        { name: 'as-above' },
        { name: 'own', size: 4096, memfds: [{ token: 5 }, { token: 6, size: 0, seals: ['shrink', 'grow'] }] },
        { name: 'none', memfds: 0 },
      ],
    });
    expect(sessions).toEqual([
      { name: 'as-above', memfds: [{ ...MEMFD, token: 0n, size: 2 ** 20, order: 9 }] },
      {
        name: 'own',
        memfds: [
          { ...MEMFD, token: 5n, size: 4096, order: 9 },
          { ...MEMFD, token: 6n, size: 0, order: 9, seals: 6 },
        ],
      },
      { name: 'none', memfds: [] },
    ]);
  });

  it('repeat sessions and memfds by count, numbering names and tokens', () => {
    const { sessions } = luoOptions.parse({
      sessions: [
        { name: 'vm', count: 2, memfds: [{ token: 0 }, { token: 100, count: 3, size: '4K' }] },
        { name: 'last', memfds: 1 },
      ],
    });
    expect(sessions.map(({ name }) => name)).toEqual(['vm0', 'vm1', 'last']);
    expect(sessions[1]?.memfds.map(({ token, size }) => [token, size])).toEqual([
      [0n, 65536],
      [100n, 4096],
      [101n, 4096],
      [102n, 4096],
    ]);
  });

  it('take 64-bit numbers as text', () => {
    const memfds = [{ token: '0xFFFFFFFFFFFFFFFF', pos: '9223372036854775807' }];
    const { sessions, flbs } = luoOptions.parse({
      sessions: [{ name: 'x', memfds }],
      flbs: [{ compatible: 'flb', data: '0xFEEDF00DCAFEBEE0' }],
    });
    expect(sessions[0]?.memfds[0]).toMatchObject({ token: 2n ** 64n - 1n, pos: 2n ** 63n - 1n });
    expect(flbs).toEqual([{ compatible: 'flb', data: 0xfeedf00dcafebee0n, count: 1n }]);
  });

  it('of testFlbs are those of CONFIG_LIVEUPDATE_TEST, counting all memfds', () => {
    expect(luoOptions.parse({ testFlbs: true, sessions: 3, memfds: 5 }).flbs).toEqual(
      [0, 1, 2].map((index) => ({
        compatible: `liveupdate-test-flb-v${index}`,
        data: 0xfeedf00dcafebee0n + BigInt(index),
        count: 15n,
      })),
    );
  });

  it('hand over no FLB that no file depends on, as Linux does', () => {
    expect(luoOptions.parse({ testFlbs: true, sessions: 3, memfds: 0 }).flbs).toEqual([]);
    const flbs = [{ compatible: 'counted', data: 1, count: 7 }];
    expect(luoOptions.parse({ sessions: 0, flbs }).flbs).toEqual([{ compatible: 'counted', data: 1n, count: 7n }]);
  });

  it.each<[string, unknown, string, RegExp]>([
    ['an unknown field', { memfd: 1 }, '', /Unrecognized key: "memfd"/],
    [
      'an unknown field of a memfd',
      { sessions: [{ name: 'a', memfds: [{ token: 1, sice: 1 }] }] },
      'sessions.0.memfds.0',
      /sice/,
    ],
    ['a memfd without a token', { memfds: [{}] }, 'memfds.0.token', /expected an integer of 64 bits/],
    ['a session without a name', { sessions: [{ memfds: 1 }] }, 'sessions.0.name', /expected string/],
    ['an empty name', { sessions: [{ name: '' }] }, 'sessions.0.name', /expected 1 to 63 bytes/],
    ['a name of 64 bytes', { sessions: [{ name: 'é'.repeat(32) }] }, 'sessions.0.name', /expected 1 to 63 bytes/],
    [
      'a name that its number makes too long',
      { sessions: [{ name: 'x'.repeat(63), count: 1 }] },
      'sessions',
      /more than 63 bytes/,
    ],
    [
      'two sessions of one name',
      { sessions: [{ name: 'a1' }, { name: 'a', count: 2 }] },
      'sessions',
      /two sessions named 'a1'/,
    ],
    [
      'two memfds of one token',
      { memfds: [{ token: 3 }, { token: 2, count: 2 }] },
      'sessions.0',
      /two memfds with token 3/,
    ],
    [
      'tokens beyond 64 bits',
      { memfds: [{ token: '0xFFFFFFFFFFFFFFFF', count: 2 }] },
      'sessions.0',
      /does not fit into 64 bits/,
    ],
    ['a token that is no integer', { memfds: [{ token: 1.5 }] }, 'memfds.0.token', /64 bits; quote it above 2\^53/],
    ['a token that lost bits', { memfds: [{ token: 2 ** 60 }] }, 'memfds.0.token', /64 bits; quote it above 2\^53/],
    ['a negative number of sessions', { sessions: -1 }, 'sessions', /Too small/],
    ['sessions in words', { sessions: 'two' }, 'sessions', /expected number/],
    ['a size below zero', { size: -1 }, 'size', /Too small/],
    ['a size in words', { size: 'big' }, 'size', /expected bytes, or a whole number with K, M, G or T/],
    ['an order above 9', { order: 10 }, 'order', /Too big/],
    ['an unknown seal', { seals: ['shrnik'] }, 'seals.0', /Invalid option/],
    ['a hole inside a page', { holes: [{ at: 100, size: 4096 }] }, 'holes.0.at', /multiple of 4096/],
    ['an empty hole', { holes: [{ at: 0, size: 0 }] }, 'holes.0.size', /Too small/],
    [
      'a hole behind the file',
      { size: 5000, holes: [{ at: 4096, size: 8192 }] },
      'sessions.0',
      /hole at 4096 of memfd 0 ends beyond its last page, which ends at 8192/,
    ],
    ['a position of 64 bits', { pos: '0x8000000000000000' }, 'pos', /file position of at most 9223372036854775807/],
    ['two FLBs of one name', { flbs: [1, 2].map((data) => ({ compatible: 'a', data })) }, 'flbs', /two FLBs 'a'/],
    [
      '64 FLBs',
      { flbs: Array.from({ length: 64 }, (_, n) => ({ compatible: `f${n}`, data: n })) },
      'flbs',
      /room for 63/,
    ],
    ['an FLB of no files', { flbs: [{ compatible: 'a', data: 1, count: 0 }] }, 'flbs.0.count', /Too small/],
  ])('refuse %s', (_what, options, path, message) => {
    const { error } = luoOptions.safeParse(options);
    expect(error?.issues.map((issue) => ({ path: issue.path.join('.'), message: issue.message }))).toContainEqual({
      path,
      message: expect.stringMatching(message),
    });
  });
});
