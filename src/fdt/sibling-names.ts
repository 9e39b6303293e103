import { KhoError } from '../errors.js';

/** The names below one node, each added once, which libfdt must be able to tell apart. */
export class SiblingNames {
  readonly #names = new Set<string>();
  /** By what stands before the '@': the first name that has one. */
  readonly #withUnitAddress = new Map<string, string>();

  /** KHO_EINVAL for a name that is another's without its unit address, or the other way round. `path` is for the message. */
  add(name: string, path: string): void {
    const at = name.indexOf('@');
    const base = name.slice(0, at);
    const other = at < 0 ? this.#withUnitAddress.get(name) : this.#names.has(base) ? base : undefined;
    if (other !== undefined) {
      throw new KhoError(
        'KHO_EINVAL',
        `the node ${path} cannot stand beside '${other}': libfdt takes one for the other`,
        { path },
      );
    }
    this.#names.add(name);
    if (at >= 0 && !this.#withUnitAddress.has(base)) this.#withUnitAddress.set(base, name);
  }
}
