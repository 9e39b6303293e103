import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Dependent, orderByDependencies } from '#dist/coordinator/dependencies.js';

const driver = (name: string, after: readonly string[] = [], priority = 0): Dependent => ({ name, after, priority });

function order(...drivers: Dependent[]): string[] {
  return orderByDependencies(drivers).map((index) => drivers[index].name);
}

function refused(message: string, name: string) {
  return expect.objectContaining({ code: 'KHO_EINVAL', message, details: { driver: name, field: 'after' } });
}

describe('the order of drivers', () => {
  test('without dependencies and priorities is that of the list', () => {
    expect(order()).toEqual([]);
    expect(order(driver('c'), driver('a'), driver('b'))).toEqual(['c', 'a', 'b']);
  });

  test('puts every driver behind those that it names, wherever they stand in the list', () => {
    expect(order(driver('vfio', ['iommu', 'kvm']), driver('kvm'), driver('iommu', ['kvm']))).toEqual([
      'kvm',
      'iommu',
      'vfio',
    ]);
  });

  test('lets the higher priority go first where there is a choice, and only there', () => {
    expect(order(driver('low', [], -1), driver('middle'), driver('high', [], 5))).toEqual(['high', 'middle', 'low']);
    expect(order(driver('urgent', ['slow'], 9), driver('slow', [], -9), driver('plain'))).toEqual([
      'plain',
      'slow',
      'urgent',
    ]);
    // As soon as it is free to go, a high priority overtakes what stands before it in the list.
    expect(order(driver('first'), driver('second'), driver('urgent', ['first'], 9))).toEqual([
      'first',
      'urgent',
      'second',
    ]);
  });

  test('takes a dependency that is named twice for one', () => {
    expect(order(driver('b', ['a', 'a']), driver('a'))).toEqual(['a', 'b']);
  });

  test('is at each place the best of those that are free to go', () => {
    // Dependencies go to lower numbers, the list is shuffled: any list without a circle.
    const drivers = fc
      .array(
        fc.record({
          after: fc.array(fc.nat({ max: 20 }), { maxLength: 3 }),
          priority: fc.integer({ min: -2, max: 2 }),
        }),
        {
          maxLength: 12,
        },
      )
      .map((list) =>
        list.map(({ after, priority }, n) => driver(`d${n}`, n === 0 ? [] : after.map((m) => `d${m % n}`), priority)),
      )
      .chain((list) => fc.shuffledSubarray(list, { minLength: list.length }));
    fc.assert(
      fc.property(drivers, (list) => {
        const result = orderByDependencies(list);
        const waiting = new Set(list.keys());
        for (const chosen of result) {
          const free = [...waiting].filter((index) =>
            list[index].after.every((name) => ![...waiting].some((other) => list[other].name === name)),
          );
          const highest = Math.max(...free.map((index) => list[index].priority));
          expect(chosen).toBe(free.find((index) => list[index].priority === highest));
          waiting.delete(chosen);
        }
        expect(waiting.size).toBe(0);
      }),
    );
  });
});

describe('a driver that is not in the run', () => {
  test('is named, with the nearest that is', () => {
    expect(() => order(driver('iommu'), driver('vfio-pci', ['iomu']))).toThrow(
      refused("'vfio-pci' comes after 'iomu', which is not in this run; did you mean 'iommu'?", 'vfio-pci'),
    );
  });

  test('gets no suggestion where none is near', () => {
    expect(() => order(driver('iommu'), driver('vfio-pci', ['scheduler']))).toThrow(
      refused("'vfio-pci' comes after 'scheduler', which is not in this run", 'vfio-pci'),
    );
    // Three edits turn any name of three letters into any other.
    expect(() => order(driver('kvm'), driver('vfio-pci', ['x']))).toThrow(
      refused("'vfio-pci' comes after 'x', which is not in this run", 'vfio-pci'),
    );
  });

  test('is never suggested to be the driver itself, which would be a circle', () => {
    expect(() => order(driver('kvm'), driver('iommu0', ['iommu']))).toThrow(
      refused("'iommu0' comes after 'iommu', which is not in this run", 'iommu0'),
    );
    expect(() => order(driver('alone', ['alone2']))).toThrow(
      refused("'alone' comes after 'alone2', which is not in this run", 'alone'),
    );
  });
});

describe('a circle is spelled out', () => {
  test('of one, of two and of three', () => {
    const circle = 'the drivers wait for each other in a circle: ';
    expect(() => order(driver('a', ['a']))).toThrow(refused(`${circle}a after a`, 'a'));
    expect(() => order(driver('a', ['b']), driver('b', ['a']))).toThrow(refused(`${circle}a after b after a`, 'a'));
    expect(() => order(driver('a', ['c']), driver('b', ['a']), driver('c', ['b']))).toThrow(
      refused(`${circle}a after c after b after a`, 'a'),
    );
  });

  test('without those that only wait for it, and without those that are placed', () => {
    expect(() =>
      order(driver('waits', ['x']), driver('placed'), driver('x', ['placed', 'y']), driver('y', ['x', 'placed'])),
    ).toThrow(refused('the drivers wait for each other in a circle: x after y after x', 'x'));
  });
});
