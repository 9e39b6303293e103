import fc from 'fast-check';
import {
  type Calibration,
  Coordinator,
  chooseMode,
  declaredLoad,
  explainChoice,
  type HandoverLoad,
  Host,
  type Mode,
  type ModeCosts,
  predictTime,
  workIn,
} from 'khorus';
import { describe, expect, test } from 'vitest';

const MODES: readonly Mode[] = ['sequential', 'hash', 'subfdt'];
const sequential: ModeCosts = {
  ...{ fixed: 300, perShard: 5, perByteSerialize: 0.001, perByteFinalize: 0.0005, parallelism: 1 },
};
const hash: ModeCosts = { ...sequential, fixed: 500, perByteSerialize: 0.002, parallelism: 2 };
const subfdt: ModeCosts = { ...hash, perShard: 40, perByteFinalize: 0 };
const calibration: Calibration = {
  ...{ machine: 'a machine', workers: 2, date: '2026-11-25T00:00:00.000Z' },
  modes: { sequential, hash, subfdt },
};
const load = (change: Partial<HandoverLoad>): HandoverLoad => ({
  ...{ bytes: 1000, shards: 10, largestShare: 0.1, work: 0, source: 'measured' },
  ...change,
});
const chosen = (change: Partial<HandoverLoad>): Mode => chooseMode(calibration, load(change), MODES).mode;

test('little to do is done on one thread, much work on all of them', () => {
  expect(chosen({})).toBe('sequential');
  expect(chosen({ work: 100_000 })).toBe('hash');
});

test('many bytes in few shards go to FDTs of their own, in many shards they do not', () => {
  expect(chosen({ bytes: 10_000_000, work: 10_000 })).toBe('subfdt');
  expect(chosen({ bytes: 1_000_000, shards: 10_000, largestShare: 0.0001, work: 100_000 })).toBe('hash');
});

test('what is all in one shard cannot be spread', () => {
  expect(chosen({ work: 100_000, largestShare: 1, shards: 1 })).toBe('sequential');
});

test('only candidates are chosen', () => {
  const { mode, predictions } = chooseMode(calibration, load({ work: 1_000_000 }), ['sequential']);
  expect([mode, predictions.length]).toEqual(['sequential', 1]);
});

test('predictions are sorted, and add up by hand', () => {
  const { predictions } = chooseMode(calibration, load({ bytes: 2000, work: 100 }), MODES);
  expect(predictions).toEqual([
    { mode: 'sequential', time: 300 + 1 + 50 + 2 + 100 },
    { mode: 'hash', time: 500 + 1 + (50 + 4 + 100) / 2 },
    { mode: 'subfdt', time: 500 + (400 + 4 + 100) / 2 },
  ]);
});

test('the work in a time is the one for which that time is predicted', () => {
  const positive = fc.double({ min: 0, max: 1000, noNaN: true });
  fc.assert(
    fc.property(
      fc.record({ fixed: positive, perShard: positive, perByteSerialize: positive, perByteFinalize: positive }),
      fc.double({ min: 1, max: 64, noNaN: true }),
      fc.record({ bytes: fc.nat(), shards: fc.nat(), largestShare: fc.double({ min: 0.001, max: 1, noNaN: true }) }),
      fc.double({ min: 0, max: 1e6, noNaN: true }),
      (rest, parallelism, size, work) => {
        const costs = { ...rest, parallelism };
        const time = predictTime(costs, { ...size, work, source: 'measured' });
        expect(workIn(costs, size, time)).toBeCloseTo(work, -Math.ceil(Math.log10(time + 1)) + 8);
        expect(workIn(costs, size, 0)).toBe(0);
      },
    ),
  );
});

test('before the first handover the declared bounds are all that is known', () => {
  const shards = [{ maxBytes: 100 }, { maxBytes: 300 }];
  expect(declaredLoad(shards)).toEqual({ bytes: 400, shards: 2, largestShare: 0.75, work: 0, source: 'declared' });
  expect(declaredLoad([])).toMatchObject({ bytes: 0, shards: 0, largestShare: 1 });
});

test('the choice is explained in one sentence with all predictions', () => {
  const declared = chooseMode(calibration, declaredLoad([{ maxBytes: 2048 }]), MODES);
  expect(explainChoice(declared)).toMatch(
    /^auto chose sequential: 1 shards with 2 KiB at most by declaration, work unknown; predicted sequential 0.31 ms, hash .* ms, subfdt .* ms$/,
  );
  expect(explainChoice(chooseMode(calibration, load({ work: 20_000 }), MODES))).toMatch(
    /^auto chose hash: 10 shards with 1 KiB and 20.0 ms of work, as in the handovers before; predicted hash/,
  );
});

describe('a coordinator in mode auto', () => {
  const host = new Host({
    ...{ arch: 'x86_64', memory: 256 * 2 ** 20, nodes: 1, cmdline: 'kho=on kho_scratch=8M,16M,8M' },
    ...{ cpus: 1, release: '7.2.0-test' },
  } as const);
  const base = { mode: 'auto', seed: 1, profile: 'kho-v4' } as const;

  test('refuses to work without a calibration for as many workers', () => {
    expect(() => new Coordinator(host, { ...base, workers: 2 })).toThrow(
      expect.objectContaining({ code: 'KHO_EINVAL', details: { field: 'calibration' } }),
    );
    expect(() => new Coordinator(host, { ...base, workers: 4, calibration })).toThrow(/4 workers/);
  });

  test('chooses by declaration first and by the last handover then, until another driver is registered', async () => {
    const coordinator = new Coordinator(host, { ...base, workers: 2, calibration });
    const register = (name: string) => {
      const source = `export default { name: '${name}', compatible: '${name}-v1', shards: () => [{}], create: () => null,
        restore: () => null, snapshot: () => null,
        serialize(ctx) { const end = performance.now() + 3; while (performance.now() < end); ctx.root.u32('x', 1); } }`;
      const module = { url: `data:text/javascript,${encodeURIComponent(source)}`, origin: name };
      coordinator.register({ module, count: 4, options: undefined, after: [], priority: 0 });
    };
    const choice = async () => {
      using handover = await coordinator.handover();
      expect(handover.record()).toMatchObject({ mode: handover.choice?.mode, modeChoice: handover.choice });
      return handover.choice;
    };
    register('one');
    expect(await choice()).toMatchObject({ mode: 'sequential', load: { source: 'declared', work: 0, shards: 4 } });
    const second = await choice();
    expect(second).toMatchObject({ load: { source: 'measured', shards: 4 } });
    expect(second?.mode).not.toBe('sequential'); // 12 ms of work at least, by the clock of the driver itself
    register('two');
    expect(await choice()).toMatchObject({ load: { source: 'declared', shards: 8 } });
    await coordinator[Symbol.asyncDispose]();
  });
});
