import { KhoError } from '../errors.js';

/** Property names as numbers, for one thread. */
export class PropertyNames {
  readonly #ids = new Map<string, number>();
  readonly #texts: string[] = [];

  /** How many there are; ids count from 0. */
  get count(): number {
    return this.#texts.length;
  }

  id(name: string): number {
    let id = this.#ids.get(name);
    if (id === undefined) {
      id = this.#texts.length;
      this.#ids.set(name, id);
      this.#texts.push(name);
    }
    return id;
  }

  /** Characters of a name; NaN for a number that is no name. */
  lengthOf(id: number): number {
    return this.#texts[id]?.length ?? Number.NaN;
  }

  /** KHO_EINVAL for a number that is no name. */
  text(id: number): string {
    const text = this.#texts[id];
    if (text === undefined) throw new KhoError('KHO_EINVAL', `${id} is not the id of a property name`);
    return text;
  }
}
