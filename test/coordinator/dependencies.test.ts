import { orderByDependencies } from 'khorus';
import { expect, test } from 'vitest';

const driver = (name: string, after: string[] = [], priority = 0) => ({ name, after, priority });
const names = (drivers: ReturnType<typeof driver>[]) =>
  orderByDependencies(drivers).map((index) => drivers[index]?.name);

test('what a driver names in after comes first; else priority, else the order of the list', () => {
  expect(names([driver('c', ['a']), driver('a', ['b']), driver('b')])).toEqual(['b', 'a', 'c']);
  expect(names([driver('a'), driver('b', [], 5), driver('c', [], 5)])).toEqual(['b', 'c', 'a']);
  expect(names([driver('a', ['b']), driver('b', [], -1), driver('c')])).toEqual(['c', 'b', 'a']);
});

test('a name that is not in the run is refused with the nearest one', () => {
  expect(() => names([driver('vfio-pci', ['iomu']), driver('iommu')])).toThrow(
    /'iomu', which is not in this run; did you mean 'iommu'/,
  );
});

test('a circle is spelled out', () => {
  const circle = [driver('x'), driver('a', ['c']), driver('b', ['a']), driver('c', ['b'])];
  expect(() => names(circle)).toThrow(/in a circle: a after c after b after a/);
});
