import { KhoError } from '../errors.js';
import type { Registry } from './registry.js';

/** Who is frozen: instances, as their callbacks succeed; and the drivers that were frozen before the blackout. */
export class FrozenDrivers {
  readonly #registry: Registry;
  /** Instances whose freeze has succeeded, and was not undone. */
  readonly #instances = new Set<number>();
  readonly #early = new Set<number>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  /** Drivers that were frozen before the blackout. */
  get early(): ReadonlySet<number> {
    return this.#early;
  }

  has(instance: number): boolean {
    return this.#instances.has(instance);
  }

  /** The freeze of an instance has succeeded. */
  add(instance: number): void {
    this.#instances.add(instance);
  }

  /** All instances of these drivers are frozen, before the blackout. */
  addEarly(drivers: readonly number[]): void {
    for (const driver of drivers) this.#early.add(driver);
  }

  /** They are no more. */
  release(drivers: readonly number[]): void {
    for (const driver of drivers) {
      this.#early.delete(driver);
      for (const instance of this.#registry.drivers[driver]?.instances ?? []) this.#instances.delete(instance);
    }
  }

  /**
   * What the arguments of `update`, `freezeEarly` and `unfreeze` must be. KHO_EBUSY for a driver that is frozen already;
   * KHO_EINVAL for one to be frozen that comes after a driver which is not, and for one to be unfrozen that is not frozen, or
   * that a frozen one comes after.
   */
  check(call: string, drivers: readonly number[]): void {
    for (const driver of drivers) {
      if (call === 'unfreeze') this.#checkUnfreeze(driver, drivers);
      else this.#checkNotFrozen(call, driver);
      if (call === 'freezeEarly') this.#checkOrder(driver, drivers);
    }
  }

  #checkNotFrozen(call: string, index: number): void {
    const driver = this.#name(index);
    if (this.#early.has(index)) throw new KhoError('KHO_EBUSY', `'${driver}' is frozen`, { driver, call });
  }

  #checkOrder(index: number, drivers: readonly number[]): void {
    const { after = [] } = this.#registry.drivers[index] ?? {};
    const missing = after.find((other) => !drivers.includes(other) && !this.#early.has(other));
    if (missing === undefined) return;
    const driver = this.#name(index);
    const text = `'${driver}' comes after '${this.#name(missing)}', which must be frozen before it or with it`;
    throw new KhoError('KHO_EINVAL', text, { driver, call: 'freezeEarly' });
  }

  #checkUnfreeze(index: number, drivers: readonly number[]): void {
    const details = { driver: this.#name(index), call: 'unfreeze' };
    if (!this.#early.has(index)) throw new KhoError('KHO_EINVAL', `'${details.driver}' is not frozen`, details);
    const dependent = [...this.#early].find(
      (other) => !drivers.includes(other) && this.#registry.drivers[other]?.after.includes(index),
    );
    if (dependent === undefined) return;
    const text = `'${this.#name(dependent)}' comes after '${details.driver}' and is frozen; unfreeze it first`;
    throw new KhoError('KHO_EINVAL', text, details);
  }

  #name(index: number): string {
    return this.#registry.drivers[index]?.name ?? '';
  }
}
